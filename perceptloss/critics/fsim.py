"""FSIM and FSIMc: agreement of phase congruency and gradient magnitude, weighted by the former.

Zhang, Zhang, Mou, Zhang: "FSIM: A Feature Similarity Index for Image Quality Assessment", IEEE
TIP 2011; phase congruency after Kovesi, "Image Features from Phase Congruency", Videre 1999.
Original: https://www4.comp.polyu.edu.hk/~cslzhang/IQA/FSIM/FSIM.htm; numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: the noise threshold in closed
form, the mean removed before the transform (the filters drop it; rounding does not), and gradients
that are finite on flat areas, where the original gives NaN.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import FLAT, PIQ, Card, similarity_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import (
    SCHARR,
    YIQ,
    angular_fans,
    chroma_similarity,
    edge_similarity,
    frequencies,
    log_gabor,
    mix_channels,
    root,
    shrink_factor,
    similarity,
    soften,
)
from perceptloss.networks.weighed import WeighedCritic

__all__ = ["ENTRIES", "FSIM", "log_gabor_bank", "phase_congruency", "similarity_and_weight"]

_SCALES, _ORIENTATIONS = 4, 4
_SHORTEST, _FACTOR, _BANDWIDTH = 6, 2, 0.55  # wavelength of the finest filter in pixels, step, sigma / centre
_SPREAD = math.pi / (_ORIENTATIONS * 1.2)
_DEVIATIONS = 2.0  # of the noise energy beyond its mean, at the threshold
_T_PC, _T_EDGE, _T_CHROMA, _CHROMA_POWER = 0.85, 160.0, 200.0, 0.03
_QUIET = 1.0  # summed filter response, in grey levels, below which the gradient fades (natural images: 2 and more)
_POWER_FLOOR = 1e-6


@lru_cache(maxsize=4)
@torch.inference_mode(False)
@torch.no_grad()
def log_gabor_bank(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Log-Gabor filters in FFT order, and the noise threshold per unit of median response.

    Args:
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        dtype: Of the result; computed in float64.
        device: Of the result.

    Returns:
        Filters, (orientations, scales, H, W), and thresholds, (orientations, 1, 1).
    """
    v, h = frequencies(height, width)
    radius = (v.square() + h.square()).sqrt()
    radius[0, 0] = 1
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    bands = [log_gabor(radius, _SHORTEST * _FACTOR**scale, _BANDWIDTH) * low_pass for scale in range(_SCALES)]
    theta = torch.atan2(-h.expand_as(radius), v.expand_as(radius))
    filters = angular_fans(theta, _ORIENTATIONS, _SPREAD)[:, None] * torch.stack(bands)

    # Rayleigh noise: its power from the median of the finest responses, its energy through all filters
    gain = (torch.fft.ifft2(filters).real * math.sqrt(height * width)).sum(1).square().sum((1, 2))
    tau = (gain / filters[:, 0].square().sum((1, 2)) / math.log(2)).sqrt()
    threshold = tau * (math.sqrt(math.pi / 2) + _DEVIATIONS * math.sqrt(2 - math.pi / 2)) / 1.7
    return filters.to(device, dtype), threshold[:, None, None].to(device, dtype)


@torch.no_grad()
def _median_place(x: Tensor) -> Tensor:
    """Where the finest responses have their median, (N, orientations, 1), of maps (N, 1, H, W) in float64."""
    filters = log_gabor_bank(*x.shape[-2:], x.dtype, x.device)[0][:, 0]
    response = torch.fft.ifft2(torch.fft.fft2(x - x.mean((2, 3), keepdim=True)) * filters)
    return response.abs().flatten(2).median(2, keepdim=True).indices


