"""Aligning a crop of one thumbnail with another thumbnail, and their correlation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import torch
from torch import Tensor

from perceptloss.teach.leaks.thumbnails import ORDERS, cosine_coefficients

__all__ = ["FULL", "PROMISING", "WINDOWS", "align", "correlate"]

_RANGES: Final = ((0.0, 1.0), (0.0, 0.9), (0.05, 0.95), (0.1, 1.0))  # a tenth off the end, both ends, the start
FULL: Final = torch.tensor([0.0, 1.0, 0.0, 1.0])  # left, right, top, bottom
WINDOWS: Final = torch.tensor([(*x, *y) for x, y in product(_RANGES, _RANGES)])  # FULL first
_STEPS: Final = (0.05, 0.025, 0.0125)
PROMISING: Final = (0.2, 0.4, 0.6)  # correlations below which the steps of each size are not tried
_MARGIN: Final = 0.15  # that an edge may move in

_FREQUENCY: Final = torch.cartesian_prod(torch.arange(ORDERS), torch.arange(ORDERS)).float().norm(dim=1)
_WEIGHTS: Final = (_FREQUENCY * (_FREQUENCY < ORDERS)).view(ORDERS, ORDERS)  # flattens the 1/f spectrum of photographs


def correlate(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of pictures by their cosine coefficients, each weighted by its frequency.

    Args:
        a: (N, 13, 13), as `cosine_coefficients` gives them.
        b: Likewise.

    Returns:
        (N,), in [-1, 1]; 1 where both are flat, 0 where one is.
    """
    a, b = (a * _WEIGHTS).flatten(1), (b * _WEIGHTS).flatten(1)
    scale = a.norm(dim=1) * b.norm(dim=1)
    both_flat = (a == 0).all(1) & (b == 0).all(1)
    return torch.where(both_flat, 1.0, (a * b).sum(1) / scale.clamp_min(torch.finfo(scale.dtype).tiny))


def align(cropped: Tensor, whole: Tensor, windows: Tensor, promising: Sequence[float] = PROMISING) -> Tensor:
    """Correlation of the best window of one thumbnail with the whole of another.

    Each edge is moved by smaller and smaller steps, up to 15 % inside.

    Args:
        cropped: Thumbnails, centred, of which a window is taken, (N, 64, 64).
        whole: Thumbnails, centred, with which it is compared, (N, 64, 64).
        windows: Where to start, (N, 4).
        promising: Correlations below which a pair is left as it is, before the steps of each size.

    Returns:
        (N,).
    """
    target = cosine_coefficients(whole, FULL)
    best = correlate(cosine_coefficients(cropped, windows), target)
    windows = windows.clone()
    for step, least in zip(_STEPS, promising, strict=True):
        chosen = (best >= least).nonzero()[:, 0]
        best[chosen], windows[chosen] = _search(cropped[chosen], target[chosen], windows[chosen], best[chosen], step)
    return best


def _search(cropped: Tensor, target: Tensor, windows: Tensor, best: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Move each edge outwards and inwards where that is better, twice: new correlations and windows."""
    for edge, sign in tuple(product(range(4), (-1, 1))) * 2:
        low, high = (0.0, _MARGIN) if edge % 2 == 0 else (1 - _MARGIN, 1.0)
        moved = windows.clone()
        moved[:, edge] = (moved[:, edge] + sign * step).clamp(low, high)
        tried = correlate(cosine_coefficients(cropped, moved), target)
        better = tried > best
        best = torch.where(better, tried, best)
        windows = torch.where(better[:, None], moved, windows)
    return best, windows
