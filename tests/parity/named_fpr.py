"""FPR: both orders of patches, the two branches on pairs of stacks, the couplings in both directions, the losses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.fpr.critic import FPR, Order
from perceptloss.critics.fpr.hallucination import PatchReader, weighted_mean
from perceptloss.networks.patches import per_image
from perceptloss.teach.objectives.regression import triplet_margin

from .losses import Losses, loss_readers
from .named import NamedCase, Reader, System, gradient

_PAIRS = ("dist", "dist2", "ref", "ref2")
_LABELS = (37.5, 12.25)
_LOSSES = ("loss_l1_FS", "loss_l1_NFS", "loss_l1_NS", "loss_triplet_dist", "loss_triplet_ref", "loss_total")


def _score(order: Order) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, FPR)
        critic.order = order
        score = critic(case.image(name))
        critic.order = "columns"
        return score

    return read


def _first_stage(critic: Critic, case: NamedCase, name: str) -> Tensor:
    found: list[Tensor] = []
    assert isinstance(critic, FPR)
    handle = critic.encoder[0][1].register_forward_hook(lambda layer, given, out: found.append(out))  # type: ignore[index]
    critic.encode(critic.patches(case.image(name)))
    handle.remove()
    return torch.nn.functional.max_pool2d(found[0], 2)  # the activation worked in place


def _vectors(critic: FPR, case: NamedCase, name: str) -> Tensor:
    cells = critic.patches(case.image(name))
    return per_image(critic.reader.vectors(*critic.encode(cells)), len(cells))


def _stacks(critic: FPR, images: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Distorted and reference patches of the input `pairs`, (2, 3, 3, 64, 64) each."""
    distorted, reference = (
        torch.cat([critic.patches(images[start + end])[:, :3] for end in ("", "2")]) for start in ("dist", "ref")
    )
    return distorted, reference


@lru_cache(maxsize=2)
@torch.no_grad()
def _maps(critic: Critic, case: NamedCase) -> dict[str, Tensor]:
    assert isinstance(critic, FPR)
    return _all_maps(critic, {name: case.image(name) for name in _PAIRS})


def _all_maps(critic: FPR, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every map of the input `pairs` under the case's name."""
    distorted, reference = _stacks(critic, images)
    found = {"f_dist": critic.encode_reference(distorted), "f_ref": critic.encode_reference(reference)}
    found["fake_dist"], found["fake_ref"] = critic.hallucinate(distorted)
    back = critic.couplings.inverse(found["f_dist"], found["f_ref"])
    found |= {f"inverse_of_f_dist_f_ref:{n}": back[n - 1] for n in (1, 2)}
    return found | dict(zip(("half1", "half2"), critic.encode(distorted), strict=True))


def _map(wanted: str) -> Reader:
    return lambda critic, case, name: _maps(critic, case)[wanted]


def _judged(critic: FPR, found: Mapping[str, Tensor], reader: str, first: str, second: str) -> Tensor:
    part = getattr(critic, reader)
    assert isinstance(part, PatchReader)
    return weighted_mean(*critic.judge(found[first], found[second], 2, part))


_FS = ("reference_reader", "f_ref", "f_dist")
_NFS = ("reference_reader", "fake_ref", "fake_dist")
_NS = ("reader", "half1", "half2")


def _read(*which: str) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, FPR)
        return _judged(critic, _maps(critic, case), *which)

    return read


def _teach(critic: Critic, case: NamedCase, images: Mapping[str, Tensor]) -> Losses:
    assert isinstance(critic, FPR)
    found = _all_maps(critic, images)
    labels = torch.tensor(_LABELS, dtype=found["f_ref"].dtype)
    losses = {
        f"loss_l1_{name}": (_judged(critic, found, *which) - labels).abs().mean()
        for name, which in (("FS", _FS), ("NFS", _NFS), ("NS", _NS))
    }
    for own, other in (("dist", "ref"), ("ref", "dist")):
        three = (found[name] for name in (f"f_{own}", f"fake_{own}", f"f_{other}"))
        losses[f"loss_triplet_{own}"] = 20 * triplet_margin(*three, margin=0.5)
    return losses | {"loss_total": torch.stack(list(losses.values())).sum()}


_LOSS_READERS = loss_readers(
    _teach,
    _PAIRS,
    _LOSSES,
    "grad_loss_total_wrt_image",
    {
        "grad_loss_total_wrt:sfl1.conv1.conv.0.weight": "encoder.0.0.weight",
        "grad_loss_total_wrt:fl1.conv1.conv.0.weight": "reference_encoder.0.0.weight",
        "grad_loss_total_wrt:InvRescaleNet.operations.1.H.conv4.weight": "couplings.1.scale.6.weight",
    },
)


def _there_and_back(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """1 where the inverse of the couplings misses what went in by more than the case allows."""
    assert isinstance(critic, FPR)
    halves = [_maps(critic, case)[half] for half in ("half1", "half2")]
    first, second, _ = critic.couplings(*halves)
    misses = [(a - b).abs().max() for a, b in zip(critic.couplings.inverse(first, second), halves, strict=True)]
    return (torch.stack(misses).max() > (1e-8 if case.dtype == "float64" else 1e-4)).double()[None]


def _log_det(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, FPR)
    found = _maps(critic, case)
    return critic.couplings(found["half1"], found["half2"])[2].mean()


SYSTEM = System(
    "fpr",
    readers={
        "NS_columns": _score("columns"),
        "NS_rows": _score("rows"),
        "nr_features_stage1": _first_stage,
        "nr_features_before_split": lambda critic, case, name: torch.cat(
            critic.encode(critic.patches(case.image(name))), 1
        ),
        "patch_scores_columns": lambda critic, case, name: critic.reader.value(_vectors(critic, case, name)),
        "patch_weight_before_relu_columns": lambda critic, case, name: critic.reader.relevance(
            _vectors(critic, case, name)
        ),
        "gru_states_columns": lambda critic, case, name: critic.reader.states(_vectors(critic, case, name)),
        "grad_NS_columns": gradient(lambda critic, x: critic(x)),
        "FS": _read(*_FS),
        "NFS": _read(*_NFS),
        "NS": _read(*_NS),
        "f_dist": _map("f_dist"),
        "f_ref": _map("f_ref"),
        "fake_dist": _map("fake_dist"),
        "fake_ref": _map("fake_ref"),
        "inverse_of_f_dist_f_ref:1": _map("inverse_of_f_dist_f_ref:1"),
        "inverse_of_f_dist_f_ref:2": _map("inverse_of_f_dist_f_ref:2"),
        "inverse_roundtrip_failed": _there_and_back,
        "log_det_sum_over_batch_divided_by_patches": _log_det,
        **_LOSS_READERS,
    },
)
