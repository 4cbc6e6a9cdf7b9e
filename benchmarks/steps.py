"""A training step at the sizes of restorers, in every precision, beside other packages and what they publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from benchmarks.cases import images, ours, size_text
from benchmarks.lines import lines
from benchmarks.memory import MIB, Loss, footprint
from benchmarks.rivals import RIVALS, add, installed
from benchmarks.timing import interleaved
from perceptloss import create_critic, get_card

__all__ = ["CRITICS", "PUBLISHED", "SIZES", "StepRow", "measure", "render", "tf32"]

Size = tuple[int, int, int]
SIZES: Final[tuple[Size, ...]] = ((4, 256, 256), (1, 1080, 1920))
CRITICS: Final = ("lpips-alex", "ms-ssim", "ssim-full")
PACKAGES: Final = ("frame_analytics", "fused_ssim", "fussim", "lpips")
PUBLISHED: Final[Mapping[tuple[str, Size], Mapping[str, tuple[float, float]]]] = {
    ("lpips-alex", (1, 1080, 1920)): {"frame_analytics": (17.9, 445), "lpips": (25.0, 616)},
    ("ms-ssim", (8, 1080, 1920)): {"frame_analytics": (12.7, 942), "pytorch_msssim": (81.3, 3763)},
}
"""Milliseconds and peak MiB on an RTX 3090, from the description of frame-analytics 0.7.0, by package."""
BACKEND = "inductor"


@dataclass(frozen=True)
class StepRow:
    """A forward and backward of a critic.

    Attributes:
        critic: Our name of it.
        size: N x H x W.
        by: Package.
        way: Precision, `compiled`, or `published`.
        seconds: Median; of its publisher, if published.
        ratio: Of its seconds by ours in fp32, taken in turns; None if published.
        held: Bytes between forward and backward; None if published.
        peak: Most bytes: of the allocator on a GPU, else counted.
        problem: Why there are no figures, if there are none.
    """

    critic: str
    size: Size
    by: str
    way: str
    seconds: float = 0.0
    ratio: float | None = None
    held: int | None = None
    peak: int = 0
    problem: str = ""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU may round factors of convolutions and products to 10 bits."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def _ways(name: str, device: torch.device) -> dict[str, Loss]:
    """Ours, in the ways that there are here; the fused gradient is made in the forward, hence in its precision."""
    plain = ours((name,), device)
    found: dict[str, Loss] = {"fp32": plain}
    if device.type == "cuda":

        def rounded(x: Tensor, y: Tensor) -> Tensor:
            with tf32(True):
                return plain(x, y)

        found["TF32"] = rounded
    if get_card(name).low_precision:
        found["bf16"] = ours((name,), device, precision="bf16")
    critic = create_critic(name, weights=None).to(device)
    score = torch.compile(critic.score, backend=BACKEND, dynamic=False)
    sign = 1 if critic.card.better == "lower" else -1
    found["compiled"] = lambda x, y: sign * score(x, y).mean()
    return found


def measure(
    names: Sequence[str], sizes: Sequence[Size], device: torch.device, repeat: int, *, published: bool = True
) -> Iterator[StepRow]:
    """Rows of every critic at every size, ours first.

    Args:
        names: Critics, of `RIVALS`.
        sizes: N x H x W.
        device: Where to run.
        repeat: Timed rounds after one that warms up.
        published: Whether sizes of published figures are added, and the figures.
    """
    cases = [(name, size) for size in sizes for name in names]
    if published:
        cases += [case for case in PUBLISHED if case[0] in names and case not in cases]
    for name, size in cases:
        with tf32(False):
            yield from _case(name, size, device, repeat)
        for by, (milliseconds, mib) in PUBLISHED.get((name, size), {}).items() if published else ():
            yield StepRow(name, size, by, "published", milliseconds / 1e3, peak=int(mib * MIB))


def _case(name: str, size: Size, device: torch.device, repeat: int) -> Iterator[StepRow]:
    x, y = images(size, device)
    losses: dict[str, Loss] = {}
    problems: dict[str, str] = {}
    ways = _ways(name, device)
    for way in ways:
        add(way, lambda _, way=way: ways[way], device, x, y, losses, problems)  # type: ignore[misc]
    here = installed()
    for package in PACKAGES:
        if package in RIVALS[name] and package in here:
            add(package, RIVALS[name][package], device, x, y, losses, problems)
    times = interleaved(losses, x, y, repeat)
    for label, loss in losses.items():
        memory, timing = footprint(loss, x, y), times[label]
        peak = memory.peak if timing.device_peak is None else timing.device_peak
        by, way = ("perceptloss", label) if label in ways else (label, "as it is")
        yield StepRow(name, size, by, way, timing.seconds, timing.ratio, memory.held, peak)
    for label, problem in problems.items():
        by, way = ("perceptloss", label) if label in ways else (label, "as it is")
        yield StepRow(name, size, by, way, problem=problem)


def render(rows: Iterable[StepRow]) -> Iterator[str]:
    """Lines of a table, one as soon as its row is there."""

    def cells(row: StepRow) -> list[str]:
        name = [row.critic, size_text(row.size), row.by, row.way if row.way != "published" else "RTX 3090"]
        if row.problem:
            return [*name, "-", "-", "-", row.problem]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        held = "-" if row.held is None else f"{row.held / MIB:.1f}"
        return [*name, f"{row.seconds * 1e3:.2f}", ratio, held, f"{row.peak / MIB:.1f}"]

    head = ["critic", "size", "package", "way", "ms", "of fp32", "held MiB", "peak MiB"]
    yield from lines(head, map(cells, rows), (10, 11, 15, 8))
