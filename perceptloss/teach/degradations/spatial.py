"""Things in the wrong place: jitter, moved patches, lost blocks, and small moves that people hardly notice."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.core import Degradation
from perceptloss.teach.degradations.fields import Blocks, smooth_field
from perceptloss.teach.degradations.operations import direction, grid, normal, sign, warp

__all__ = ["DEGRADATIONS"]

_BLOCK = 16


def _jitter(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    across, down = grid(x)
    move = std * normal(x, generator, 2)
    return warp(x, across + move[:, 0], down + move[:, 1])


def _blocks(x: Tensor, generator: torch.Generator) -> tuple[Blocks, int]:
    size = min(_BLOCK, min(x.shape[2:]) // 4)
    return Blocks.draw(x, generator, size), size


def _patches(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    blocks, size = _blocks(x, generator)
    priority, angle, length = blocks.random(generator, 3).split(1, 1)
    angle, length = 2 * math.pi * angle, size * (0.4 + 0.6 * length)
    across, down = (angle.cos() * length).round().long(), (angle.sin() * length).round().long()
    return x.lerp(blocks.moved(x, across, down), blocks.hit(priority, share))


def _runs(blocks: Blocks, generator: torch.Generator) -> Tensor:
    """Priorities alike along a row, as lost packets hit blocks in runs, (N, 1, rows, columns)."""
    draw = blocks.random(generator)
    return F.avg_pool2d(F.pad(draw, (2, 2, 0, 0), mode="replicate"), (1, 5), stride=1)


def _lost_blocks(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    blocks, size = _blocks(x, generator)
    hit = blocks.hit(_runs(blocks, generator), share)
    smeared = F.avg_pool2d(F.pad(x, (size, size, 0, 0), mode="reflect"), (1, 2 * size + 1), stride=1)
    across, offset = (2 * blocks.random(generator, 4) - 1).split((1, 3), 1)
    wrong = blocks.moved(smeared, (2 * size * across).long(), torch.zeros_like(across).long())
    return x.lerp(wrong + blocks.spread(0.12 * offset), hit)


def _shift(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    across, down = grid(x)
    move = pixels * direction(x, generator)[:, :, None, None]
    height, width = x.shape[2:]
    return warp(x, (across + move[:, 0]).expand(-1, height, width), (down + move[:, 1]).expand(-1, height, width))


def _rotation(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    across, down = grid(x)
    across, down = across - across.mean(), down - down.mean()
    angle = math.radians(degrees) * sign(x, generator)[:, 0]
    cosine, sine = angle.cos(), angle.sin()
    middle = ((x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2)
    return warp(x, middle[0] + cosine * across - sine * down, middle[1] + sine * across + cosine * down)


def _smooth_warp(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    across, down = grid(x)
    move = pixels * (2 * smooth_field(x, generator, 4, channels=2) - 1)
    return warp(x, across + move[:, 0], down + move[:, 1])


_KADID = "KADID-10k, QoMEX 2019"
_PIPAL = "PIPAL, ECCV 2020"

DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation(
        "jitter",
        "spatial",
        "standard deviation of each pixel's displacement in pixels",
        (0.2, 0.4, 0.75, 1.4, 2.6),
        _jitter,
        source=_KADID,
    ),
    Degradation(
        "moved-patches",
        "spatial",
        "share of 16-pixel patches filled from up to 16 pixels away (non-eccentricity)",
        (0.03, 0.08, 0.17, 0.32, 0.55),
        _patches,
        source="TID2013, Signal Processing: Image Communication 2015",
    ),
    Degradation(
        "block-errors",
        "spatial",
        "share of 16-pixel blocks lost in runs and concealed by their neighbours",
        (0.015, 0.04, 0.09, 0.18, 0.32),
        _lost_blocks,
        source="LIVE (fast fading), TIP 2006",
    ),
    Degradation("micro-shift", "geometry", "shift in pixels", (0.25, 0.6, 1.0, 1.6, 2.5), _shift, source=_PIPAL),
    Degradation(
        "micro-rotation",
        "geometry",
        "angle about the middle in degrees",
        (0.1, 0.25, 0.5, 0.9, 1.5),
        _rotation,
        source=_PIPAL,
    ),
    Degradation(
        "micro-warp",
        "geometry",
        "largest displacement of a smooth field in pixels",
        (0.3, 0.7, 1.2, 2.0, 3.0),
        _smooth_warp,
        source=_PIPAL,
    ),
)
