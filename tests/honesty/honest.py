"""Photographs at full resolution, and patterns as networks print them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

SIDE = 256


@lru_cache
def photograph(name: str, side: int = SIDE) -> Tensor:
    """The middle of a photograph that scikit-image brings, (1, 3, side, side)."""
    from skimage import data

    picture = torch.from_numpy(getattr(data, name)().copy())
    picture = picture[..., None].expand(-1, -1, 3) if picture.ndim == 2 else picture[..., :3]
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side].permute(2, 0, 1)[None].float() / 255


def scrambled(side: int) -> Tensor:
    """White noise in [-1, 1], always the same, (1, 3, side, side)."""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@dataclass(frozen=True)
class Grid:
    """A pattern of two levels over a picture of 256 pixels, and the kind that it is."""

    kind: str
    pattern: Tensor


def _tiled(tile: list[list[float]]) -> Tensor:
    cell = torch.tensor(tile)
    cell = 2 / 255 * cell / cell.abs().max()
    return cell.repeat(SIDE // cell.shape[0], SIDE // cell.shape[1])[None, None]


GRIDS = {
    "columns of 4": Grid("quarter", _tiled([[1.0, 1.0, -1.0, -1.0]])),
    "every fourth row": Grid("half", _tiled([[3.0], [-1.0], [-1.0], [-1.0]])),
    "diagonals of 4": Grid("quarter", _tiled([[1.0, 0, -1, 0], [0, -1, 0, 1], [-1, 0, 1, 0], [0, 1, 0, -1]])),
    "columns of 2": Grid("half", _tiled([[1.0, -1.0]])),
    "rows of 2": Grid("half", _tiled([[1.0], [-1.0]])),
    "checkerboard": Grid("corner", _tiled([[1.0, -1.0], [-1.0, 1.0]])),
}
