"""Statistics of colour, light and veil, by which water is seen, as smooth numbers of ordinary size.

Each is bounded on images in [0, 1], and none needs a sort: soft ends (logarithms of mean exponentials) stand for
extremes and percentiles, moments for trimmed means. Contrast and edges are those of means of 2x2 pixels, everything
else of 4x4: colour and veil are coarse.

- Means, deviations and soft ends of red, green, blue and luminance; logarithms of red over green and red over blue:
  water takes red first (Akkaynak and Treibitz, CVPR 2018).
- Cast, spread and their sum as UICM weighs them of the opponents R - G and (R + G) / 2 - B, and block contrast of
  every channel in place of UISM and UIConM (Panetta, Gao, Agaian, IEEE Journal of Oceanic Engineering 2016).
- Deviation of chroma, range of luminance and mean saturation, of which UCIQE is made (Yang and Sowmya, TIP 2015).
- Dark channels, which are bright where there is veil: of all channels (He, Sun, Tang, CVPR 2009), of green and blue
  alone (Drews et al., ICCVW 2013), and with red turned over (Galdran et al., JVCIR 2015).
- Correlation of channels, which veil raises; deviations of block means from 4 to 64 pixels, which tell an even
  background from a scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critics.mini.band_bank import halve_whole
from perceptloss.critics.mini.statistics_bank import log_size
from perceptloss.networks.functional import LUMA, PREWITT, edge_magnitude, mix_channels

__all__ = ["WaterBank"]

_SHARP = 10.0  # of soft ends, per unit of intensity
_FLOOR = 1e-3  # deviations and chroma below are of no interest, and their root would be steep
_DIM = 0.02  # added to means before they are compared
_BLOCK = 8
_OCTAVES = 4
_VIEWS = (LUMA, (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))  # luminance, red - green, yellow - blue
_CAST, _SPREAD = -0.0268, 0.1586  # of UICM


class WaterBank(nn.Module):
    """Statistics of images (N, 3, H, W), RGB in [0, 1], to (N, features); see above."""

    features = 75

    def forward(self, x: Tensor) -> Tensor:
        fine = halve_whole(x)
        x = halve_whole(fine)
        planes = torch.cat([x, mix_channels(x, _VIEWS)], 1)
        mean = planes.mean((2, 3))
        centred = planes - mean[:, :, None, None]
        variance = centred.square().mean((2, 3))
        up = (_SHARP * (planes[:, :4] - 0.5)).exp()
        down = up.reciprocal()
        ends = torch.cat([_soft_end(up.mean((2, 3))), 1 - _soft_end(down.mean((2, 3)))], 1)
        found = [
            *_of_channels(mean, variance, ends),
            *_of_opponents(mean[:, 4:], variance[:, 4:], planes),
            _correlations(centred[:, :3], variance[:, :3]),
            *_of_blocks(fine),
            *_of_veil(up, down, ends),
            *_of_octaves(planes[:, 3:], variance[:, 3:]),
        ]
        return torch.cat(found, 1)


def _soft_end(mean: Tensor) -> Tensor:
    """The intensity whose exponential is the mean one."""
    return mean.log() / _SHARP + 0.5


def _root(square: Tensor) -> Tensor:
    return (square + _FLOOR**2).sqrt()


def _of_channels(mean: Tensor, variance: Tensor, ends: Tensor) -> Sequence[Tensor]:
    high, low = ends.chunk(2, 1)
    logs = (mean[:, :3] + _DIM).log() / 2
    lost = logs[:, :1] - logs[:, 1:]
    sizes = log_size(torch.cat([_root(variance), (high - low).clamp_min(0)], 1))
    return [2 * mean[:, :4] - 1, 2 * ends - 1, sizes, lost]


def _of_opponents(mean: Tensor, variance: Tensor, planes: Tensor) -> Sequence[Tensor]:
    """Of the means and variances (N, 2) of both opponents, and of all planes."""
    cast, spread = mean.square().sum(1, keepdim=True), variance.sum(1, keepdim=True)
    colourful = 10 * (_CAST * _root(cast) + _SPREAD * _root(spread))
    light = planes[:, 3].flatten(1)
    square = planes[:, 4:].flatten(2).square().sum(1)
    chroma = _root(square)
    saturation = chroma / _root(square + light.square())
    maps = torch.stack([chroma, saturation], 1)
    level = maps.mean(2)
    away = log_size(_root((maps - level[:, :, None]).square().mean(2)))
    return [4 * mean, log_size(_root(cast)), cast / (cast + spread + _FLOOR), colourful, 2 * level - 1, away]


def _correlations(centred: Tensor, variance: Tensor) -> Tensor:
    """Of red and green, green and blue, blue and red, (N, 3)."""
    together = (centred * centred.roll(-1, 1)).mean((2, 3))
    return together / _root(variance * variance.roll(-1, 1))


def _of_blocks(fine: Tensor) -> Sequence[Tensor]:
    """Contrast of blocks of every channel, and how it varies over the picture; edges of every channel."""
    mean, square = _blocks(fine), _blocks(fine.square())
    deviation = _root((square - mean.square()).clamp_min(0))
    share = deviation / (deviation + mean.clamp_min(0) + _DIM)
    logs = (deviation.log() / 2 + 2).flatten(2)
    entropy = -share * share.log()
    level = logs.mean(2)
    vary = _root((logs - level[:, :, None]).square().mean(2))
    edges = edge_magnitude(fine, PREWITT)
    return [4 * share.mean((2, 3)) - 1, 4 * entropy.mean((2, 3)) - 1, level, vary, log_size(edges.mean((2, 3)))]


def _of_veil(up: Tensor, down: Tensor, ends: Tensor) -> Sequence[Tensor]:
    """Mean and deviation of three dark channels of blocks, and how much of the brightest end they are."""
    red, *others = (v.squeeze(1) for v in down[:, :3].split(1, 1))
    turned = up[:, 0]
    both = others[0] + others[1]
    dark = torch.stack([(red + both) / 3, both / 2, (turned + both) / 3], 1)
    dark = 1 - _soft_end(_blocks(dark)).flatten(2)
    level = dark.mean(2)
    vary = log_size(_root((dark - level[:, :, None]).square().mean(2)))
    return [2 * level - 1, vary, level / (ends[:, 3:4].clamp_min(0) + 0.1) - 0.5]


def _of_octaves(planes: Tensor, variance: Tensor) -> Sequence[Tensor]:
    """Logarithms of deviations of block means between one size of block and the next, and what is left at the end."""
    found = []
    for _ in range(_OCTAVES):
        planes = halve_whole(planes)
        left = (planes - planes.mean((2, 3), keepdim=True)).square().mean((2, 3))
        found.append((variance - left).clamp_min(0))
        variance = left
    return [log_size(_root(torch.cat([*found, variance], 1)))]


def _blocks(maps: Tensor) -> Tensor:
    """Means of blocks; those at the end may be smaller."""
    return F.avg_pool2d(maps, _BLOCK, ceil_mode=True)
