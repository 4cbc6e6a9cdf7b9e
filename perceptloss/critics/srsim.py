"""SR-SIM and SR-SIMc: agreement of spectral residual saliency and gradients, weighted by the former.

Zhang, Li: "SR-SIM: A Fast and High Performance IQA Index Based on Spectral Residual", ICIP 2012;
saliency after Hou, Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007. Original:
https://sse.tongji.edu.cn/linzhang/IQA/SR-SIM/SR-SIM.htm; numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0) for single images. Ours: saliency is
normalised per image (piq takes the extremes of the batch), amplitudes below what float32 resolves
do not enter the logarithm, and gradients are finite on flat areas, where the original gives NaN.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import PIQ, Card, similarity_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import (
    SCHARR,
    YIQ,
    blur,
    chroma_similarity,
    edge_similarity,
    gaussian,
    imresize,
    mix_channels,
    root,
    shrink_factor,
    similarity,
    soften,
)
from perceptloss.networks.weighed import WeighedCritic

__all__ = ["ENTRIES", "SRSIM", "saliency", "similarity_and_weight"]

_SCALE = 0.25  # zoom at which saliency is computed
_SIGMA, _TAPS = 3.8, 10
_C_SALIENCY, _C_EDGE, _C_CHROMA = 0.4, 225.0, 200.0
_CHROMA_POWER, _POWER_FLOOR = 0.03, 1e-6
_SILENCE = 1e-2  # amplitude of a frequency, in summed grey levels: rounding in float32, not picture
_RANGE_FLOOR = 0.1  # extent of raw saliency times pixels, below which the gradient of its normalisation fades


def saliency(x: Tensor, taps: int = _TAPS) -> Tensor:
    """Energy of what stands out of the smoothed logarithmic spectrum, blurred.

    Args:
        x: Luminance, (N, 1, H, W), in 0-255.
        taps: Side of the Gaussian window.

    Returns:
        Saliency, same shape, in [0, 1] but for the overshoot of bicubic upsampling.
    """
    sides = math.ceil(x.shape[-2] * _SCALE), math.ceil(x.shape[-1] * _SCALE)
    mean = x.detach().mean((2, 3), keepdim=True)  # kept out of the sums, where rounding would spread it
    small = imresize(x - mean, sides, (_SCALE, _SCALE))
    spectrum = torch.fft.fft2(small)
    dc = torch.zeros_like(small)
    dc[..., 0, 0] = small.shape[-2] * small.shape[-1]
    spectrum = spectrum + dc * mean
    amplitude = root(spectrum.real.square() + spectrum.imag.square()).clamp_min(_SILENCE)
    trend = F.avg_pool2d(F.pad(amplitude.log(), (1, 1, 1, 1), mode="replicate"), 3, 1)
    residual = torch.fft.ifft2(spectrum * torch.exp(-trend))
    energy = residual.real.square() + residual.imag.square()
    window = gaussian(taps, _SIGMA)
    if taps % 2 == 0:  # Matlab centres an even window one pixel further
        window = (0.0, *window)
    energy = blur(F.pad(energy, (len(window) // 2,) * 4), window)
    low, high = energy.amin((2, 3), keepdim=True), energy.amax((2, 3), keepdim=True)
    extent = high - low
    spread = torch.where(extent > 0, extent, 1)
    normal = soften((energy - low) / spread, extent * energy[0].numel(), _RANGE_FLOOR)
    zooms = x.shape[-2] / sides[0], x.shape[-1] / sides[1]
    return imresize(normal, (x.shape[-2], x.shape[-1]), zooms)


def similarity_and_weight(x: Tensor, y: Tensor, chromatic: bool, taps: int) -> tuple[Tensor, Tensor]:
    """Similarities and saliency, (N, 1, h, w) each, of images (N, 3, H, W) in [0, 1]; see `SRSIM`."""
    factor = shrink_factor(x)
    pads = ((factor - 1) // 2, factor // 2) * 2
    rows = YIQ if chromatic else YIQ[:1]
    x, y = (mix_channels(F.avg_pool2d(F.pad(255 * image, pads), factor), rows) for image in (x, y))
    salient_x, salient_y = saliency(x[:, :1], taps), saliency(y[:, :1], taps)
    edges = edge_similarity(x[:, :1], y[:, :1], SCHARR, _C_EDGE)
    similar = similarity(salient_x, salient_y, _C_SALIENCY) * edges.sqrt()
    if chromatic:
        similar = similar * chroma_similarity(x[:, 1:], y[:, 1:], _C_CHROMA, _CHROMA_POWER, _POWER_FLOOR)
    return similar, torch.where(salient_x > salient_y, salient_x, salient_y)


class SRSIM(WeighedCritic):
    """Spectral residual similarity in [0, 1]; higher is better, 1 for equal images.

    Args:
        card: What it is.
        chromatic: SR-SIMc, which compares I and Q too.
        gaussian_size: Side of the window that blurs the saliency, in pixels of a quarter of the size.

    Example:
        >>> critic = create_critic("sr-sim")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def __init__(self, card: Card, *, chromatic: bool = False, gaussian_size: int = _TAPS) -> None:
        super().__init__(card)
        self.chromatic = chromatic
        self.gaussian_size = gaussian_size

    def compared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return similarity_and_weight(x, y, self.chromatic, self.gaussian_size)


_card = partial(
    similarity_card,
    min_size=round(_TAPS / _SCALE),
    tiling="never",
    paper="Zhang and Li, SR-SIM: A Fast and High Performance IQA Index Based on Spectral Residual, ICIP 2012",
    source=f"{PIQ}; https://sse.tongji.edu.cn/linzhang/IQA/SR-SIM/SR-SIM.htm",
)
_NOTES = (
    "the weights come from both images and are differentiated, so a restorer may move weight to easy places",
    "saliency is normalised by its extremes in each image; piq takes those of the batch, so batches differ there",
    "images are averaged by round(short side / 256) first",
    "the score of natural pairs lies between 0.9 and 1",
    "bicubic upsampling may leave a weight slightly negative: contrived pairs may leave the bounds in the third digit",
)
_SR_SIM = _card(name="sr-sim", summary="Similarity of spectral residual saliency and gradients.", notes=_NOTES)
_SR_SIMC = _card(name="sr-simc", summary="SR-SIM with similarity of the chroma.", notes=_NOTES)

ENTRIES = {"sr-sim": Entry(_SR_SIM, SRSIM), "sr-simc": Entry(_SR_SIMC, partial(SRSIM, chromatic=True))}
