"""Rows of results, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perceptloss.output.tables import text

__all__ = ["MIB", "Row", "render", "size_text"]

MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One loss at one size; see `Footprint`, `Flops` and `Timing` for the fields."""

    case: str
    size: tuple[int, int, int]
    label: str
    held: int
    peak: int
    convolutions: int
    flops: int
    seconds: float
    ratio: float
    cpu_ratio: float
    device_peak: int | None


def size_text(size: tuple[int, int, int]) -> str:
    """`4x192x192` for N, H, W."""
    return "x".join(map(str, size))


def render(rows: Sequence[Row]) -> str:
    """The rows of one case and size; the ratio is to the first row."""
    is_cuda = rows[0].device_peak is not None
    head = ["loss", "held MiB", "peak MiB", "GFLOP", "of first", "ms" if is_cuda else "s", "of first"]
    head.append("allocator MiB" if is_cuda else "CPU of first")
    body = []
    for row in rows:
        cells = [row.label, f"{row.held / MIB:.1f}", f"{row.peak / MIB:.1f}", f"{row.flops / 1e9:.1f}"]
        cells.append(f"{row.flops / rows[0].flops:.2f}")
        cells.append(f"{row.seconds * 1e3:.2f}" if is_cuda else f"{row.seconds:.3f}")
        cells.append(f"{row.ratio:.2f}")
        cells.append(f"{row.cpu_ratio:.2f}" if row.device_peak is None else f"{row.device_peak / MIB:.1f}")
        body.append(cells)
    title = f"{rows[0].case} at {size_text(rows[0].size)}"
    return f"{title}\n{text([head, *body], 'lr', rule=True)}"
