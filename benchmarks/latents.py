"""What a loss of latents holds: all of them or a crop, with the decoder's graph kept or made again in the backward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import images
from benchmarks.flops import count
from benchmarks.lines import lines
from benchmarks.memory import MIB, Footprint, footprint
from perceptloss.loss.latents import LatentLoss

__all__ = ["WAYS", "LatentRow", "decoder", "measure", "render"]

_SCALE = 8
WAYS: Mapping[str, Mapping[str, Any]] = {
    "all, graph kept": {"crop": None, "checkpointed": False},
    "all": {"crop": None},
    "a crop of half the side": {"crop": 2, "margin": 4},
    "a crop of a quarter": {"crop": 4, "margin": 4},
}


@dataclass(frozen=True)
class LatentRow:
    """One way at one size, N x H x W of decoded images."""

    size: tuple[int, int, int]
    label: str
    memory: Footprint
    operations: int


def decoder(width: int = 32) -> nn.Module:
    """A decoder of the plan of diffusion's auto-encoders: 4 channels, three doublings; seeded random weights."""
    widths = (4 * width, 4 * width, 2 * width, width)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(4, widths[0], 3, padding=1)]
        for i, (before, after) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            layers += [*([nn.Upsample(scale_factor=2)] if i else []), nn.Conv2d(before, after, 3, padding=1)]
            layers += [nn.GroupNorm(8, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1)]
        layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers).requires_grad_(False)


def measure(size: tuple[int, int, int], device: torch.device) -> Iterator[LatentRow]:
    """All ways at one size, a multiple of 32."""
    n, height, width = size
    decode = decoder().to(device)
    z = torch.randn(n, 4, height // _SCALE, width // _SCALE, generator=torch.Generator().manual_seed(0)).to(device)
    y = 2 * images(size, device)[1] - 1
    for label, options in WAYS.items():
        share = options["crop"]
        crop = None if share is None else min(height, width) // _SCALE // share
        loss = LatentLoss({"gmsd": 1.0, "charbonnier": 1.0}, decode, **{**options, "crop": crop, "share_every": 0})

        def at_one_place(x: Tensor, y: Tensor, loss: LatentLoss = loss) -> Tensor:
            return loss(x, y, step=0)

        yield LatentRow(size, label, footprint(at_one_place, z, y), count(at_one_place, z, y).total)


def render(rows: Iterable[LatentRow]) -> Iterator[str]:
    """Lines of a table, one as soon as its row is there."""
    cells = (
        [
            row.label,
            f"{row.memory.held / MIB:.1f}",
            f"{row.memory.peak / MIB:.1f}",
            f"{row.operations / 1e9:.1f}",
        ]
        for row in rows
    )
    yield from lines(["latents judged", "held MiB", "peak MiB", "GFLOP"], cells, (28,))
