"""Where large images are cut, and sums over tiles that give the score of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from types import EllipsisType

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Area, Critic
from perceptloss.errors import InputError

__all__ = ["Place", "areas", "edges", "parts", "side_for", "smallest_tile", "tally"]

Place = tuple[EllipsisType, slice, slice]


def edges(length: int, side: int, multiple: int = 1) -> list[int]:
    """Cut a length evenly into the fewest parts of at most `side`.

    Args:
        length: Pixels.
        side: Longest part in pixels; where it is no multiple itself, parts round up to one.
        multiple: All cuts but the end are multiples of this.

    Returns:
        Ascending positions, from 0 to `length`; parts differ by at most one multiple, and the last by what is left.
    """
    units = length // multiple
    parts = math.ceil(units / max(1, side // multiple))
    return [multiple * (units * part // parts) for part in range(parts)] + [length]


def side_for(card: Card, side: int | None) -> int | None:
    """Longest side of what a critic is given at once where `side` is asked for; None: it is given whole images."""
    return None if card.tiling == "inside" else side


def smallest_tile(card: Card) -> int:
    """Least side of the tiles that a critic can be given."""
    if card.tiling == "exact":
        return 2 * card.halo + card.stride - 1 + max(card.stride, card.min_size)
    return 2 * card.min_size


def areas(card: Card, size: tuple[int, int], side: int) -> list[tuple[Place, Area]]:
    """Tiles of an image for a critic whose card says `exact`.

    Args:
        card: Its halo and its stride.
        size: Height and width of the image.
        side: Longest side of a tile, its halo included.

    Returns:
        What a tile sees, and the part of it that is its own.

    Raises:
        InputError: if the halo leaves too little of a tile.
    """
    least = smallest_tile(card)
    if max(size) > side < least:
        raise InputError(
            f"critic {card.name!r} has a halo of {card.halo} and needs tiles of at least {least}, got {side}."
        )
    rows, columns = (list(_tiles(length, side, card)) for length in size)
    return [
        ((..., down, across), Area(own_down, own_across)) for down, own_down in rows for across, own_across in columns
    ]


def _tiles(length: int, side: int, card: Card) -> Iterator[tuple[slice, tuple[int, int | None]]]:
    """What every tile sees of a length, and the part of that which is its own."""
    if length <= side:
        yield slice(0, length), (0, None)
        return
    for start, end in pairwise(edges(length, side - 2 * card.halo - card.stride + 1, card.stride)):
        first, last = max(0, start - card.halo), min(length, end + card.halo)
        yield slice(first, last), (start - first, None if end == length else end - first)


def parts(height: int, width: int, side: int, multiple: int = 1, overlap: int = 0) -> list[tuple[int, Place]]:
    """Tiles as in `tiled`: pixels between the cuts, and the place that is looked at for them."""
    rows, columns = (_spans(length, side, multiple, overlap) for length in (height, width))
    return [(tall * wide, (..., row, column)) for tall, row in rows for wide, column in columns]


def _spans(length: int, side: int, multiple: int, overlap: int) -> list[tuple[int, slice]]:
    """Pixels between the cuts, and the slice that is scored for them, of every part of a length."""
    if length <= side:
        return [(length, slice(0, length))]
    cuts = pairwise(edges(length, side - overlap, multiple))
    margin = overlap // 2
    return [(end - start, slice(max(0, start - margin), min(length, end + margin))) for start, end in cuts]


def tally(critic: Critic, x: Tensor, y: Tensor | None, side: int) -> Tensor:
    """Sums over the tiles of images, (N, K), float64, on the critic's device, which sees a tile at a time."""
    tensor = next((t for t in (*critic.parameters(), *critic.buffers())), None)
    device = x.device if tensor is None else tensor.device
    total: Tensor | float = 0.0
    for place, area in areas(critic.card, (x.shape[-2], x.shape[-1]), side):
        tile = critic.admit(x[place].to(device), None if y is None else y[place].to(device))
        with torch.autocast(device.type, enabled=False):
            total = total + critic.tally(*tile, area).double()
    assert isinstance(total, Tensor)
    return total
