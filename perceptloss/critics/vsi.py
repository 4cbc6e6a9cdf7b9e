"""VSI: agreement of saliency, gradient and chroma, weighted by saliency.

Zhang, Shen, Li: "VSI: A Visual Saliency-Induced Index for Perceptual Image Quality Assessment",
IEEE TIP 2014; saliency (SDSP) from Zhang, Gu, Li, "SDSP: A Novel Saliency Detection Method by
Combining Simple Priors", ICIP 2013. Original: https://github.com/LinZhang0228 (VSI Matlab code);
numbers follow https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: colours outside
[0, 1] stay on the linear branch of the colour curves instead of NaN, the mean is removed before
resampling and filtering (both keep it; rounding does not), and gradients are finite on flat areas.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import PIQ, similarity_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import (
    SCHARR,
    bounded_power,
    edge_similarity,
    frequencies,
    mix_channels,
    root,
    shrink_factor,
    similarity,
    soften,
)
from perceptloss.networks.pointwise import power_above
from perceptloss.networks.weighed import WeighedCritic

__all__ = ["ENTRIES", "LMN", "VSI", "lab", "saliency", "similarity_and_weight"]

LMN = ((0.06, 0.63, 0.27), (0.30, 0.04, -0.35), (0.34, -0.6, 0.17))
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.9642119944211994, 1.0, 0.8251882845188288)  # D50, as in the published code
_OMEGA, _SIGMA_F, _SIGMA_D, _SIGMA_C = 0.021, 1.34, 145.0, 0.001
_SIDE = 256  # of the square on which saliency is computed
_C_SALIENCY, _C_EDGE, _C_CHROMA = 1.27, 386.0, 130.0
_EDGE_POWER, _CHROMA_POWER, _POWER_FLOOR = 0.4, 0.02, 1e-6
_FAR = 80.0  # exponent beyond which the exponential is nothing beside 1, and slow
_RANGE_FLOOR = 1.0  # extent of Lab, or of raw saliency, below which the gradient of its normalisation fades


@lru_cache(maxsize=4)
@torch.inference_mode(False)
@torch.no_grad()
def _priors(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Log-Gabor filter in FFT order, twice, (256, 256, 2), and centre prior, (256, 256)."""
    v, h = frequencies(_SIDE, _SIDE)
    radius = (v.square() + h.square()).sqrt()
    inside = radius <= 0.5
    inside[0, 0] = False
    safe = torch.where(inside, radius, 1)
    band = torch.where(inside, torch.exp(-((safe / _OMEGA).log() ** 2) / (2 * _SIGMA_F**2)), 0)
    place = torch.arange(_SIDE, dtype=torch.float64, device="cpu") - _SIDE / 2 + 1
    centre = torch.exp(-(place[:, None].square() + place.square()) / _SIGMA_D**2)
    twice = band[..., None].expand(-1, -1, 2).contiguous()
    return twice.to(device, dtype), centre.to(device, dtype)


def lab(x: Tensor) -> Tensor:
    """CIE Lab (D50) of sRGB images, (N, 3, H, W); also of values outside [0, 1]."""
    linear = power_above(x, 0.04045, 2.4, (1 / 1.055, 0.055 / 1.055), (1 / 12.92, 0))
    xyz = mix_channels(linear, [[w / white for w in row] for row, white in zip(_XYZ, _WHITE, strict=True)])
    fx, fy, fz = power_above(xyz, 0.008856, 1 / 3, (1, 0), (903.3 / 116, 16 / 116)).unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def _stretch(v: Tensor) -> Tensor:
    """Each map to [0, 1] by its own extremes; flat maps to 0."""
    low, high = v.amin((2, 3), keepdim=True), v.amax((2, 3), keepdim=True)
    extent = high - low
    return soften((v - low) / (extent + torch.finfo(v.dtype).eps), extent, _RANGE_FLOOR)


