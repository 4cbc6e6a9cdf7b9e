"""Statistics of one image that tell natural from damaged, as smooth numbers of ordinary size that a head can weigh.

Locally normalised luminance and the products of its neighbours as in BRISQUE and NIQE (Mittal et al., TIP 2012 and
SPL 2013), local contrast, edges, exposure, and the spread and saturation of colours as in UCIQE (Yang and Sowmya, TIP
2015). Moments replace the fitted distributions, so every number has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vecdot

from perceptloss.critics.mini.band_bank import halve_whole, ratio, smooth
from perceptloss.networks.functional import PREWITT, YIQ, edge_magnitude, mix_channels
from perceptloss.networks.layers import mean_and_variance
from perceptloss.networks.pointwise import root_lifted

__all__ = ["Lagged", "Powers", "StatisticsBank", "log_size"]

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
            found.append(_of_scale(mix_channels(x, YIQ)))
        return torch.cat(found, 1)


def _of_scale(planes: Tensor) -> Tensor:
    """Statistics (N, per_scale) of luminance and two planes of colour, (N, 3, H, W)."""
    light, chroma = planes.split([1, 2], 1)
    size = root_lifted(chroma.square().sum(1, keepdim=True), _FLOOR**2)
    around, squares = smooth(torch.cat([light, light.square()], 1)).split(1, 1)
    deviation = root_lifted(squares - around.square(), _FLOOR**2)
    mean, variance = mean_and_variance(planes, size, edge_magnitude(light, PREWITT), deviation)
    sizes = log_size(torch.cat([root_lifted(variance, _FLOOR**2), mean[:, 3:]], 1))
    spread, level = (part.unbind(1) for part in sizes.split([6, 3], 1))
    lit, *hues = mean[:, :3].unbind(1)
    tails = (torch.cat([_TAILS - light, light - (1 - _TAILS)], 1).relu().mean((2, 3)) / _TAILS).unbind(1)
    found = [2 * lit - 1, spread[0], *tails, *(4 * hue for hue in hues), *spread[1:4]]
    found += [level[0], level[1], spread[4], level[2], spread[5]]
    found.append(deviation.log().mean((1, 2, 3)) / 2 + 2)
    return torch.cat([torch.stack(found, 1), _of_normal(ratio(light - around, deviation, _FLAT))], 1)


def _of_normal(normal: Tensor) -> Tensor:
    """Of normalised luminance (N, 1, H, W): its power, size, tails and skew, and products of neighbours."""
    flat, width = normal.flatten(1), normal.shape[-1]
    size, power, third, fourth = Powers.apply(flat).unbind(1)
    found = [power, size, fourth / (power.square() + 0.1) - 2, third / (power + 0.1)]
    products = Lagged.apply(flat, (1, width, width + 1, width - 1, 2))  # two apart: blur and enlargement show there
    return torch.cat([torch.stack(found, 1), products[:, :-1].flatten(1), products[:, -1, :1]], 1)


class Powers(torch.autograd.Function):
    """Means of |v|, v^2, v^3 and v^4 of rows (N, P), (N, 4); keeps no power."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        squares = rows * rows
        size = torch.linalg.vector_norm(rows, 1, 1)
        sums = [size, squares.sum(1), vecdot(rows, squares), vecdot(squares, squares)]
        return torch.stack(sums, 1) / rows.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        first, second, third, fourth = (grads[0] / rows.shape[1])[:, :, None].unbind(1)
        slope = torch.addcmul(3 * third, rows, 4 * fourth)
        slope = torch.addcmul(2 * second, rows, slope)
        return slope.mul_(rows).addcmul_(rows.sign(), first)


class Lagged(torch.autograd.Function):
    """Mean products of rows (N, P) and of their sizes with themselves, so many places later, (N, lags, 2)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lags: tuple[int, ...]) -> Tensor:
        ctx.lags = lags
        ctx.save_for_backward(rows)
        sizes = rows.abs()
        found = [vecdot(r[:, :-lag], r[:, lag:]) for lag in lags for r in (rows, sizes)]
        return torch.stack(found, 1).unflatten(1, (-1, 2)) / rows.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        found = []
        for r, of_lags in zip((rows, rows.abs()), (grads[0] / rows.shape[1]).unbind(2), strict=True):
            total = torch.zeros_like(r)
            for lag, g in zip(ctx.lags, of_lags[:, :, None].unbind(1), strict=True):
                total[:, :-lag].addcmul_(r[:, lag:], g)
                total[:, lag:].addcmul_(r[:, :-lag], g)
            found.append(total)
        return torch.addcmul(found[0], found[1], rows.sign()), None


def log_size(positive: Tensor) -> Tensor:
    """Logarithm of a size in [0, 1], shifted to about -1 ... 1."""
    return (positive + _FLOOR).log() / 2 + 2
