"""Cutting images into the fixed-size patches that some networks judge, always at the same places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cut", "per_image", "spread", "strided"]


def spread(length: int, side: int) -> list[int]:
    """Fewest starts of patches of `side` that cover `length` pixels, evenly spaced, first and last at the ends."""
    gaps = -(-length // side) - 1
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps > 0 else [0]


def strided(length: int, side: int, step: int) -> list[int]:
    """Starts 0, step, 2 step, ... of patches of `side` that lie inside `length` pixels."""
    return list(range(0, length - side + 1, step))


def cut(image: Tensor, tops: Sequence[int], lefts: Sequence[int], side: int) -> Tensor:
    """Patches at every top and left, image by image, row by row: (N * len(tops) * len(lefts), C, side, side).

    A single patch that is the whole image is the image itself, not a copy.
    """
    if len(tops) == len(lefts) == 1 and image.shape[-2:] == (side, side):
        return image
    patches = [image[..., top : top + side, left : left + side] for top in tops for left in lefts]
    return torch.stack(patches, 1).flatten(0, 1)


def per_image(values: Tensor, images: int) -> Tensor:
    """Values of patches, (N * k, ...), as (N, k, ...)."""
    return values.unflatten(0, (images, -1))
