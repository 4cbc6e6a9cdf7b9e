"""Sobel's derivatives, by differences and without a convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["sobel"]


def sobel(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and downwards of maps (N, C, H, W) with zeros around them, each of the same shape.

    The weights are 1, 2, 1 across the derivative and are not normalised: a step of 1 gives 4.
    """
    p = F.pad(plane, (1, 1, 1, 1))
    across, down = p[..., 2:] - p[..., :-2], p[..., 2:, :] - p[..., :-2, :]
    right = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    return right, down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
