"""Texture of image cells by grey-level co-occurrence: for choosing places, so without a gradient.

Haralick, Shanmugam, Dinstein: "Textural Features for Image Classification", IEEE Transactions on
Systems, Man, and Cybernetics SMC-3(6), 1973, at distance 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from einops import rearrange
from torch import Tensor

from perceptloss.networks.functional import YIQ
from perceptloss.networks.patches import tiles

__all__ = [
    "ANGLES",
    "STATISTICS",
    "Statistic",
    "cell_texture",
    "contrast",
    "cooccurrence",
    "dissimilarity",
    "energy",
    "entropy",
    "grey_levels",
    "homogeneity",
]

ANGLES: Final = {0: (0, 1), 45: (1, 1), 90: (1, 0), 135: (1, -1)}
"""Angle in degrees to the step between the two pixels of a pair: rows down, columns to the right."""

Statistic = Literal["contrast", "dissimilarity", "homogeneity", "energy", "entropy"]


@torch.no_grad()
def grey_levels(image: Tensor, levels: int = 16) -> Tensor:
    """BT.601 luma in equal steps, values outside [0, 1] in the outermost, NaN as black.

    Args:
        image: RGB in [0, 1], (N, 3, H, W).
        levels: Number of steps.

    Returns:
        Integers from 0 to levels - 1, (N, H, W).
    """
    red, green, blue = (weight * channel for weight, channel in zip(YIQ[0], image.unbind(1), strict=True))
    return (levels * (red + green + blue)).floor().nan_to_num(0).clamp(0, levels - 1).long()


def cooccurrence(grey: Tensor, levels: int = 16) -> Tensor:
    """Symmetric, normalised co-occurrence matrices of neighbours, one for each of `ANGLES`.

    Args:
        grey: Integers from 0 to levels - 1, (N, H, W), H and W at least 2.
        levels: Number of grey levels, L.

    Returns:
        Share of the pairs that have levels i and j, (N, angles, L, L), float64; each matrix sums to 1.
    """
    count, height, width = grey.shape
    first_bin = levels**2 * torch.arange(count, device=grey.device)[:, None, None]
    found = []
    for down, right in ANGLES.values():
        left = max(0, -right)
        here = grey[:, : height - down, left : width - max(0, right)]
        there = grey[:, down:, left + right : left + right + here.shape[-1]]
        bins = (first_bin + levels * here + there).flatten()
        # not bincount, at whose unforeseeable size a compiler stops
        pairs = bins.new_zeros(count * levels**2).scatter_add_(0, bins, torch.ones_like(bins))
        pairs = pairs.view(count, levels, levels)
        found.append((pairs + pairs.mT).double() / (2 * here[0].numel()))
    return torch.stack(found, 1)


def _gap(p: Tensor) -> Tensor:
    level = torch.arange(p.shape[-1], dtype=p.dtype, device=p.device)
    return (level[:, None] - level).abs()


def contrast(p: Tensor) -> Tensor:
    """Mean squared difference of neighbours: matrices (..., L, L) to (...), 0 for flat cells."""
    return (_gap(p).square() * p).sum((-2, -1))


def dissimilarity(p: Tensor) -> Tensor:
    """Mean absolute difference of neighbours: matrices (..., L, L) to (...), 0 for flat cells."""
    return (_gap(p) * p).sum((-2, -1))


def homogeneity(p: Tensor) -> Tensor:
    """Mean of 1 / (1 + squared difference): matrices (..., L, L) to (...), in (0, 1], 1 for flat cells."""
    return (p / (1 + _gap(p).square())).sum((-2, -1))


def energy(p: Tensor) -> Tensor:
    """Sum of squares, also called angular second moment: matrices (..., L, L) to (...), 1 for flat cells."""
    return p.square().sum((-2, -1))


def entropy(p: Tensor) -> Tensor:
    """Entropy of the pairs in bits: matrices (..., L, L) to (...), 0 for flat cells."""
    return -torch.special.xlogy(p, p).sum((-2, -1)) / torch.log(p.new_tensor(2.0))


STATISTICS: Final[dict[Statistic, tuple[Callable[[Tensor], Tensor], int]]] = {
    "contrast": (contrast, 1),
    "dissimilarity": (dissimilarity, 1),
    "homogeneity": (homogeneity, -1),
    "energy": (energy, -1),
    "entropy": (entropy, 1),
}
"""Statistics by name, with the sign that makes more of them more texture."""


@torch.no_grad()
def cell_texture(
    image: Tensor, side: int, *, levels: int = 16, statistic: Statistic = "contrast", offset: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor]:
    """Texture of the cells of a grid, averaged over the four angles.

    Args:
        image: RGB in [0, 1], (N, 3, H, W).
        side: Of the square cells, which lie side by side; what is left at the end has no cell.
        levels: Grey levels.
        statistic: Name of one of `STATISTICS`.
        offset: Row and column at which the grid starts.

    Returns:
        Texture, more is higher, (N, cells), float64, and top and left of every cell, (cells, 2); row by row.
    """
    measure, sign = STATISTICS[statistic]
    rest = image[..., offset[0] :, offset[1] :]
    tops, lefts = tiles(rest, side)
    texture = []
    for top in tops:  # row by row, so that a large image needs the memory of one
        row = grey_levels(rest[..., top : top + side, : side * len(lefts)], levels)
        cells = rearrange(row, "n h (cells w) -> (n cells) h w", w=side)
        found = measure(cooccurrence(cells, levels)).mean(1)
        texture.append(sign * rearrange(found, "(n cells) -> n cells", n=len(image)))
    corners = torch.cartesian_prod(*(torch.tensor(starts, device=image.device) for starts in (tops, lefts)))
    return torch.cat(texture, 1), corners + torch.tensor(offset, device=image.device)
