"""The 468 features of a block: statistics of contrast, gradients, colours and log-Gabor responses at two scales.

Weibull distributions are fitted by the greatest likelihood, which is found exactly; the shapes of generalised Gaussians
are those of `perceptloss.networks.nss`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.networks.functional import (
    angular_fans,
    blur,
    frequencies,
    gaussian,
    log_gabor,
    mix_channels,
    root,
    slide,
    soften,
)
from perceptloss.networks.nss import fit, fits, offset

__all__ = ["COUNT", "block_features", "derivatives", "halved", "responses", "weibull"]

COUNT: Final = 468
_OPPONENT = ((0.3, 0.04, -0.35), (0.34, -0.6, 0.17), (0.06, 0.63, 0.27))
_INTENSITY = ((3**-0.5, 3**-0.5, 3**-0.5), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))
_SIGMA, _WAVELENGTH = 1.66, 2.4  # of the derivatives and of the finest log-Gabor filter, at full size
_DARK, _LOG = 1.0, 1e-5  # grey level under which the slope of the logarithm fades; what is added under it
_FLAT = 0.01  # added to gradients, in grey levels: where nothing varies the original fits rounding noise
_QUIET = 1e-2
_SHAPES = (0.05, 50.0)  # of Weibull distributions
_CAP = 10_000.0


def weibull(x: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of the likeliest Weibull distribution of positive values, (..., n) to two (...)."""
    scale = x.mean(-1, keepdim=True)
    logs = (x / scale).log()

    def excess(shape: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the likelihood in the shape, up to a factor, and its own slope."""
        weight = (shape[..., None] * logs).softmax(-1)
        first, second = (weight * logs).sum(-1), (weight * logs.square()).sum(-1)
        return first - 1 / shape - logs.mean(-1), second - first.square() + 1 / shape.square()

    with torch.no_grad():
        shape = (1.2 / logs.std(-1).clamp_min(1.2 / _SHAPES[1])).clamp(*_SHAPES)
        for _ in range(12):
            value, slope = excess(shape)
            shape = (shape - value / slope).clamp(shape / 2, shape * 2).clamp(*_SHAPES)
    value, slope = excess(shape)
    inside = (shape > _SHAPES[0]) & (shape < _SHAPES[1])
    shape = torch.where(inside, shape - value / slope.detach(), shape)  # one step, for the slope of the root
    size = ((shape[..., None] * logs).logsumexp(-1) - math.log(x.shape[-1])) / shape
    return shape, scale[..., 0] * size.exp()


def derivatives(maps: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Across and down by derivatives of a Gaussian of height 1, zeros outside: (N, C, H, W) to two of that shape."""
    half = math.ceil(3 * sigma)
    window = tuple(math.exp(-(i**2) / (2 * sigma**2)) for i in range(-half, half + 1))
    slope = tuple(-i * w for i, w in zip(range(-half, half + 1), window, strict=True))
    padded = F.pad(maps, (half,) * 4)
    return slide(slide(padded, slope, -1), window, -2), slide(slide(padded, window, -1), slope, -2)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
@torch.no_grad()
def _bank(height: int, width: int, wavelength: float) -> Tensor:
    """Log-Gabor filters of three wavelengths in four directions, (12, H, W), float64."""
    down, across = frequencies(height, width)
    radius = torch.hypot(down, across)
    radius[0, 0] = 1
    rings = torch.stack([log_gabor(radius, wavelength * 1.31**k, 0.55) for k in range(3)])
    fans = angular_fans(torch.atan2(-down, across), 4, math.pi / 4 / 1.10)
    return (rings[:, None] * fans).flatten(0, 1)


def responses(grey: Tensor, wavelength: float) -> Tensor:
    """Real and imaginary responses, one after the other, (N, 1, H, W) to (N, 24, H, W)."""
    bank = _bank(*grey.shape[-2:], wavelength).to(grey)
    return rearrange(torch.view_as_real(torch.fft.ifft2(torch.fft.fft2(grey) * bank)), "n c h w p -> n (c p) h w")


def halved(image: Tensor) -> Tensor:
    """Every second pixel of a blur of six taps, which lies half a pixel on; the ends repeat."""
    return blur(F.pad(image, (2, 3, 2, 3), mode="replicate"), gaussian(6, 0.9))[..., ::2, ::2]


def _size(across: Tensor, down: Tensor) -> Tensor:
    return (across.square() + down.square() + _FLAT**2).sqrt()


def _normalised(grey: Tensor) -> Tensor:
    window = gaussian(5, 5 / 6)
    padded = F.pad(grey, (2,) * 4, mode="replicate")
    mean = blur(padded, window)
    away = grey - mean
    deviation = root((blur(padded.square(), window) - mean.square()).abs())
    return torch.where(away.abs() > 1e-9, away, 0) / (deviation + 1)


def _ordered(*features: Tensor) -> Tensor:
    """Features of maps, (N, blocks, maps) each, those of a map side by side: (N, blocks, maps * len(features))."""
    return torch.stack(features, -1).flatten(2)


def block_features(image: Tensor, block: int, *, table: bool = False) -> tuple[Tensor, Tensor]:
    """Features of every block at two scales, and in which blocks all are defined.

    Args:
        image: Levels of 0 to 255, (N, 3, H, W), float64, of sides that are multiples of `block`.
        block: Side of a block, even.
        table: See `perceptloss.networks.nss.shape_of`.

    Returns:
        (N, blocks, 468), block columns first, and (N, blocks).
    """
    opponent = mix_channels(image, _OPPONENT)
    found, defined = [], []
    for scale in (1, 2):
        if scale == 2:
            image, opponent = halved(image), halved(opponent)
        features, there = _of_scale(image, opponent, block // scale, scale, table=table)
        found.append(features)
        defined.append(there)
    return torch.cat(found, -1).clamp_max(_CAP), torch.stack(defined).all(0)


def _of_scale(image: Tensor, opponent: Tensor, side: int, scale: int, *, table: bool) -> tuple[Tensor, Tensor]:
    def cut(maps: Tensor) -> Tensor:
        return rearrange(maps, "n c (rows h) (columns w) -> n (columns rows) c h w", h=side, w=side)

    sigma = _SIGMA / scale**0.28
    grey = opponent[:, 2:]
    light = soften((image + _LOG).clamp_min(_LOG).log(), image.clamp_min(0), _DARK)
    colours = mix_channels(light - light.mean((2, 3), keepdim=True), _INTENSITY)
    slopes = derivatives(opponent, sigma)
    waves = responses(grey, _WAVELENGTH / scale**0.87)
    of_waves = derivatives(waves, sigma)
    signed = torch.cat([torch.stack(slopes, 2).flatten(1, 2), waves, torch.stack(of_waves, 2).flatten(1, 2)], 1)

    f = fits(cut(_normalised(grey))[:, :, 0], table=table)
    width = ((torch.lgamma(1 / f.alpha) - torch.lgamma(3 / f.alpha)) / 2).exp()
    left, right, mean = width * f.left, width * f.right, (f.right - f.left) * offset(f.alpha)
    contrast = [f.alpha[..., :1], (left + right)[..., :1] / 2]
    pairs = torch.stack([f.alpha, mean, left, right], -1)[..., 1:, :].flatten(-2)

    g = fit(cut(signed), _QUIET, table=table)
    even = ((torch.lgamma(1 / g.alpha) - torch.lgamma(3 / g.alpha)) / 2).exp() * (g.left + g.right) / 2
    blocks = cut(colours)
    levels = _ordered(blocks.mean((-2, -1)), blocks.var((-2, -1), correction=0))
    shape, size = weibull(cut(torch.cat([_size(*slopes), _size(*of_waves)], 1)).flatten(-2))
    sizes = _ordered(size, shape)
    parts = [*contrast, pairs, sizes[..., :6], levels, _ordered(g.alpha, even), sizes[..., 6:]]
    there = (f.has_left & f.has_right).all(-1) & (g.has_left & g.has_right).all(-1)
    return torch.cat(parts, -1), there
