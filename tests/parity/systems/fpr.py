"""FPR: both orders of patches, the two branches on pairs of stacks, the couplings in both directions, the losses."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.patches import per_image
from perceptloss.teach.objectives.regression import triplet_margin

from ..case import Row
from ..run import Run, System, once

_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_JUDGES = {
    "FS": ("reference_reader", "f_ref", "f_dist"),
    "NFS": ("reference_reader", "fake_ref", "fake_dist"),
    "NS": ("reader", "half1", "half2"),
}


def _score(run: Run, row: Row, order: str) -> Tensor:
    run.critic.order = order
    return run.score(row.input)


def _first_stage(run: Run, row: Row) -> Tensor:
    found: list[Tensor] = []
    handle = run.critic.encoder[0][1].register_forward_hook(lambda layer, given, out: found.append(out))
    _columns(run, row)
    handle.remove()
    return F.max_pool2d(found[0], 2)  # the activation worked in place


def _columns(run: Run, row: Row) -> tuple[Tensor, Tensor]:
    run.critic.order = "columns"
    return run.critic.encode(run.critic.patches(run.image(row.input)))


def _vectors(run: Run, row: Row) -> Tensor:
    return per_image(run.critic.reader.vectors(*_columns(run, row)), len(run.image(row.input)))


def _stack(run: Run, start: str) -> Tensor:
    """The first patches of the images called `start`, `start`2, ..., (N, P, 3, 64, 64)."""
    run.critic.order = "columns"
    count = run.case.noted(r"the first (\w+) patches")[1]
    first = _WORDS[count] if count in _WORDS else int(count)
    names = [name for name in run.case.inputs if re.fullmatch(rf"{start}\d*", name)]
    return torch.cat([run.critic.patches(run.image(name))[:, :first] for name in names])


@once
def _maps(run: Run) -> dict[str, Tensor]:
    """Every map of the input `pairs` under the case's name."""
    distorted, reference = _stack(run, "dist"), _stack(run, "ref")
    found = {"f_dist": run.critic.encode_reference(distorted), "f_ref": run.critic.encode_reference(reference)}
    found["fake_dist"], found["fake_ref"] = run.critic.hallucinate(distorted)
    return found | dict(zip(("half1", "half2"), run.critic.encode(distorted), strict=True))


def _inverse(run: Run, row: Row, number: str) -> Tensor:
    found = _maps(run)
    return run.critic.couplings.inverse(found["f_dist"], found["f_ref"])[int(number) - 1]


def _judged(run: Run, found: dict[str, Tensor], which: str) -> Tensor:
    reader, first, second = _JUDGES[which]
    images = len(_stack(run, "dist"))
    return weighted_mean(*run.critic.judge(found[first], found[second], images, getattr(run.critic, reader)))


def _loss(run: Run, row: Row, which: str) -> Tensor:
    found, labels = _maps(run), run.tensor(run.case.listed("labels"))
    losses = {f"l1_{name}": (_judged(run, found, name) - labels).abs().mean() for name in _JUDGES}
    for own, other in (("dist", "ref"), ("ref", "dist")):
        three = (found[name] for name in (f"f_{own}", f"fake_{own}", f"f_{other}"))
        losses[f"triplet_{own}"] = 20 * triplet_margin(*three, margin=0.5)
    return torch.stack(list(losses.values())).sum() if which == "total" else losses[which]


def _round_trip_failed(run: Run, row: Row) -> Tensor:
    """1 where the inverse of the couplings misses what went in by more than the case allows."""
    found = _maps(run)
    halves = found["half1"], found["half2"]
    first, second, _ = run.critic.couplings(*halves)
    misses = [(a - b).abs().max() for a, b in zip(run.critic.couplings.inverse(first, second), halves, strict=True)]
    return (torch.stack(misses).max() > (1e-8 if run.dtype == "float64" else 1e-4)).double()[None]


def _log_det(run: Run, row: Row) -> Tensor:
    found = _maps(run)
    return run.critic.couplings(found["half1"], found["half2"])[2].mean()


SYSTEM = System(
    "fpr",
    readers={
        r"NS_(columns|rows)": _score,
        "nr_features_stage1": _first_stage,
        "nr_features_before_split": lambda run, row: torch.cat(_columns(run, row), 1),
        "patch_scores_columns": lambda run, row: run.critic.reader.value(_vectors(run, row)),
        "patch_weight_before_relu_columns": lambda run, row: run.critic.reader.relevance(_vectors(run, row)),
        "gru_states_columns": lambda run, row: run.critic.reader.states(_vectors(run, row)),
        r"(FS|NFS|NS)": lambda run, row, which: _judged(run, _maps(run), which),
        r"((?:f|fake)_(?:dist|ref))": lambda run, row, name: _maps(run)[name],
        r"inverse_of_f_dist_f_ref:([12])": _inverse,
        "inverse_roundtrip_failed": _round_trip_failed,
        "log_det_sum_over_batch_divided_by_patches": _log_det,
        r"loss_(l1_(?:FS|NFS|NS)|triplet_(?:dist|ref)|total)": _loss,
    },
)
