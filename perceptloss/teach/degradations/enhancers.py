"""Simple ways to enhance underwater pictures, from none to far too much, as versions that critics are to rank.

Each follows the idea of a published method, not its details: what matters is that they differ as real methods do, in
colour, contrast, haze and noise. They are no degradations: what they give may be better or worse than what they got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from kornia.enhance import equalize_clahe
from torch import Tensor

from perceptloss.teach.degradations.operations import from_lab, gaussian_blur, luma, to_lab

__all__ = ["ENHANCERS", "enhanced"]

_TINY = 1e-3
_GAINS = (0.4, 2.5)  # of a channel, least and most
_ENDS = (0.01, 0.99)  # percentiles that stretching takes to 0 and 1
_EXPOSED = 0.45  # mean luminance that exposure aims at
_WINDOW = 15  # of dark channels, pixels
_CLIP, _TILES = 3.0, (4, 4)  # of local equalisation

Enhancer = Callable[[Tensor, float], Tensor]


def _balanced(x: Tensor, strength: float) -> Tensor:
    """Red is lent from green where there is some (Ancuti et al., TIP 2018), then grey world."""
    red, green, _ = x.split(1, 1)
    lent = (green.mean((2, 3), keepdim=True) - red.mean((2, 3), keepdim=True)).clamp_min(0) * (1 - red) * green
    x = torch.cat([red + strength * lent, x[:, 1:]], 1)
    mean = x.mean((2, 3), keepdim=True)
    gains = (mean.mean(1, keepdim=True) / (mean + _TINY)).clamp(*_GAINS)
    return x * gains**strength


def _stretched(x: Tensor, strength: float) -> Tensor:
    """Every channel to the full range (Iqbal et al., 2007)."""
    low, high = x.flatten(2).quantile(x.new_tensor(_ENDS), dim=2)[..., None, None]
    return x + strength * ((x - low) / (high - low).clamp_min(0.05) - x)


def _exposed(x: Tensor, strength: float) -> Tensor:
    """A power that brings the mean luminance to the middle (the step that retinex methods end with)."""
    mean = luma(x).mean((2, 3), keepdim=True).clamp(0.05, 0.9)
    power = (torch.tensor(_EXPOSED).log() / mean.log()).clamp(0.4, 1.8)
    return x.clamp_min(0) ** power.lerp(torch.ones_like(power), 1 - strength)


def _equalised(x: Tensor, strength: float) -> Tensor:
    """Lightness equalised in tiles (CLAHE, Zuiderveld 1994)."""
    lab = to_lab(x)
    light = equalize_clahe(lab[:, :1].clamp(0, 100) / 100, _CLIP, _TILES)
    return from_lab(torch.cat([lab[:, :1] + strength * (100 * light - lab[:, :1]), lab[:, 1:]], 1))


def _dehazed(x: Tensor, strength: float, channels: slice = slice(0, 3)) -> Tensor:
    """The veil that the dark channel tells is taken away (He, Sun, Tang, CVPR 2009)."""
    seen = x[:, channels]
    dark = -F.max_pool2d(-seen.amin(1, keepdim=True), _WINDOW, 1, _WINDOW // 2)
    top = dark.flatten(1).argsort(1, descending=True)[:, : max(1, dark[0].numel() // 500)]
    veil = x.flatten(2).gather(2, top[:, None].expand(-1, 3, -1)).mean(2)[..., None, None]
    thick = -F.max_pool2d(-(seen / (veil[:, channels] + _TINY)).amin(1, keepdim=True), _WINDOW, 1, _WINDOW // 2)
    through = 1 - min(0.9 * strength, 1.0) * gaussian_blur(thick, _WINDOW / 3).clamp(0, 1)
    return (x - veil) / through.clamp_min(0.2) + veil


def _dehazed_water(x: Tensor, strength: float) -> Tensor:
    """The same, told by green and blue alone (Drews et al., ICCVW 2013)."""
    return _dehazed(x, strength, slice(1, 3))


def _sharpened(x: Tensor, strength: float) -> Tensor:
    return x + strength * (x - gaussian_blur(x, 1.5))


def _saturated(x: Tensor, strength: float) -> Tensor:
    return luma(x) + (1 + strength) * (x - luma(x))


def _fused(x: Tensor, strength: float) -> Tensor:
    """Balanced; the mean of a sharpened, an equalised and an exposed version (after Ancuti et al., CVPR 2012)."""
    balanced = _balanced(x, strength).clamp(0, 1)
    versions = [of(balanced, strength) for of in (_sharpened, _equalised, _exposed)]
    return torch.stack(versions).mean(0)


def _corrected(x: Tensor, strength: float) -> Tensor:
    """Balanced, then stretched (the two steps of Fu et al., ISPACS 2017)."""
    return _stretched(_balanced(x, strength).clamp(0, 1), strength)


def _retinex(x: Tensor, strength: float) -> Tensor:
    """Evenly lit: illumination flattened by a power, colour balanced (the idea of Fu et al., ICIP 2014)."""
    light = gaussian_blur(luma(x), 12.0).clamp_min(0.03)
    return _balanced((x / light * light ** (1 - 0.6 * strength)).clamp(0, 1), 0.7 * strength)


ENHANCERS: Mapping[str, Enhancer] = {
    "balanced": _balanced,
    "stretched": _stretched,
    "exposed": _exposed,
    "equalised": _equalised,
    "dehazed": _dehazed,
    "dehazed water": _dehazed_water,
    "saturated": _saturated,
    "fused": _fused,
    "corrected": _corrected,
    "retinex": _retinex,
}
"""Functions of images (N, 3, H, W) in [0, 1] and a strength: 0 changes nothing, 1 is the method, 2 too much."""


@torch.no_grad()
def enhanced(x: Tensor, name: str, strength: float) -> Tensor:
    """Images (N, 3, H, W), RGB in [0, 1], enhanced, in [0, 1]."""
    return ENHANCERS[name](x, strength).clamp(0, 1)
