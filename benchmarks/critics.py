"""What each registered critic costs for one pair of images: a row per critic, with seeded random weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.cases import images, ours
from benchmarks.flops import count, count_forward
from benchmarks.lines import lines
from benchmarks.memory import MIB, Loss, footprint
from benchmarks.timing import clocked
from perceptloss import Critic, create_critic, get_card
from perceptloss.card import Card

__all__ = ["CriticRow", "measure", "render", "side_for"]

_SIDE = 256


@dataclass(frozen=True)
class CriticRow:
    """Cost of one critic for one pair of square images, as a loss in mode `fused` unless said otherwise.

    Attributes:
        parameters: Of the whole critic, trunk included.
        forward: Operations of one score, both images.
        step: Operations of one forward and backward of the loss.
        held: Bytes held between forward and backward; `held_plain` in mode `autograd`.
        peak: Most bytes alive at once; `peak_lean` with `lean=True`.
        score_seconds: Median time of a score without a graph: of the processor, summed over threads, which other
            programs do not lengthen; of the wall on a GPU.
        step_seconds: Likewise of forward and backward of the loss.
    """

    name: str
    side: int
    parameters: int
    forward: int
    step: int
    held: int
    peak: int
    held_plain: int
    peak_lean: int
    score_seconds: float
    step_seconds: float


def side_for(card: Card, wanted: int = _SIDE) -> int:
    """The smallest legal side that is not below `wanted`."""
    return -(-max(card.min_size, wanted) // card.multiple_of) * card.multiple_of


def measure(names: Sequence[str], device: torch.device, repeat: int, side: int = _SIDE) -> Iterator[CriticRow]:
    """Cost of each critic, one after the other.

    Args:
        names: Critics.
        device: Where to run.
        repeat: Timed runs after one that warms up; 0 leaves the times out (NaN).
        side: Wanted side of the images.
    """
    for name in names:
        critic = create_critic(name, weights=None).to(device)
        size = side_for(critic.card, side)
        x, y = images((1, size, size), device, channels=critic.card.channels)
        loss, plain, lean = (
            ours((name,), device, **options) for options in ({}, {"grad": "autograd"}, {"micro_batch": 1, "lean": True})
        )
        held, step = footprint(loss, x, y), count(loss, x, y).total
        leaf = x.clone().requires_grad_()
        yield CriticRow(
            name=name,
            side=size,
            parameters=sum(p.numel() for p in critic.parameters()),
            forward=count_forward(partial(_score, critic), x, y),
            step=step,
            held=held.held,
            peak=held.peak,
            held_plain=footprint(plain, x, y).held,
            peak_lean=footprint(lean, x, y).peak,
            score_seconds=_median(partial(_score, critic, x, y), device, repeat),
            step_seconds=_median(partial(_step, loss, leaf, y), device, repeat),
        )


def _score(critic: Critic, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return critic(x, y if critic.card.needs_reference else None)


def _step(loss: Loss, x: Tensor, y: Tensor) -> None:
    loss(x, y).backward()


def _median(run: Callable[[], object], device: torch.device, repeat: int) -> float:
    runs = [clocked(run, device) for _ in range(repeat + 1 if repeat else 0)]
    seconds = [run.seconds if device.type == "cuda" else run.cpu for run in runs[1:]]
    return statistics.median(seconds) if repeat else float("nan")


def render(rows: Iterable[CriticRow]) -> Iterator[str]:
    """Lines of text, one as soon as its row is there."""
    head = ["critic", "side", "M parameters", "GFLOP score", "GFLOP step", "held MiB", "peak MiB"]
    head += ["held MiB, autograd", "peak MiB, lean", "ms score", "ms step"]

    def cells_of(row: CriticRow) -> list[str]:
        cells = [row.name + ("" if get_card(row.name).needs_reference else " (nr)"), str(row.side)]
        cells += [f"{row.parameters / 1e6:.2f}", f"{row.forward / 1e9:.2f}", f"{row.step / 1e9:.2f}"]
        cells += [f"{size / MIB:.1f}" for size in (row.held, row.peak, row.held_plain, row.peak_lean)]
        cells += [f"{seconds * 1e3:.0f}" for seconds in (row.score_seconds, row.step_seconds)]
        return cells

    yield from lines(head, map(cells_of, rows), (22,))
