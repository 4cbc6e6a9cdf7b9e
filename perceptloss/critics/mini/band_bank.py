"""Differences of two images in bands of frequency and in colour, weighed by what the reference can hide.

After what the classical indices share: contrast and structure of local bands as in MS-SSIM and IW-SSIM, edges that are
lost told from edges that are new (as in SSIMULACRA 2), noise that texture masks (Legge and Foley, JOSA 1980), and
coarser colour than light. All weights are those of the reference, so that an image cannot change how it is weighed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vecdot

from perceptloss.networks.filters import halve, mix_channels, slide
from perceptloss.networks.functional import YIQ, root_above
from perceptloss.networks.pointwise import root_lifted

__all__ = ["BandBank", "halve_whole", "ratio", "smooth"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_QUIET = 6e-4  # of the stabilisers: a band of 2.5 % contrast
_FAINT = 6e-5
_PLAIN = 2e-3  # squared difference of means and colours that counts half
_MAPS = 5
_FLAT = 1e-3  # deviations below are of no interest, and their root would be steep


def smooth(x: Tensor) -> Tensor:
    """Binomial means; the border is repeated outside."""
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    return slide(slide(padded, _BINOMIAL, -1), _BINOMIAL, -2)


class _Ratio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: float) -> Tensor:
        out = a / (b + c)
        ctx.c = c
        ctx.save_for_backward(b, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        b, out = ctx.saved_tensors
        share = grads[0] / (b + ctx.c)
        return share, (share * out).neg_(), None


def ratio(a: Tensor, b: Tensor, c: float) -> Tensor:
    """The quotient a / (b + c), with fewer passes over the pixels in the backward."""
    out: Tensor = _Ratio.apply(a, b, c)
    return out


class BandBank(nn.Module):
    """Distances of two images at several scales, each >= 0, at most 1 or so, and exactly 0 for equal images.

    Of each scale: structure, contrast lost, contrast gained, error that the reference does not mask, and steps gathered
    into fewer places than in the reference; of all but the finest also colour and mean. Pooled by the mean, by the mean
    over what is lively in the reference, and by the deviation.

    Args:
        scales: Number of scales; each halves the one before.
    """

    def __init__(self, scales: int = 5) -> None:
        super().__init__()
        self.scales = scales

    @property
    def features(self) -> int:
        """Number of distances."""
        return (self.scales * (_MAPS + 1) - 1) * 3

    @property
    def facts(self) -> int:
        """Numbers that tell how busy a reference is."""
        return self.scales * 2

    def forward(self, x: Tensor, y: Tensor, *, hold: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (N, features) of images (N, 3, H, W) RGB in [0, 1], and facts (N, facts) of `x` and of `y`.

        With `hold`, the distance that asks for even steps is a constant of the gradient: no picture has more even
        steps than a fine pattern, and a restorer would print it.
        """
        found, own, facts = [], [], []
        for scale in range(self.scales):
            if scale:
                x, y = halve_whole(x), halve_whole(y)
            lx, ly = (mix_channels(image, YIQ[:1]) for image in (x, y))
            maps, (contrast, weight), shift = _light(lx, ly, hold)
            if scale:
                maps.append(_colour(mix_channels(x, YIQ[1:]), mix_channels(y, YIQ[1:]), weight, shift))
            found.append(_pool(maps, weight))
            own.append(_busy(contrast))
            facts.append(_busy(weight))
        return torch.cat(found, 1), torch.cat(own, 1), torch.cat(facts, 1)


def halve_whole(x: Tensor) -> Tensor:
    """2x2 means; a side of one pixel stays, an odd one repeats its last line."""
    rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
    if rows or columns:
        x = F.pad(x, (0, columns, 0, rows), mode="replicate")
    return halve(x)


def _light(x: Tensor, y: Tensor, hold: bool) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Maps of two luminances, (N, 1, h, w) each, contrast of x and of y, and the squared difference of their means."""
    mx, my = smooth(x), smooth(y)
    bx, by = x - mx, y - my
    ey = smooth(by * by)
    ex, cross = smooth(torch.cat([bx * bx, bx * by], 1)).split(1, 1)
    total = ex + ey
    apart = torch.sub(total, cross, alpha=2)
    change = ratio(ex - ey, total, _QUIET)
    lost, gained = change.clamp_max(0), change.clamp_min(0)
    masked = ratio(apart, torch.add(apart, ey, alpha=2), _QUIET / 4)
    sparser = torch.sub(*_spread(torch.cat([y, x.detach() if hold else x], 1)).split(1, 1)).clamp_min(0)
    maps = [ratio(apart, total, _QUIET), lost * lost, gained * gained, masked, sparser * sparser]
    return maps, [root_lifted(e, _FAINT) for e in (ex, ey)], (mx - my).square()


def _spread(light: Tensor) -> Tensor:
    """How evenly steps between neighbours are spread, near 1, or gathered in few of them, near 0, (N, C, h, w).

    Pixelation, blocks and jagged edges gather them, wherever they lie.
    """
    rows, columns = F.pad(light, (0, 0, 0, 1), mode="replicate"), F.pad(light, (0, 1, 0, 0), mode="replicate")
    steps = rows.diff(dim=-2).abs() + columns.diff(dim=-1).abs()
    mean, square = smooth(torch.cat([steps, steps * steps], 1)).chunk(2, 1)
    return ratio(mean * mean, square, _FAINT)


def _colour(x: Tensor, y: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """Difference of colours (N, 2, h, w) and of mean luminance, where the reference does not mask it."""
    apart = torch.add(shift, (x - y).square().sum(1, keepdim=True), alpha=4)
    return ratio(apart, torch.addcmul(apart, weight, weight), _PLAIN)


def _busy(contrast: Tensor) -> Tensor:
    """Logarithms of mean contrast, and of the root of the mean square, (N, 2)."""
    return torch.cat([contrast.mean((2, 3)), contrast.square().mean((2, 3)).sqrt()], 1).log()


class _Moments(torch.autograd.Function):
    """Of maps (N, 1, h, w): means, means by constant weights that sum to 1, and mean squares, (N, maps) each."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(weight, *maps)
        flat, w = [m.flatten(1) for m in maps], weight.flatten(1)
        means = torch.stack([m.mean(1) for m in flat], 1)
        weighted = torch.stack([vecdot(m, w) for m in flat], 1)
        return means, weighted, torch.stack([vecdot(m, m) for m in flat], 1) / w.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        count = weight[0].numel()
        first, second, third = (g[:, :, None, None, None] for g in grads)
        found = [
            torch.addcmul(weight * second[:, i], m, third[:, i] * (2 / count)) + first[:, i] / count
            for i, m in enumerate(maps)
        ]
        return None, *found


def _pool(maps: list[Tensor], weight: Tensor) -> Tensor:
    """Distances and weights, (N, 1, h, w) each, to (N, 3 x maps)."""
    shares = (weight / weight.sum((2, 3), keepdim=True)).detach()
    mean, weighted, square = _Moments.apply(shares, *maps)
    return torch.cat([mean, weighted, root_above((square - mean.square()).clamp_min(0), _FLAT)], 1)
