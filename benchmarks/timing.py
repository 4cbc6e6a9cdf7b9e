"""Seconds and device memory of several losses, measured in turns so that they share every disturbance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.memory import Loss

__all__ = ["Timing", "clocked", "convolution_rate", "interleaved"]


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
        x: Judged images.
        y: References.
        repeat: Rounds that count.
    """
    x = x.detach().requires_grad_()

    def step(loss: Loss) -> None:
        x.grad = None
        loss(x, y).backward()

    rounds: list[dict[str, Run]] = []
    for turn in range(repeat + 1):
        names = list(losses)[:: 1 if turn % 2 else -1]  # whoever follows a hot loop, not always the same
        rounds.append({name: clocked(partial(step, losses[name]), x.device) for name in names})
    first, rounds = next(iter(losses)), rounds[1:]
    return {
        name: Timing(
            seconds=statistics.median(r[name].seconds for r in rounds),
            ratio=statistics.median(r[name].seconds / r[first].seconds for r in rounds),
            cpu_ratio=statistics.median(r[name].cpu / r[first].cpu for r in rounds),
            device_peak=rounds[-1][name].peak if x.is_cuda else None,
        )
        for name in losses
    }


def convolution_rate(device: torch.device, repeat: int = 5) -> float:
    """Operations a second of a 3x3 convolution of 64 channels, 4x64x192x192: what the processor gives at best.

    A multiply-add counts as two. Seconds of a loss times this, by its operations, do not depend on how fast the
    machine convolves, whose special units some machines have and others lack.
    """
    x = torch.rand(4, 64, 192, 192, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(64, 64, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    run = partial(torch.nn.functional.conv2d, x, weight, padding=1)
    with torch.no_grad():
        seconds = [clocked(run, device).seconds for _ in range(repeat + 1)][1:]
    return 2 * 9 * 64 * 64 * x[:, 0].numel() / statistics.median(seconds)


class Run(NamedTuple):
    """Wall seconds, processor seconds, and bytes that a GPU's allocator gave out beyond those before."""

    seconds: float
    cpu: float
    peak: int


def clocked(run: Callable[[], object], device: torch.device) -> Run:
    """Call once and wait for the device."""
    is_cuda, before = device.type == "cuda", 0
    if is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter(), time.process_time()
    run()
    if is_cuda:
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return Run(seconds, cpu, torch.cuda.max_memory_allocated() - before if is_cuda else 0)
