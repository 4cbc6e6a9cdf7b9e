"""Things in the wrong place: jitter, moved patches, lost blocks, and small moves that people hardly notice."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.core import KADID, PIPAL, TID2013, degradation
from perceptloss.teach.degradations.fields import Blocks, smooth_field
from perceptloss.teach.degradations.operations import direction, grid, normal, rotate, shift, sign, warp

__all__ = []

_BLOCK = 16


@degradation("jitter", "spatial", (0.2, 0.4, 0.75, 1.4, 2.6), KADID)
def _jitter(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of each pixel's displacement in pixels."""
    across, down = grid(x)
    move = std * normal(x, generator, 2)
    return warp(x, across + move[:, 0], down + move[:, 1])


def _blocks(x: Tensor, generator: torch.Generator) -> tuple[Blocks, int]:
    size = min(_BLOCK, min(x.shape[2:]) // 4)
    return Blocks.draw(x, generator, size), size


@degradation("moved-patches", "spatial", (0.03, 0.08, 0.17, 0.32, 0.55), TID2013)
def _patches(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of 16-pixel patches filled from up to 16 pixels away (non-eccentricity)."""
    blocks, size = _blocks(x, generator)
    priority, angle, length = blocks.random(generator, 3).split(1, 1)
    angle, length = 2 * math.pi * angle, size * (0.4 + 0.6 * length)
    across, down = (angle.cos() * length).round().long(), (angle.sin() * length).round().long()
    return x.lerp(blocks.moved(x, across, down), blocks.hit(priority, share))


def _runs(blocks: Blocks, generator: torch.Generator) -> Tensor:
    """Priorities alike along a row, as lost packets hit blocks in runs, (N, 1, rows, columns)."""
    draw = blocks.random(generator)
    return F.avg_pool2d(F.pad(draw, (2, 2, 0, 0), mode="replicate"), (1, 5), stride=1)


@degradation("block-errors", "spatial", (0.015, 0.04, 0.09, 0.18, 0.32), "LIVE (fast fading), TIP 2006")
def _lost_blocks(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of 16-pixel blocks lost in runs and concealed by their neighbours."""
    blocks, size = _blocks(x, generator)
    hit = blocks.hit(_runs(blocks, generator), share)
    smeared = F.avg_pool2d(F.pad(x, (size, size, 0, 0), mode="reflect"), (1, 2 * size + 1), stride=1)
    across, offset = (2 * blocks.random(generator, 4) - 1).split((1, 3), 1)
    wrong = blocks.moved(smeared, (2 * size * across).long(), torch.zeros_like(across).long())
    return x.lerp(wrong + blocks.spread(0.12 * offset), hit)


@degradation("micro-shift", "geometry", (0.25, 0.6, 1.0, 1.6, 2.5), PIPAL)
def _shift(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Shift in pixels."""
    return shift(x, pixels * direction(x, generator))


@degradation("micro-rotation", "geometry", (0.1, 0.25, 0.5, 0.9, 1.5), PIPAL)
def _rotation(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Angle about the middle in degrees."""
    angles = degrees * sign(x, generator).flatten()
    return rotate(x, angles, mode="bicubic", padding_mode="border", align_corners=True)


@degradation("micro-warp", "geometry", (0.3, 0.7, 1.2, 2.0, 3.0), PIPAL)
def _smooth_warp(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Largest displacement of a smooth field in pixels."""
    across, down = grid(x)
    move = pixels * (2 * smooth_field(x, generator, 4, channels=2) - 1)
    return warp(x, across + move[:, 0], down + move[:, 1])
