"""Scores of large images from the scores of their tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["edges", "tiled"]

Score = Callable[[Tensor, Tensor | None], Tensor]


def edges(length: int, side: int, multiple: int = 1) -> list[int]:
    """Cut a length evenly into the fewest parts of at most `side`.

    Args:
        length: Pixels, a multiple of `multiple`.
        side: Longest part in pixels; where it is no multiple itself, parts round up to one.
        multiple: All cuts are multiples of this.

    Returns:
        Ascending positions, from 0 to `length`; parts differ by at most one multiple.
    """
    units = length // multiple
    parts = math.ceil(units / max(1, side // multiple))
    return [multiple * (units * part // parts) for part in range(parts)] + [length]


def tiled(score: Score, x: Tensor, y: Tensor | None, side: int | None, multiple: int = 1) -> Tensor:
    """Mean score of tiles, weighted by area; the plain score where an image is one tile.

    Args:
        score: Takes images (and references) of one size and gives (N,).
        x: Judged images, (N, C, H, W).
        y: References, or None.
        side: Longest side of a tile in pixels; None never cuts.
        multiple: Sides of tiles are multiples of this.

    Returns:
        One score per image, (N,); float64 on the CPU if it was cut.
    """
    height, width = x.shape[-2:]
    if side is None or max(height, width) <= side:
        return score(x, y)
    total = torch.zeros(len(x), dtype=torch.float64)
    rows, columns = edges(height, side, multiple), edges(width, side, multiple)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            part = (..., slice(top, bottom), slice(left, right))
            area = (bottom - top) * (right - left)
            total += area * score(x[part], None if y is None else y[part]).cpu().double()
    return total / (height * width)
