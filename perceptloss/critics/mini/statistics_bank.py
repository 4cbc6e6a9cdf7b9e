"""Statistics of one image that tell natural from damaged, as smooth numbers of ordinary size that a head can weigh.

Locally normalised luminance and the products of its neighbours as in BRISQUE and NIQE (Mittal et al., TIP 2012 and
SPL 2013), local contrast, edges, exposure, and the spread and saturation of colours as in UCIQE (Yang and Sowmya, TIP
2015). Moments replace the fitted distributions, so every number has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.functional import PREWITT, YIQ, edge_magnitude, local_mean, mix_channels

__all__ = ["StatisticsBank"]

_WINDOW = 7
_FLAT = 1.0 / 255  # added to local deviations before dividing, as in BRISQUE
_FLOOR = 1e-3  # below which a mean is as good as 0 for a logarithm
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
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
        x = mix_channels(x, YIQ)
        found = []
        for scale in range(self.scales):
            if scale:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            found += [*_of_light(x[:, 0]), *_of_colour(x[:, 1:]), *_of_texture(x[:, :1])]
        return torch.stack(found, 1)


def _of_light(light: Tensor) -> Sequence[Tensor]:
    mean, spread = light.mean((1, 2)), _deviation(light)
    dark, bright = F.relu(_TAILS - light) / _TAILS, F.relu(light - (1 - _TAILS)) / _TAILS
    return [2 * mean - 1, _log(spread), dark.mean((1, 2)), bright.mean((1, 2))]


def _of_colour(chroma: Tensor) -> Sequence[Tensor]:
    size = (chroma.square().sum(1) + _FLOOR**2).sqrt()
    first, second = chroma[:, 0], chroma[:, 1]
    means = [4 * first.mean((1, 2)), 4 * second.mean((1, 2))]
    return [*means, *(_log(_deviation(v)) for v in (first, second, size)), _log(size.mean((1, 2)))]


def _of_texture(light: Tensor) -> Sequence[Tensor]:
    mean = local_mean(light, _WINDOW)
    deviation = (local_mean(light.square(), _WINDOW) - mean.square()).clamp_min(0).add(_FLOOR**2).sqrt()
    normal = ((light - mean) / (deviation + _FLAT))[:, 0]
    edges, deviation = edge_magnitude(light, PREWITT)[:, 0], deviation[:, 0]
    found = [_log(edges.mean((1, 2))), _log(_deviation(edges))]
    found += [_log(deviation.mean((1, 2))), _log(_deviation(deviation)), deviation.log().mean((1, 2)) / 2 + 2]
    square = normal.square()
    power = square.mean((1, 2))
    found += [power, normal.abs().mean((1, 2)), square.square().mean((1, 2)) / (power.square() + 0.1) - 2]
    found.append((normal * square).mean((1, 2)) / (power + 0.1))
    for down, right in _SHIFTS:
        product = normal * normal.roll((-down, -right), (1, 2))
        found += [product.mean((1, 2)), product.abs().mean((1, 2))]
    second = normal * normal.roll(-2, 2)  # two pixels apart: blur and enlargement show here
    return [*found, second.mean((1, 2))]


def _deviation(image: Tensor) -> Tensor:
    return (image - image.mean((1, 2), keepdim=True)).square().mean((1, 2)).add(_FLOOR**2).sqrt()


def _log(positive: Tensor) -> Tensor:
    """Logarithm of a size in [0, 1], shifted to about -1 ... 1."""
    return (positive + _FLOOR).log() / 2 + 2
