"""Seconds and device memory of several losses, measured in turns so that they share every disturbance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from benchmarks.memory import Loss

__all__ = ["Timing", "interleaved"]


@dataclass(frozen=True)
class Timing:
    """One loss among those timed together.

    Attributes:
        seconds: Median wall time of one forward and backward.
        ratio: Median over rounds of this time by that of the first loss in the same round.
        cpu_ratio: The same of processor seconds, summed over threads: steadier where other
            programs use the machine, but blind to threads that wait and to a GPU.
        device_peak: Most bytes that a GPU's allocator had given out beyond weights, x and y
            (workspaces of cuDNN included); None on a CPU.
    """

    seconds: float
    ratio: float
    cpu_ratio: float
    device_peak: int | None


def interleaved(losses: Mapping[str, Loss], x: Tensor, y: Tensor, repeat: int) -> dict[str, Timing]:
    """Run every loss once per round, `repeat` rounds after one that warms up.

    Args:
        losses: What to time; ratios are to the first.
        x: Judged images; a leaf.
        y: References.
        repeat: Rounds that count.
    """
    x = x.detach().requires_grad_()
    rounds: list[dict[str, _Run]] = []
    for turn in range(repeat + 1):
        names = list(losses)[:: 1 if turn % 2 else -1]  # whoever follows a hot loop, not always the same
        runs = {name: _once(losses[name], x, y) for name in names}
        if turn:
            rounds.append(runs)
    first = next(iter(losses))

    def ratio(name: str, clock: Literal["seconds", "cpu"]) -> float:
        return statistics.median(getattr(r[name], clock) / getattr(r[first], clock) for r in rounds)

    return {
        name: Timing(
            statistics.median(r[name].seconds for r in rounds),
            ratio(name, "seconds"),
            ratio(name, "cpu"),
            rounds[-1][name].peak if x.is_cuda else None,
        )
        for name in losses
    }


class _Run(NamedTuple):
    seconds: float
    cpu: float
    peak: int


def _once(loss: Loss, x: Tensor, y: Tensor) -> _Run:
    x.grad = None
    before = 0
    if x.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter(), time.process_time()
    loss(x, y).backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return _Run(seconds, cpu, torch.cuda.max_memory_allocated() - before if x.is_cuda else 0)
