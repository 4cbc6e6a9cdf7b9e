"""IW-SSIM: contrast and structure over a Laplacian pyramid, weighted by local information content.

Wang, Li: "Information Content Weighting for Perceptual Image Quality Assessment", IEEE TIP 2011.
Original: https://ece.uwaterloo.ca/~z70wang/research/iwssim/; numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: the statistics of the reference
are a float64 eigenproblem whose empty directions are left out, where the original fails on
references without content; flat windows are those below a fixed variance, not one of the precision;
and the slopes of the fractional powers and of the gain against an almost flat reference are bounded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import PIQ, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import (
    YIQ,
    blur,
    bounded_power,
    gaussian,
    mix_channels,
    similarity,
    slide,
    soften,
    weighted_mean,
)
from perceptloss.networks.windows import SCALE_WEIGHTS, ssim_maps, window_moments

__all__ = ["ENTRIES", "IWSSIM", "information", "iw_ssim", "pyramid"]

_LEVELS = len(SCALE_WEIGHTS)
_TAPS, _BLOCK = 11, 3  # windows of the similarity and of the information
_BINOMIAL = tuple(math.sqrt(2) * k / 16 for k in (1, 4, 6, 4, 1))  # doubles the values at every step down
_C1 = 0.01**2
_NOISE = 0.4 / 255**2  # variance of the visual noise
_FLAT = 1e-8 / 255**2  # variance of a window, or of a direction, below which there is no content
_QUIET = 0.05 / 255  # deviation of a reference's window, below which the gradient of the gain fades
_RANK = 1e-12  # of the largest eigenvalue
_FLOOR = 1e-3  # of a scale's similarity, below which the slope of its power is held


def _shrink(x: Tensor) -> Tensor:
    x = slide(F.pad(x, (2, 2, 0, 0), mode="reflect"), _BINOMIAL, -1)[..., ::2]
    return slide(F.pad(x, (0, 0, 2, 2), mode="reflect"), _BINOMIAL, -2)[..., ::2, :]


def _grow(x: Tensor, height: int, width: int) -> Tensor:
    """Zeros between the samples, smoothed: (N, 1, h, w) to (N, 1, H, W)."""
    x = torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)
    x = slide(F.pad(x, (2, 2, 0, 0), mode="reflect"), _BINOMIAL, -1)[..., :width]
    x = torch.stack([x, torch.zeros_like(x)], -2).flatten(-3, -2)
    return slide(F.pad(x, (0, 0, 2, 2), mode="reflect"), _BINOMIAL, -2)[..., :height, :]


def pyramid(x: Tensor) -> list[Tensor]:
    """Four Laplacian bands, fine to coarse, and the low-pass rest; a constant goes to the rest alone, times 16."""
    bands = []
    for _ in range(_LEVELS - 1):
        low = _shrink(x)
        bands.append(x - _grow(low, x.shape[-2], x.shape[-1]))
        x = low
    return [*bands, x]


def _enlarge(x: Tensor) -> Tensor:
    """Twice the size, bilinear, with borders extrapolated, as the published code does it."""
    x = F.interpolate(x, (4 * x.shape[-2] - 3, 4 * x.shape[-1] - 3), mode="bilinear", align_corners=False)
    x = torch.cat([2 * x[..., :1, :] - x[..., 1:2, :], x, 2 * x[..., -1:, :] - x[..., -2:-1, :]], -2)
    x = torch.cat([2 * x[..., :1] - x[..., 1:2], x, 2 * x[..., -1:] - x[..., -2:-1]], -1)
    return x[..., ::2, ::2]


@torch.no_grad()
def _scene(y: Tensor, parent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gaussian scale mixture of a reference band.

    Args:
        y: Band, (N, 1, H, W).
        parent: The next coarser band; None for the coarsest.

    Returns:
        Local energy, (N, 1, H - 2, W - 2), and eigenvalues of the neighbourhood's covariance, (N, 9 or 10).
    """
    height, width = y.shape[-2] - _BLOCK + 1, y.shape[-1] - _BLOCK + 1
    near = [y[:, 0, i : i + height, j : j + width] for i in range(_BLOCK) for j in range(_BLOCK)]
    if parent is not None:
        near.append(_enlarge(parent)[:, 0, 1 : 1 + height, 1 : 1 + width])
    vectors = torch.stack(near, 1).flatten(2).double()
    covariance = vectors @ vectors.mT / vectors.shape[2]  # in float64, which no TF32 rounds
    values, axes = torch.linalg.eigh(covariance)
    positive = values.relu()
    total = positive.sum(1, keepdim=True)
    values = positive * values.sum(1, keepdim=True) / torch.where(total > 0, total, 1)
    is_full = values > (_RANK * values[:, -1:]).clamp_min(_FLAT)
    inverse = torch.where(is_full, 1 / torch.where(is_full, values, 1), 0) / len(near)
    energy = ((axes * inverse.sqrt()[:, None]).mT @ vectors).square_().sum(1)
    return energy.unflatten(1, (1, height, width)).to(y.dtype), values.to(y.dtype)