def phase_congruency(x: Tensor, place: Tensor | None = None) -> Tensor:
    """Phase congruency, in [0, 1]: (N, 1, H, W), values of 0-255, to the same shape.

    Args:
        x: Maps.
        place: Pixel of the median response of each orientation, (N, orientations, 1), if it is known better.
    """
    filters, threshold = log_gabor_bank(*x.shape[-2:], x.dtype, x.device)
    eps = torch.finfo(x.dtype).eps
    spectrum = torch.fft.fft2(x - x.detach().mean((2, 3), keepdim=True))
    response = torch.fft.ifft2(spectrum[:, :, None] * filters)  # (N, orientations, scales, H, W)
    even, odd = response.real, response.imag
    amplitude = root(even.square() + odd.square())
    sum_even, sum_odd = even.sum(2), odd.sum(2)
    squares = sum_even.square() + sum_odd.square()
    off_phase = (even * sum_odd[:, :, None] - odd * sum_even[:, :, None]).abs().sum(2)
    finest = amplitude[:, :, 0].flatten(2)
    place = finest.median(2, keepdim=True).indices if place is None else place
    noise = finest.gather(2, place)[..., None] * threshold
    energy = ((squares - off_phase) / (root(squares) + eps) - noise).relu().sum(1, keepdim=True)
    total = amplitude.sum((1, 2))[:, None]
    return soften((energy + eps) / (total + eps), total, _QUIET)


def similarity_and_weight(x: Tensor, y: Tensor, chromatic: bool) -> tuple[Tensor, Tensor]:
    """Similarities and phase congruency, (N, 1, h, w) each, of images (N, 3, H, W) in [0, 1]; see `FSIM`."""
    factor = shrink_factor(x)
    rows = YIQ if chromatic else YIQ[:1]

    def mixed(image: Tensor) -> Tensor:
        return mix_channels(F.avg_pool2d(255 * image, factor), rows)

    place = None
    if torch.is_grad_enabled() and x.requires_grad and x.dtype != torch.float64:
        # the slope through a median goes to one pixel, and is much of the whole: rounding would pick another
        place = _median_place(mixed(x.detach().double())[:, :1])
    x, y = mixed(x), mixed(y)
    pc_x, pc_y = phase_congruency(x[:, :1], place), phase_congruency(y[:, :1])
    similar = edge_similarity(x[:, :1], y[:, :1], SCHARR, _T_EDGE) * similarity(pc_x, pc_y, _T_PC)
    if chromatic:
        similar = similar * chroma_similarity(x[:, 1:], y[:, 1:], _T_CHROMA, _CHROMA_POWER, _POWER_FLOOR)
    return similar, torch.where(pc_x > pc_y, pc_x, pc_y)


class FSIM(WeighedCritic):
    """Feature similarity in [0, 1]; higher is better, 1 for equal images.

    Args:
        card: What it is.
        chromatic: FSIMc, which compares I and Q too.

    Example:
        >>> critic = create_critic("fsim")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    is_stabilised = False

    def __init__(self, card: Card, *, chromatic: bool = False) -> None:
        super().__init__(card)
        self.chromatic = chromatic

    def compared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return similarity_and_weight(x, y, self.chromatic)


_card = partial(
    similarity_card,
    min_size=2,
    tiling="never",
    paper="Zhang et al., FSIM: A Feature Similarity Index for Image Quality Assessment, IEEE TIP 2011",
    source=f"{PIQ}; https://www4.comp.polyu.edu.hk/~cslzhang/IQA/FSIM/FSIM.htm",
)
_NOTES = (
    "the weights come from both images and are differentiated, so a restorer may move weight to easy places",
    "the largest filter has a wavelength of 48 pixels: use crops of 96 or more",
    "images are averaged by round(short side / 256) first",
    FLAT,
)
_FSIM = _card(name="fsim", summary="Similarity of phase congruency and gradients of the luminance.", notes=_NOTES)
_FSIMC = _card(name="fsimc", summary="FSIM with similarity of the chroma.", notes=_NOTES)

ENTRIES = {"fsim": Entry(_FSIM, FSIM), "fsimc": Entry(_FSIMC, partial(FSIM, chromatic=True))}
