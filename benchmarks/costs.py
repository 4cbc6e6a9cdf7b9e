"""What each loss of a case costs at one size: rows, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.cases import CASES, images
from benchmarks.flops import Flops, count
from benchmarks.lines import lines
from benchmarks.memory import MIB, Footprint, footprint
from benchmarks.timing import Timing, interleaved

__all__ = ["Row", "measure", "render"]


@dataclass(frozen=True)
class Row:
    """One loss at one size, N x H x W."""

    case: str
    size: tuple[int, int, int]
    label: str
    memory: Footprint
    flops: Flops
    timing: Timing


def measure(name: str, size: tuple[int, int, int], device: torch.device, repeat: int) -> Iterator[Row]:
    """All losses of a case at one size."""
    losses = CASES[name].losses(device)
    x, y = images(size, device)
    times = interleaved(losses, x, y, repeat)
    for label, loss in losses.items():
        yield Row(name, size, label, footprint(loss, x, y), count(loss, x, y), times[label])


def render(rows: Iterable[Row], rate: float, *, is_cuda: bool = False) -> Iterator[str]:
    """Lines for one case and size, one as soon as its row is there; ratios are to the first row.

    Args:
        rows: Of one case and size.
        rate: Operations a second of plain convolutions on this machine: see `convolution_rate`.
        is_cuda: Whether milliseconds and the allocator's peak are shown.
    """
    head = [
        "loss",
        "held MiB",
        "peak MiB",
        "GFLOP",
        "of first",
        "ms" if is_cuda else "s",
        "of first",
        "of convolutions",
    ]
    head.append("allocator MiB" if is_cuda else "CPU of first")
    first: Row | None = None

    def cells_of(row: Row) -> list[str]:
        nonlocal first
        first = first or row
        memory, flops, timing = row.memory, row.flops.total, row.timing
        cells = [row.label, f"{memory.held / MIB:.1f}", f"{memory.peak / MIB:.1f}", f"{flops / 1e9:.1f}"]
        cells.append(f"{flops / first.flops.total:.2f}")
        cells.append(f"{timing.seconds * 1e3:.2f}" if is_cuda else f"{timing.seconds:.3f}")
        cells += [f"{timing.ratio:.2f}", f"{timing.seconds * rate / flops:.2f}" if flops else ""]
        cells.append(f"{timing.cpu_ratio:.2f}" if timing.device_peak is None else f"{timing.device_peak / MIB:.1f}")
        return cells

    yield from lines(head, map(cells_of, rows), (28,))
