"""Whether a gradient asks for a fixed pattern, by its frequencies and by the places of pixels.

A network with a stride that does not blur before treats pixels by their place: its gradient is stronger on some phases
of the stride than on others, or has peaks at a half or a quarter of a cycle per pixel. What is trained with it gets a
grid.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FREQUENCIES", "PERIODS", "peaks", "phases"]

_WINDOW: Final = 32
_AWAY: Final = (-5, -4, -3, 3, 4, 5)  # bins from a frequency that the window's main lobe does not reach
FREQUENCIES: Final[dict[str, tuple[int, int]]] = {
    "1/2,0": (16, 0),
    "0,1/2": (0, 16),
    "1/2,1/2": (16, 16),
    "1/4,0": (8, 0),
    "0,1/4": (0, 8),
    "1/4,1/4": (8, 8),
    "1/2,1/4": (16, 8),
    "1/4,1/2": (8, 16),
}
"""Cycles per pixel, vertical and horizontal, and their bins."""
PERIODS: Final = (2, 4)
"""Strides whose phases are told apart, in pixels."""
_FAINT: Final = 1e-4  # of the strongest power: what is weaker is taken for that
_AROUND: Final = 9  # pixels of a square by which the power of a pixel is divided


def peaks(push: Tensor) -> dict[str, float]:
    """Power at each frequency against the larger of the mean levels beside it along and across, in dB.

    After Welch, "The use of fast Fourier transform for the estimation of power spectra", 1967: means over channels and
    overlapping windows of 32 pixels, every image with the same weight.

    Args:
        push: Gradients, (N, C, H, W), sides of at least 32.

    Returns:
        Frequency to dB; empty for gradients without any power.
    """
    size = push.double().square().mean((1, 2, 3), keepdim=True).sqrt()
    if not bool((size > 0).any() and torch.isfinite(size).all()):
        return {}
    even = torch.where(size > 0, push.double() / size, 0)
    hann = torch.hann_window(_WINDOW, dtype=torch.float64, device=push.device)
    tiles = even.unfold(2, _WINDOW, _WINDOW // 2).unfold(3, _WINDOW, _WINDOW // 2) * hann * hann[:, None]
    power = torch.fft.fft2(tiles).abs().square().mean((0, 1, 2, 3)).cpu()
    level = 10 * power.clamp_min(_FAINT * float(power.max())).log10()
    found = {}
    for name, (row, column) in FREQUENCIES.items():
        along = torch.stack([level[row, (column + k) % _WINDOW] for k in _AWAY]).mean()
        across = torch.stack([level[(row + k) % _WINDOW, column] for k in _AWAY]).mean()
        found[name] = float(level[row, column] - max(along, across))
    return found


def phases(push: Tensor) -> dict[str, float]:
    """How much stronger a gradient is on the strongest phase of a period than on the weakest, in dB.

    Power is taken by that of the square of 9 pixels around, so that edges of the picture count no more than the rest.

    Args:
        push: Gradients, (N, C, H, W), sides of at least 32.

    Returns:
        Period to dB, infinite where a phase has none; empty for gradients without any power.
    """
    power = push.double().square().sum(1, keepdim=True)
    if not bool((power > 0).any() and torch.isfinite(power).all()):
        return {}
    around = F.avg_pool2d(power, _AROUND, stride=1)
    margin = _AROUND // 2
    share = torch.where(around > 0, power[..., margin:-margin, margin:-margin] / around, 0)
    found = {}
    for period in PERIODS:
        means = [float(share[..., i::period, j::period].mean()) for i in range(period) for j in range(period)]
        found[str(period)] = 10 * math.log10(max(means) / min(means)) if min(means) > 0 else math.inf
    return found