def _resize_square(x: Tensor) -> Tensor:
    mean = x.detach().mean((2, 3), keepdim=True)
    return F.interpolate(x - mean, (_SIDE, _SIDE), mode="bilinear", align_corners=False) + mean


def saliency(x: Tensor) -> Tensor:
    """SDSP saliency: band-passed Lab x closeness to the centre x warmth of colour.

    Args:
        x: Images, (N, 3, H, W), RGB in [0, 1].

    Returns:
        Saliency, (N, 1, H, W), in [0, 1]; all 0 for a flat image.
    """
    band, centre = _priors(x.dtype, x.device)
    colours = lab(_resize_square(x))
    centred = colours - colours.detach().mean((2, 3), keepdim=True)
    # a real, even filter: one complex transform takes L and a, another b
    packed = torch.complex(centred[:, ::2], F.pad(centred[:, 1:2], (0, 0, 0, 0, 0, 1)))
    spectrum = torch.view_as_real(torch.fft.fft2(packed)) * band
    passed = torch.view_as_real(torch.fft.ifft2(torch.view_as_complex(spectrum)))
    detail = root(passed[..., 0].square().add(passed[..., 1].square()).sum(1, keepdim=True))
    distance = _stretch(colours[:, 1:]).square().sum(1, keepdim=True) / _SIGMA_C**2
    warmth = 1 - torch.exp(-distance.clamp_max(_FAR))
    raw = F.interpolate(detail * centre * warmth, x.shape[-2:], mode="bilinear", align_corners=True)
    return _stretch(raw)


def similarity_and_weight(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities and saliency, (N, 1, h, w) each, of images (N, 3, H, W) in [0, 1]."""
    factor = shrink_factor(x)
    pads = (factor // 2, (factor - 1) // 2) * 2

    def shrunk(maps: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(maps, pads, mode="replicate"), factor) if factor > 1 else maps

    seen_x, seen_y = shrunk(saliency(x)), shrunk(saliency(y))
    x, y = (shrunk(mix_channels(255 * image, LMN)) for image in (x, y))
    edges = edge_similarity(x[:, :1], y[:, :1], SCHARR, _C_EDGE)
    chroma = similarity(x[:, 1:2], y[:, 1:2], _C_CHROMA) * similarity(x[:, 2:], y[:, 2:], _C_CHROMA)
    # opposite colours: the real part of a negative number's small power
    turn = 1 - (1 - math.cos(math.pi * _CHROMA_POWER)) * (chroma < 0).to(chroma.dtype)
    colour = bounded_power(chroma.abs(), _CHROMA_POWER, _POWER_FLOOR) * turn
    similar = similarity(seen_x, seen_y, _C_SALIENCY) * bounded_power(edges, _EDGE_POWER, _POWER_FLOOR) * colour
    return similar, torch.maximum(seen_x, seen_y)


class VSI(WeighedCritic):
    """Visual saliency-induced index in [0, 1]; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("vsi")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def compared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return similarity_and_weight(x, y)


_CARD = similarity_card(
    name="vsi",
    summary="Similarity of saliency, gradients and chroma, weighted by saliency.",
    min_size=2,
    tiling="never",
    paper="Zhang et al., VSI: A Visual Saliency-Induced Index for Perceptual Image Quality Assessment, IEEE TIP 2014",
    source=f"{PIQ}; VSI Matlab code of Lin Zhang, Tongji University",
    notes=(
        "saliency prefers the centre and weighs both images: a restorer may move weight to easy places",
        "saliency is computed on a 256x256 square, so crops and whole images are judged differently",
        "the slope through the extremes that normalise saliency and colour is singular where they meet: bounded there",
        "ports that compute saliency at full size, whose values are quoted as MATLAB's, differ by up to 0.0123",
        "two flat images score 1 whatever their levels: no saliency, no weight, no gradient",
        "the score of natural pairs lies between 0.8 and 1",
    ),
)

ENTRIES = {"vsi": Entry(_CARD, VSI)}
