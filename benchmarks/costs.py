"""What each loss of a case costs at one size: rows, and their text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.cases import CASES, images, size_text
from benchmarks.flops import Flops, count
from benchmarks.memory import MIB, Footprint, footprint
from benchmarks.timing import Timing, interleaved
from perceptloss.output.tables import text

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


def render(rows: Sequence[Row]) -> str:
    """The rows of one case and size; the ratio is to the first row."""
    is_cuda = rows[0].timing.device_peak is not None
    head = ["loss", "held MiB", "peak MiB", "GFLOP", "of first", "ms" if is_cuda else "s", "of first"]
    head.append("allocator MiB" if is_cuda else "CPU of first")
    body = []
    for row in rows:
        memory, flops, timing = row.memory, row.flops.total, row.timing
        cells = [row.label, f"{memory.held / MIB:.1f}", f"{memory.peak / MIB:.1f}", f"{flops / 1e9:.1f}"]
        cells.append(f"{flops / rows[0].flops.total:.2f}")
        cells.append(f"{timing.seconds * 1e3:.2f}" if is_cuda else f"{timing.seconds:.3f}")
        cells.append(f"{timing.ratio:.2f}")
        cells.append(f"{timing.cpu_ratio:.2f}" if timing.device_peak is None else f"{timing.device_peak / MIB:.1f}")
        body.append(cells)
    return f"{rows[0].case} at {size_text(rows[0].size)}\n{text([head, *body], 'lr', rule=True)}"
