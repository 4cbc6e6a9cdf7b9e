"""What a step of a joint critic takes: all rungs of its ladder at once, or rung by rung and computed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from benchmarks.cases import images
from benchmarks.flops import operations
from benchmarks.lines import lines
from benchmarks.memory import MIB, LiveStorage
from benchmarks.timing import clocked
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.joint.options import JointOptions
from perceptloss.loss.terms import TermOptions

__all__ = ["CRITICS", "WAYS", "JointRow", "measure", "render"]

CRITICS = ("patch", "mini-nr", "lpips-vgg")
WAYS: Mapping[str, JointOptions] = {
    "plain": {},
    "checkpoint": {"checkpoint": True},
    "plain, with penalty": {"penalty": 1e-4, "penalty_every": 1},
    "checkpoint, with penalty": {"penalty": 1e-4, "penalty_every": 1, "checkpoint": True},
}


@dataclass(frozen=True)
class JointRow:
    """One way of one critic to learn; random weights, all of which learn.

    Attributes:
        critic: Name.
        way: One of `WAYS`.
        peak: Most bytes that were alive at a time, beyond weights, images and what its AdamW keeps; counted.
        operations: Of convolutions and products of matrices.
        seconds: Median of the rounds.
        ratio: Median of the seconds by those of the plain step of the same round.
    """

    critic: str
    way: str
    peak: int
    operations: int
    seconds: float
    ratio: float


def measure(names: Sequence[str], size: tuple[int, int, int], device: torch.device, repeat: int) -> Iterator[JointRow]:
    """Steps of critics on one batch, N x H x W, all ways of one critic in turns."""
    x, y = images(size, device)
    for name in names:
        losses = {}
        for way, how in WAYS.items():
            options: JointOptions = {**how, "replay": 0.0}
            term: TermOptions = {"critic": name, "weights": None, "weight": 1.0, "joint": options}
            losses[way] = CriticLoss([term], share_every=0).to(device)
            losses[way].learn(x, y, step=0)
        steps = {way: partial(loss.learn, x, y, step=1) for way, loss in losses.items()}
        rounds = [{way: clocked(step, device).seconds for way, step in steps.items()} for _ in range(repeat)]
        for way, step in steps.items():
            with LiveStorage() as storages:
                step()
            seconds = [r[way] for r in rounds]
            plain = [r[next(iter(WAYS))] for r in rounds]
            ratio = median(s / p for s, p in zip(seconds, plain, strict=True))
            yield JointRow(name, way, storages.peak, operations(step), median(seconds), ratio)


def render(rows: Iterable[JointRow]) -> Iterator[str]:
    """Lines of a table, one as soon as its row is there."""
    cells = (
        [
            row.critic,
            row.way,
            f"{row.peak / MIB:.1f}",
            f"{row.operations / 1e9:.1f}",
            f"{row.seconds:.3f}",
            f"{row.ratio:.2f}",
        ]
        for row in rows
    )
    yield from lines(["learns", "step", "peak MiB", "GFLOP", "seconds", "by plain"], cells, (10, 24))
