"""The chain inside a phone: mosaic, noise, demosaicing, denoising, sharpening, tone curve, JPEG; and digital zoom."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.blur import guided_filter
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.noise import shot
from perceptloss.teach.degradations.operations import (
    from_linear,
    from_ycbcr,
    gaussian_blur,
    luma,
    normal,
    to_linear,
    to_ycbcr,
    uniform,
)
from perceptloss.teach.degradations.resize import resize

__all__ = ["bayer_masks", "demosaiced"]

_GAINS = (1.9, 1.0, 1.6)  # white balance of a daylight sensor
_SOURCE = "SPAQ, CVPR 2020; chain after Brooks et al., Unprocessing Images, CVPR 2019"

# Malvar, He, Cutler, "High-quality linear interpolation for demosaicing", ICASSP 2004, eighths of
# green at red or blue; a colour at green in its row; in its column; at the other colour
_AT = (
    ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0)),
    ((0, 0, 0.5, 0, 0), (0, -1, 0, -1, 0), (-1, 4, 5, 4, -1), (0, -1, 0, -1, 0), (0, 0, 0.5, 0, 0)),
    ((0, 0, -1, 0, 0), (0, -1, 4, -1, 0), (0.5, 0, 5, 0, 0.5), (0, -1, 4, -1, 0), (0, 0, -1, 0, 0)),
    ((0, 0, -1.5, 0, 0), (0, 2, 0, 2, 0), (-1.5, 0, 6, 0, -1.5), (0, 2, 0, 2, 0), (0, 0, -1.5, 0, 0)),
)


def bayer_masks(x: Tensor) -> Tensor:
    """Where a sensor of the pattern RGGB sees red, green and blue, (1, 3, H, W)."""
    height, width = x.shape[-2:]
    down, across = torch.arange(height, device=x.device)[:, None] % 2, torch.arange(width, device=x.device) % 2
    return torch.stack([(down + across == 0), (down + across == 1), (down + across == 2)])[None].to(x)


def demosaiced(raw: Tensor) -> Tensor:
    """Colours of a mosaic of the pattern RGGB, by Malvar, He and Cutler's linear filters.

    Args:
        raw: One value for each pixel, (N, 1, H, W).

    Returns:
        (N, 3, H, W), not clamped.
    """
    kernels = raw.new_tensor(_AT)[:, None] / 8
    green, in_row, in_column, across = F.conv2d(F.pad(raw, (2,) * 4, mode="reflect"), kernels).split(1, 1)
    red, is_green, blue = bayer_masks(raw).bool().split(1, 1)
    in_red_row = (torch.arange(raw.shape[2], device=raw.device) % 2 == 0)[:, None]

    def colour(own: Tensor, other: Tensor, in_own_row: Tensor) -> Tensor:
        beside = torch.where(in_own_row, in_row, in_column)
        return torch.where(own, raw, torch.where(other, across, beside))

    return torch.cat(
        [colour(red, blue, in_red_row), torch.where(is_green, raw, green), colour(blue, red, ~in_red_row)], 1
    )


def _smeared(x: Tensor, strength: float) -> Tensor:
    """Luma through an edge-preserving filter, chroma a wider one."""
    y, chroma = to_ycbcr(x).split((1, 2), 1)
    return from_ycbcr(torch.cat([guided_filter(y, strength, 3), guided_filter(chroma, strength, 4)], 1))


def _with_halos(x: Tensor, amount: float, sigma: float) -> Tensor:
    grey = luma(x)
    return x + amount * (grey - gaussian_blur(grey, sigma))


def _graded(x: Tensor, strength: float) -> Tensor:
    """A tone curve that steepens the middle, and more colour."""
    curved = x + strength * (3 * x.square() - 2 * x**3 - x)
    grey = luma(curved)
    return grey + (1 + 0.5 * strength) * (curved - grey)


@degradation("phone-pipeline", "camera", (0.15, 0.4, 0.75, 1.2, 1.8), _SOURCE)
def _phone(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Strength of the whole chain; 1 is a noise of 8 % of the light at white. The taste of the maker is drawn."""
    smear, sharp, taste = (uniform(x, generator, 0.6, 1.4).flatten() for _ in range(3))
    gains = x.new_tensor(_GAINS)[:, None, None]
    noise, read = normal(x, generator, 1), normal(x, generator, 1)
    masks = bayer_masks(x)
    raw = (to_linear(x) / gains * masks).sum(1, keepdim=True)
    raw = shot(raw, 0.08 * max(strength, 1e-3), noise) + 0.012 * strength * read
    # balanced and curved first: the filters take the colours' detail to be alike, and overshoot shows least so
    out = demosaiced((from_linear(raw.clamp(0, 1) * gains) * masks).sum(1, keepdim=True)).clamp(0, 1)
    done = []
    for image, by, edge, tone in zip(out.split(1), smear.tolist(), sharp.tolist(), taste.tolist(), strict=True):
        picture = _smeared(image, 0.09 * by * strength)
        picture = _with_halos(picture, 0.9 * strength**0.5 * edge, 1.3)
        picture = _graded(picture.clamp(0, 1), min(1.0, 0.3 * tone * strength))
        done.append(jpeg(picture.clamp(0, 1), 96 - 32 * strength))
    return torch.cat(done) if done else x.clone()


@degradation(
    "digital-zoom", "camera", (1.3, 1.8, 2.7, 4.0, 6.5), "SPAQ, CVPR 2020 (zoomed smartphone pictures)", identity=1.0
)
def _digital_zoom(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Factor of digital zoom: few pixels with noise, smeared, enlarged and sharpened."""
    size = (x.shape[2], x.shape[3])
    small = resize(x, (max(4, round(size[0] / factor)), max(4, round(size[1] / factor))), "area")
    noise = F.interpolate(normal(x, generator), small.shape[2:], mode="nearest")
    small = small + 0.012 * (factor - 1) ** 0.5 * noise
    small = guided_filter(small, 0.025 * (factor - 1) ** 0.5, 1)
    large = _with_halos(resize(small.clamp(0, 1), size, "bicubic"), 0.9, 0.5 * factor)
    return jpeg(large.clamp(0, 1), 92.0)
