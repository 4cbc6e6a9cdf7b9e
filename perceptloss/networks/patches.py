"""Cutting images into the fixed-size patches that some networks judge, always at the same places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange, reduce
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic

__all__ = ["CropCritic", "crops_note", "cut", "per_image", "spread", "strided", "tiles"]


def spread(length: int, side: int) -> list[int]:
    """Fewest starts of patches of `side` that cover `length` pixels, evenly spaced, first and last at the ends."""
    gaps = -(-length // side) - 1
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps > 0 else [0]


def strided(length: int, side: int, step: int) -> list[int]:
    """Starts 0, step, 2 step, ... of patches of `side` that lie inside `length` pixels."""
    return list(range(0, length - side + 1, step))


def tiles(image: Tensor, side: int) -> tuple[list[int], list[int]]:
    """Tops and lefts of patches side by side from the top left; what remains at the ends belongs to none."""
    height, width = image.shape[-2:]
    return strided(height, side, side), strided(width, side, side)


def cut(image: Tensor, tops: Sequence[int], lefts: Sequence[int], side: int) -> Tensor:
    """Patches at every top and left, image by image, row by row: (N * len(tops) * len(lefts), C, side, side).

    A single patch that is the whole image is the image itself, not a copy.
    """
    if len(tops) == len(lefts) == 1 and image.shape[-2:] == (side, side):
        return image
    patches = [image[..., top : top + side, left : left + side] for top in tops for left in lefts]
    return rearrange(torch.stack(patches, 1), "n patches c h w -> (n patches) c h w")


def per_image(values: Tensor, images: int) -> Tensor:
    """Values of patches, (N * k, ...), as (N, k, ...)."""
    return rearrange(values, "(n k) ... -> n k ...", n=images)


class CropCritic(Critic):
    """A critic that fits one size only. Mixed in before `TrunkCritic`, whose `prepare` it implements.

    An image of exactly `side` x `side` is one crop, the published thing. A larger one is cut into the
    fewest evenly spaced crops, and what they say is averaged.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of a crop, in pixels.
    """

    def __init__(self, card: Card, side: int) -> None:
        super().__init__(replace(card, min_size=side))
        self.side = side

    def grid(self, image: Tensor) -> tuple[list[int], list[int]]:
        """Tops and lefts of the crops."""
        height, width = image.shape[-2:]
        return spread(height, self.side), spread(width, self.side)

    def prepare(self, image: Tensor) -> Tensor:
        """Crops, image by image, (N K, C, side, side)."""
        return cut(image, *self.grid(image), self.side)

    def averaged(self, values: Tensor, image: Tensor) -> Tensor:
        """Mean over the crops of each image, (N K,) to (N,)."""
        return reduce(values, "(n k) -> n", "mean", n=len(image))

    def beside(self, maps: Tensor, image: Tensor) -> Tensor:
        """Maps of crops, (N K, h, w), side by side as the crops lie: (N, 1, rows h, columns w)."""
        tops, _ = self.grid(image)
        return rearrange(maps, "(n rows columns) h w -> n 1 (rows h) (columns w)", n=len(image), rows=len(tops))


def crops_note(side: int, averaged: str = "scores", authors: str = "") -> str:
    """What the card of a `CropCritic` says of larger images.

    Args:
        side: Of a crop.
        averaged: What is averaged over the crops.
        authors: What the authors do instead.
    """
    return (
        f"judges {side}x{side} exactly; larger images are cut into the fewest evenly spaced crops, whose {averaged} "
        f"are averaged: give the term crop: {side} in training" + (authors and f"; the authors {authors}")
    )
