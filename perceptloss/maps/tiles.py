"""Scores of large images from the scores of their tiles, in the memory of one tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import InputError
from perceptloss.inputs import check_channels
from perceptloss.networks.tiles import parts, side_for, smallest_tile, tally

__all__ = ["score_in_tiles", "score_tiled", "tiled"]

Score = Callable[[Tensor, Tensor | None], Tensor]


def tiled(score: Score, x: Tensor, y: Tensor | None, side: int | None, multiple: int = 1, overlap: int = 0) -> Tensor:
    """Mean score of tiles, weighted by area; the plain score where an image is one tile.

    Args:
        score: Takes images (and references) of one size and gives (N,).
        x: Judged images, (N, C, H, W).
        y: References, or None.
        side: Longest side of a tile in pixels; None never cuts.
        multiple: Sides of tiles are multiples of this.
        overlap: Pixels that neighbours share, half of them on either side of the cut; a
            multiple of 2 * `multiple` below `side`. Areas are those between the cuts.

    Returns:
        One score per image, (N,); float64 on the CPU if it was cut.
    """
    height, width = x.shape[-2:]
    if side is None or max(height, width) <= side:
        return score(x, y)
    total = torch.zeros(len(x), dtype=torch.float64)
    for area, place in parts(height, width, side, multiple, overlap):
        total += area * score(x[place], None if y is None else y[place]).cpu().double()
    return total / (height * width)


def score_in_tiles(critic: Critic, x: Tensor, y: Tensor | None, side: int | None) -> Tensor:
    """Scores as the card has them of tiles, (N,): the image's own where it says `exact`, else the mean by area."""
    card, side = critic.card, side_for(critic.card, side)
    if side is None or max(x.shape[-2:]) <= side:
        return critic(x, y)
    if card.tiling == "exact":
        return critic.settle(tally(critic, x, y, side)).cpu().double()
    return tiled(critic, x, y, side, card.multiple_of)


@torch.no_grad()
def score_tiled(
    critic: Critic,
    x: Tensor,
    y: Tensor | None = None,
    *,
    tile: int = 1024,
    overlap: int = 0,
    approximate: bool = True,
) -> Tensor:
    """Score images that are too large for a critic at once: the mean of their tiles' scores, weighted by area.

    Tiles are cut evenly, the fewest of at most `tile` pixels a side; where the card says `exact`, they have its halo
    around them, and what they add gives the score of the whole image, not the mean of scores. Images may stay
    on the CPU: tiles are brought to the critic's device one at a time, so that memory there is bounded by one tile
    of each image. No gradient is followed.

    What the card says of tiling decides: where it says `exact`, this is the score of the whole image to rounding, where
    `inside`, the very score; where `approximate`, it is close, and scores of different tiles must not be compared;
    where `never`, an image that would have to be cut is refused. An image that is one tile is simply scored.

    Args:
        critic: What scores.
        x: Judged images, RGB in [0, 1], (N, 3, H, W).
        y: References, same shape, for full-reference critics.
        tile: Longest side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share, so that fewer places are seen beside a cut only.
        approximate: False refuses critics whose card does not say `exact`.

    Returns:
        One score per image, (N,), float64 on the CPU.

    Raises:
        InputError: if the critic's card forbids these tiles, or it refuses the images.

    Example:
        >>> critic = create_critic("lpips-vgg")
        >>> score_tiled(critic, x, y, tile=512, overlap=64)  # x, y: (1, 3, 2160, 3840)
    """
    card = critic.card
    check_channels(card, "x", x)
    if y is not None:
        check_channels(card, "y", y)
    if y is not None and y.shape != x.shape:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise InputError(f"critic {card.name!r} needs x and y of one shape, got {shapes}. Crop or resize before.")
    side = side_for(card, tile)
    if side is not None and max(x.shape[-2:]) > side:
        _check_tiles(critic, tile, overlap, approximate)
    if card.tiling == "exact" and max(x.shape[-2:]) > tile:
        return score_in_tiles(critic, x, y, tile)
    tensor = next((t for t in (*critic.parameters(), *critic.buffers())), None)
    device = x.device if tensor is None else tensor.device

    def score(x: Tensor, y: Tensor | None) -> Tensor:
        return critic(x.to(device), None if y is None else y.to(device))

    return tiled(score, x, y, side, card.multiple_of, overlap).cpu().double()


def _check_tiles(critic: Critic, tile: int, overlap: int, approximate: bool) -> None:
    card, step = critic.card, 2 * critic.card.multiple_of
    name = f"critic {card.name!r}"
    if card.tiling == "never":
        raise InputError(f"{name} must see whole images: the mean over tiles means something else.")
    if card.tiling == "approximate" and not approximate:
        raise InputError(f"{name} is only approximated by tiles: pass approximate=True, or score whole images.")
    if card.tiling == "exact" and overlap:
        raise InputError(
            f"{name} is exact on tiles without overlap because its card has a halo of {card.halo}, got {overlap}."
        )
    if overlap < 0 or overlap % step or overlap >= tile:
        raise InputError(f"overlap must be a multiple of {step} from 0 to below tile={tile} for {name}, got {overlap}.")
    if card.tiling == "exact" and tile < smallest_tile(card):
        raise InputError(
            f"{name} has a halo of {card.halo} and needs tiles of at least {smallest_tile(card)}, got {tile}."
        )
    if tile - overlap < 2 * card.min_size:
        least = 2 * card.min_size + overlap
        raise InputError(f"{name} needs tiles of at least {least} pixels with an overlap of {overlap}, got {tile}.")
