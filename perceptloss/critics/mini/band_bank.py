"""Differences of two images in bands of frequency and in colour, weighed by what the reference can hide.

After what the classical indices share: contrast and structure of local bands as in MS-SSIM and IW-SSIM, edges that are
lost told from edges that are new (as in SSIMULACRA 2), noise that texture masks (Legge and Foley, JOSA 1980), and
coarser colour than light. All weights are those of the reference, so that an image cannot change how it is weighed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceptloss.networks.filters import halve, mix_channels, slide
from perceptloss.networks.functional import YIQ, root_above

__all__ = ["BandBank"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_QUIET = 6e-4  # of the stabilisers: a band of 2.5 % contrast
_FAINT = 6e-5
_PLAIN = 2e-3  # squared difference of means and colours that counts half
_MAPS = 6
_FLAT = 1e-3  # deviations below are of no interest, and their root would be steep


def _smooth(x: Tensor) -> Tensor:
    """Binomial means; the border is repeated outside."""
    padded = nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    return slide(slide(padded, _BINOMIAL, -1), _BINOMIAL, -2)


class BandBank(nn.Module):
    """Distances of two images at several scales, each >= 0, at most 1 or so, and exactly 0 for equal images.

    Of each scale: structure against two stabilisers, contrast lost, contrast gained, error that the reference does not
    mask, and colour and mean; pooled by the mean, by the mean over what is lively in the reference, and by the
    deviation.

    Args:
        scales: Number of scales; each halves the one before.
    """

    def __init__(self, scales: int = 5) -> None:
        super().__init__()
        self.scales = scales

    @property
    def features(self) -> int:
        """Number of distances."""
        return self.scales * _MAPS * 3

    @property
    def facts(self) -> int:
        """Numbers that tell how busy a reference is."""
        return self.scales * 2

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (N, features) of images (N, 3, H, W) RGB in [0, 1], and facts (N, facts) of `x` and of `y`."""
        found, own, facts = [], [], []
        x, y = (mix_channels(image, YIQ) for image in (x, y))
        for scale in range(self.scales):
            if scale:
                x, y = halve_whole(x), halve_whole(y)
            distances, *busy = _at_scale(x, y)
            for kept, part in zip((found, own, facts), (distances, *busy), strict=True):
                kept.append(part)
        return torch.cat(found, 1), torch.cat(own, 1), torch.cat(facts, 1)


def halve_whole(x: Tensor) -> Tensor:
    """2x2 means; a side of one pixel stays, an odd one repeats its last line."""
    rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
    if rows or columns:
        x = nn.functional.pad(x, (0, columns, 0, rows), mode="replicate")
    return halve(x)


def _at_scale(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    light, other = x[:, :1], y[:, :1]
    mx, my = _smooth(light), _smooth(other)
    bx, by = light - mx, other - my
    ey = _smooth(by * by)
    both = _smooth(torch.cat([bx * bx, bx * by], 1))
    ex, cross = both[:, :1], both[:, 1:]
    total, shared = ex + ey, 2 * cross
    apart = total - shared
    change = (ex - ey) / (total + _QUIET)
    lost, gained = change.clamp_max(0), change.clamp_min(0)
    colour = (x[:, 1:] - y[:, 1:]).square().sum(1, keepdim=True) * 4 + (mx - my).square()
    maps = torch.cat(
        [
            apart / (total + _QUIET),
            apart / (total + _FAINT),
            lost * lost,
            gained * gained,
            apart / (apart + 2 * ey + _QUIET / 4),
            colour / (colour + ey + _PLAIN),
        ],
        1,
    )
    weight = (ey + _FAINT).sqrt()
    own = (ex.clamp_min(0) + _FAINT).sqrt()
    return _pool(maps, weight), _busy(own), _busy(weight)


def _busy(contrast: Tensor) -> Tensor:
    """Logarithms of mean contrast, and of the mean square, (N, 2)."""
    return torch.cat([contrast.mean((2, 3)), contrast.square().mean((2, 3)).sqrt()], 1).log()


def _pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Distances (N, D, h, w) and weights (N, 1, h, w) to (N, 3 D)."""
    flat, shares = maps.flatten(2), weight.flatten(2)
    mean = flat.mean(2)
    weighted = (flat @ (shares / shares.sum(2, keepdim=True)).mT)[:, :, 0]
    variance = (flat.square().mean(2) - mean.square()).clamp_min(0)
    return torch.cat([mean, weighted, root_above(variance, _FLAT)], 1)
