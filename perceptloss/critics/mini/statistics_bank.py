"""Statistics of one image that tell natural from damaged, as smooth numbers of ordinary size that a head can weigh.

Locally normalised luminance and the products of its neighbours as in BRISQUE and NIQE (Mittal et al., TIP 2012 and
SPL 2013), local contrast, edges, exposure, and the spread and saturation of colours as in UCIQE (Yang and Sowmya, TIP
2015). Moments replace the fitted distributions, so every number has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vecdot

from perceptloss.critics.mini.band_bank import halve_whole, smooth
from perceptloss.networks.functional import PREWITT, YIQ, edge_magnitude, mix_channels

__all__ = ["Lagged", "StatisticsBank", "log_size"]

_FLAT = 1.0 / 255  # added to local deviations before dividing, as in BRISQUE
_FLOOR = 1e-3  # below which a mean is as good as 0 for a logarithm
_TAILS = 0.05  # width of the darkest and the brightest range


class StatisticsBank(nn.Module):
    """Moments of luminance, colour, edges and normalised luminance at several scales: (N, 3, H, W) to (N, features).

    Args:
        scales: Number of scales; each halves the one before.
    """

    per_scale = 28

    def __init__(self, scales: int = 3) -> None:
        super().__init__()
        self.scales = scales

    @property
    def features(self) -> int:
        """Number of statistics."""
        return self.scales * self.per_scale

    def forward(self, x: Tensor) -> Tensor:
        """Statistics of images in [0, 1]."""
        found = []
        for scale in range(self.scales):
            if scale:
                x = halve_whole(x)
            light, chroma = mix_channels(x, YIQ[:1]), mix_channels(x, YIQ[1:])
            found += [*_of_light(light.squeeze(1)), *_of_colour(chroma), *_of_texture(light)]
        return torch.stack(found, 1)


def _of_light(light: Tensor) -> Sequence[Tensor]:
    mean, spread = light.mean((1, 2)), _deviation(light)
    dark, bright = F.relu(_TAILS - light) / _TAILS, F.relu(light - (1 - _TAILS)) / _TAILS
    return [2 * mean - 1, log_size(spread), dark.mean((1, 2)), bright.mean((1, 2))]


def _of_colour(chroma: Tensor) -> Sequence[Tensor]:
    size = (chroma.square().sum(1) + _FLOOR**2).sqrt()
    first, second = chroma.unbind(1)
    means = [4 * first.mean((1, 2)), 4 * second.mean((1, 2))]
    return [*means, *(log_size(_deviation(v)) for v in (first, second, size)), log_size(size.mean((1, 2)))]


def _of_texture(light: Tensor) -> Sequence[Tensor]:
    mean = smooth(light)
    deviation = (smooth(light.square()) - mean.square()).clamp_min(0).add(_FLOOR**2).sqrt()
    normal = ((light - mean) / (deviation + _FLAT)).squeeze(1)
    edges, deviation = edge_magnitude(light, PREWITT).squeeze(1), deviation.squeeze(1)
    found = [log_size(edges.mean((1, 2))), log_size(_deviation(edges))]
    found += [log_size(deviation.mean((1, 2))), log_size(_deviation(deviation)), deviation.log().mean((1, 2)) / 2 + 2]
    square = (flat := normal.flatten(1)).square()
    power = square.mean(1)
    found += [power, flat.abs().mean(1), vecdot(square, square) / square.shape[1] / (power.square() + 0.1) - 2]
    found.append(vecdot(flat, square) / square.shape[1] / (power + 0.1))
    width = light.shape[-1]
    neighbours = (1, width, width + 1, width - 1)
    products = Lagged.apply(flat, (*neighbours, 2))  # two pixels apart: blur and enlargement show here
    sizes = Lagged.apply(flat.abs(), neighbours)
    both = [(products[:, i], sizes[:, i]) for i in range(len(neighbours))]
    return [*found, *(mean for pair in both for mean in pair), products[:, -1]]


class Lagged(torch.autograd.Function):
    """Mean products of rows (N, P) with themselves, so many places later, (N, lags); keeps no product."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lags: tuple[int, ...]) -> Tensor:
        ctx.lags = lags
        ctx.save_for_backward(rows)
        return torch.stack([vecdot(rows[:, :-lag], rows[:, lag:]) for lag in lags], 1) / rows.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        total = torch.zeros_like(rows)
        for lag, g in zip(ctx.lags, (grads[0] / rows.shape[1])[:, :, None].unbind(1), strict=True):
            total[:, :-lag].addcmul_(rows[:, lag:], g)
            total[:, lag:].addcmul_(rows[:, :-lag], g)
        return total, None


def _deviation(image: Tensor) -> Tensor:
    return (image - image.mean((1, 2), keepdim=True)).square().mean((1, 2)).add(_FLOOR**2).sqrt()


def log_size(positive: Tensor) -> Tensor:
    """Logarithm of a size in [0, 1], shifted to about -1 ... 1."""
    return (positive + _FLOOR).log() / 2 + 2