def information(x: Tensor, y: Tensor, parent: Tensor | None) -> Tensor:
    """Bits that the windows of a pair of bands share with the scene, where the SSIM window fits.

    Args:
        x: Band of the judged images, (N, 1, H, W).
        y: Band of the references, same shape.
        parent: The reference's next coarser band, if it counts.

    Returns:
        Weights, 0 or more, (N, 1, H - 10, W - 10).
    """
    margin = (_TAPS - _BLOCK) // 2
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    energy, values = _scene(y, parent)
    xx, yy, xy = window_moments(x[inside], y[inside], (1 / _BLOCK,) * _BLOCK)
    seen, shown = yy >= _FLAT, xx >= _FLAT
    yy = torch.where(seen, yy, 1)
    gain = torch.where(seen, soften(xy / yy, yy.sqrt(), _QUIET), 0)
    rest = torch.where(shown, xx - gain * xy, 0) / _NOISE
    signal = (1 + torch.where(shown, gain, 0).square() + rest) * energy[inside] / _NOISE
    bits = torch.zeros_like(signal)
    for value in values.unbind(1):
        bits = bits + torch.log2(1 + rest + signal * value[:, None, None, None])
    return bits


def iw_ssim(x: Tensor, y: Tensor) -> Tensor:
    r"""IW-SSIM, in [0, 1]; 1 is best: \prod_k |s_k|^{w_k} over five bands of a Laplacian pyramid.

    s_k is the mean contrast-structure term weighted by information, and the plain mean of SSIM in
    the last band.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 161.
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    x, y = (mix_channels(image, YIQ[:1]) for image in (x, y))
    means = [image.detach().mean((2, 3), keepdim=True) for image in (x, y)]
    bands_x, bands_y = (pyramid(image - mean) for image, mean in zip((x, y), means, strict=True))
    eps = torch.finfo(x.dtype).eps
    score = torch.ones_like(x[:, 0, 0, 0])
    for level, (a, b, power) in enumerate(zip(bands_x, bands_y, SCALE_WEIGHTS, strict=True)):
        _, structure = ssim_maps(a, b)
        if level == _LEVELS - 1:
            light_x, light_y = (
                blur(band, gaussian(_TAPS, 1.5)) + 2**level * mean for band, mean in zip((a, b), means, strict=True)
            )
            s = (similarity(light_x, light_y, _C1) * structure).mean((1, 2, 3))
        else:
            weight = information(a, b, bands_y[level + 1] if level < _LEVELS - 2 else None)
            s = weighted_mean(structure, weight, eps)
        score = score * bounded_power(s.abs(), power / sum(SCALE_WEIGHTS), _FLOOR)
    return score


class IWSSIM(Critic):
    """Information content weighted structural similarity in [0, 1]; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("iw-ssim")
        >>> x = torch.rand(1, 3, 176, 176, requires_grad=True)
        >>> (1 - critic(x, x.detach() ** 2)).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return iw_ssim(x, given(y))


_CARD = similarity_card(
    name="iw-ssim",
    summary="Structural similarity over a Laplacian pyramid, weighted by the information in each place.",
    min_size=(_TAPS - 1) * 2 ** (_LEVELS - 1) + 1,
    tiling="never",
    paper="Wang and Li, Information Content Weighting for Perceptual Image Quality Assessment, IEEE TIP 2011",
    source=f"{PIQ}; https://ece.uwaterloo.ca/~z70wang/research/iwssim/",
    notes=(
        "luminance only",
        "an anticorrelated band counts as a correlated one: the negative of an image may score high, so start with "
        "a pixel loss",
        "the weights come from both images and are differentiated, so a restorer may move weight to easy places",
        "quadratic near the optimum, so it stalls late in training",
        "not symmetric: the reference comes second",
    ),
)

ENTRIES = {"iw-ssim": Entry(_CARD, IWSSIM)}
