"""Local sliced Wasserstein distance: how much the features inside small windows differ as sets, wherever they lie.

After the LocalSW of Cao et al., Incorporating Semi-Supervised and Positive-Unlabeled Learning for
Boosting Full Reference Image Quality Assessment, CVPR 2022; the definition below is ours.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.errors import InputError

__all__ = ["local_sliced_wasserstein", "orthogonal_directions"]

_AT_ONCE: Final = 1 << 21  # values of one image that are sorted together


def orthogonal_directions(channels: int) -> Tensor:
    """As many unit directions as channels, from torch's current seed: the rows of a random rotation, (C, C).

    Each row is uniform on the sphere. Together they leave no difference of features unseen, as
    fewer would, and make the mean of squared projections exactly |v|^2 / C.
    """
    return nn.init.orthogonal_(torch.empty(channels, channels))


def local_sliced_wasserstein(fx: Tensor, fy: Tensor, directions: Tensor, window: int = 8, stride: int = 4) -> Tensor:
    r"""Squared sliced Wasserstein-2 distance of two feature maps, window by window.

    .. math:: D = \operatorname{mean}_{m, k} \left(\theta_m^T f_x - \theta_m^T f_y\right)_{(k)}^2

    where (k) is the k-th smallest value of a window, taken of both projections on their own: 0 for
    equal sets, symmetric, blind to where in the window a feature lies. With windows of 1 it is the
    squared difference of the projections. The gradient goes through the order of the values, which
    is exact except where two are equal.

    Directions are given, not drawn at each call: a score that changes between two calls can be
    neither compared nor set against that of the reference. Windows that would reach past the last
    row or column see it repeated, so that every feature counts.

    Args:
        fx: Features of the judged images, (N, C, H, W).
        fy: Features of the references, same shape.
        directions: Unit vectors, (M, C).
        window: Side p of a window, at most H and W.
        stride: Step between windows, at most `window`.

    Returns:
        Distances in squared feature units, (N, 1, h, w), h = 1 + ceil((H - p) / stride).

    Raises:
        InputError: if the maps are smaller than a window, or the stride skips features.
    """
    height, width = fx.shape[-2:]
    if min(height, width) < window:
        raise InputError(f"windows of {window}x{window} need maps of at least that, got {height}x{width}.")
    if not 1 <= stride <= window:
        raise InputError(f"windows of {window}x{window} need a stride from 1 to {window}, got {stride}.")
    rows, columns = (-(-(length - window) // stride) + 1 for length in (height, width))
    # decided by one image, so that the order of the sum, hence a score, does not depend on the batch
    block = max(1, _AT_ONCE // (rows * columns * window**2))
    learns = torch.is_grad_enabled() and (fx.requires_grad or fy.requires_grad)
    total = fx.new_zeros(())
    for part in directions.split(block):
        arguments = (fx, fy, part, window, stride)
        if learns:  # sorting again is cheaper than keeping values and places of every window of every direction
            total = total + checkpoint(_summed, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + _summed(*arguments)
    return total / len(directions)


def _summed(fx: Tensor, fy: Tensor, directions: Tensor, window: int, stride: int) -> Tensor:
    """Sum over directions of the mean squared difference of ordered values, (N, 1, h, w)."""
    x, y = (_ordered(f, directions, window, stride) for f in (fx, fy))
    return (x - y).square().mean(-1).sum(1, keepdim=True)


def _ordered(f: Tensor, directions: Tensor, window: int, stride: int) -> Tensor:
    """Projections in each window, ascending, (N, M, h, w, p^2)."""
    projected = F.conv2d(f, directions[:, :, None, None])
    below, beside = (-(length - window) % stride for length in f.shape[-2:])
    if below or beside:
        projected = F.pad(projected, (0, beside, 0, below), mode="replicate")
    windows = projected.unfold(2, window, stride).unfold(3, window, stride)
    return windows.flatten(-2).sort(dim=-1, stable=True).values
