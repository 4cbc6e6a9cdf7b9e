"""DFSS: scores, the network from its stem to the deviations, the classifier trained along, and all its losses."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss import get_card
from perceptloss.critics.dfss.critic import DFSS
from perceptloss.teach.objectives.regression import triplet_margin
from perceptloss.weights.convert import load_states

from ..case import Case, Row
from ..parity import _stream
from ..run import Reader, Run, System, once


def _build(case: Case, row: Row) -> nn.Module:
    """With the classifier, of as many classes as the case has."""
    critic = DFSS(get_card("dfss"), classes=case.shape_in("distype_cls.2.weight")[0])
    load_states(critic, [case.state()])
    return critic.freeze()


def _columns(run: Run, image: Tensor) -> Tensor:
    """Patches in the authors' order: down the columns."""
    patches = run.critic.patches(image)
    return patches.unflatten(1, (image.shape[2] // patches.shape[3], -1)).transpose(1, 2).flatten(1, 2)


@once
def _stacks(run: Run, start: str) -> tuple[Tensor, Tensor]:
    """Content and statistics, (N, P, C), of the first patches of the images called `start`, `start`2, ..."""
    first = int(run.case.noted(r"first (\d+) patches")[1])
    names = [name for name in run.case.inputs if re.fullmatch(rf"{start}\d*", name)]
    return run.critic.vectors(torch.cat([_columns(run, run.image(name))[:, :first] for name in names]))


def _score(run: Run, row: Row) -> Tensor:
    return run.score(row.input) if row.input in run.case.inputs else run.critic.rate(*_stacks(run, "dist"))


def _content(run: Run, row: Row) -> Tensor:
    return run.critic.vectors(run.critic.patches(run.image(row.input)))[0].mean(1)


def _mmd(run: Run, statistics: Tensor) -> Tensor:
    """Between statistics, standardised over the patches, and the Gaussian samples of the case."""
    deviation = statistics.std(1, keepdim=True) + 1e-9
    ours = ((statistics - statistics.mean(1, keepdim=True)) / deviation).flatten(1)
    seed, key = run.case.noted(r"PCG64\(\[(\d+), crc32\('(\w+)'\)").groups()
    theirs = run.tensor(_stream(int(seed), key).standard_normal(tuple(ours.shape)).astype("float32").tolist())
    both, n = torch.cat([ours, theirs]), len(ours)
    squares = (both[:, None] - both).square().sum(2)
    width = squares.detach().sum() / (len(both) * (len(both) - 1)) / 4
    kernel = sum(torch.exp(-squares / (width * 2**power)) for power in range(5))
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()


@once
def _losses(run: Run) -> dict[str, Tensor]:
    critic, case = run.critic, run.case
    dist, ref, other = (_stacks(run, start) for start in ("dist", "ref", "other"))
    labels = run.tensor(case.listed("quality labels"))
    classes = torch.tensor(case.listed("distortion classes"))
    of_ref, of_other = critic.deviate(ref[1]), critic.deviate(other[1])
    found = {
        "l1": (critic.rate(*dist) - labels).abs().mean(),
        "triplet": triplet_margin(*(content.mean(1) for content, _ in (ref, dist, other)), margin=1.0),
        "mmd_unweighted": _mmd(run, dist[1]),
        "deviation_ref_squared": of_ref.square().mean(),
        "deviation_other_squared": of_other.square().mean(),
        "deviation_mse": F.mse_loss(of_ref, of_other),
        "cross_entropy": F.cross_entropy(critic.classify(dist[1]), classes),
    }
    return found | {"total": sum(0.005 * loss if name == "mmd_unweighted" else loss for name, loss in found.items())}


def _of(what: int) -> Reader:
    return lambda run, row, start: _stacks(run, start)[what]


def _in_columns(path: str) -> Reader:
    """What a part returns for patches in the authors' order."""

    def read(run: Run, row: Row) -> Tensor:
        found: list[Tensor] = []
        part = run.critic.get_submodule(path.format(len(run.critic.stages) - 1))
        handle = part.register_forward_hook(lambda layer, given, out: found.append(out.clone()))
        run.critic.vectors(_columns(run, run.image(row.input)))
        handle.remove()
        return found[0]

    return read


SYSTEM = System(
    _build,
    readers={
        "score": _score,
        "stem_before_activation": _in_columns("mix"),
        "last_stage": _in_columns("stages.{}"),
        "patch_vectors": _in_columns("aggregate"),
        "deviation": lambda run, row: run.critic.deviation(run.image(row.input)),
        "semantic_mean": _content,
        "gated_deviation": lambda run, row: (
            run.critic.gate(_content(run, row)) * run.critic.deviation(run.image(row.input))
        ),
        r"semantic_(dist|ref|other)": lambda run, row, start: _stacks(run, start)[0].mean(1),
        r"statistics_(dist|ref|other)": _of(1),
        r"deviation_(dist|ref|other)": lambda run, row, start: run.critic.deviate(_stacks(run, start)[1]),
        "class_logits": lambda run, row: run.critic.classify(_stacks(run, "dist")[1]),
        r"loss_(\w+)": lambda run, row, which: _losses(run)[which],
    },
)
