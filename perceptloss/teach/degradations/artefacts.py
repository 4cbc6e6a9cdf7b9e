"""What processing leaves behind: bands, exaggerated edges, rings and staircases."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.networks.functional import SCHARR, edge_magnitude
from perceptloss.teach.degradations.core import KADID, REAL_ESRGAN, degradation
from perceptloss.teach.degradations.fields import local_energy
from perceptloss.teach.degradations.operations import filter_images, gaussian_blur, luma, pad

__all__ = ["sinc_kernel"]

_SINC_SIZE = 21


def sinc_kernel(cutoff: float, size: int = _SINC_SIZE) -> Tensor:
    """Ideal circular low-pass filter, cut to a square: J1(w r) w / (2 pi r), normalised to sum 1.

    Args:
        cutoff: w, in radians per pixel; pi is the highest frequency along an axis.
        size: Side of the kernel, odd.

    Returns:
        (size, size).
    """
    taps = torch.arange(size, dtype=torch.float64) - size // 2
    radius = torch.hypot(taps, taps[:, None])
    inside = radius > 0
    away = torch.where(inside, radius, 1)
    kernel = torch.where(inside, cutoff * torch.special.bessel_j1(cutoff * away) / away, cutoff**2 / 2)
    return (kernel / kernel.sum()).float()


@degradation("ringing", "sharpening", (2.0, 1.6, 1.25, 0.95, 0.7), REAL_ESRGAN, identity=math.pi)
def _ringing(x: Tensor, cutoff: float, generator: torch.Generator) -> Tensor:
    """Cut-off of an ideal low-pass filter in radians per pixel."""
    return filter_images(x, sinc_kernel(cutoff).to(x.device)[None])


@degradation("over-sharpening", "sharpening", (0.5, 1.1, 2.0, 3.6, 6.5), KADID)
def _sharpen(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Amount of unsharp masking, sigma 1 pixel."""
    return x + amount * (x - gaussian_blur(x, 1.0))


@degradation("halo", "sharpening", (0.4, 0.75, 1.3, 2.2, 3.8), "defect of local tone mapping and sharpening")
def _halo(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Amount of unsharp masking of the luma near edges, sigma 4 pixels."""
    grey = luma(x)
    return x + amount * (grey - gaussian_blur(grey, 4.0)) * _near_edges(grey, 3.0)


def _near_edges(grey: Tensor, sigma: float) -> Tensor:
    """From 0 in flat areas to nearly 1 within about `sigma` pixels of a strong edge."""
    edges = edge_magnitude(pad(gaussian_blur(grey, 1.0), 1), SCHARR)[..., 1:-1, 1:-1]
    near = gaussian_blur(edges, sigma)
    return near / (near + 0.03)


@degradation("banding", "banding", (4.0, 9.0, 18.0, 34.0, 60.0), "BAND-2k, 2023")
def _banding(x: Tensor, levels: float, generator: torch.Generator) -> Tensor:
    """Height of the steps in smooth areas, in 8-bit grey levels, without dither."""
    step = max(levels, 1e-3) / 255
    grey = luma(x)
    base = gaussian_blur(grey, 2.0)
    detail = grey - base
    smooth = (-(local_energy(detail, 2.0) / 0.03).square()).exp()
    draw = torch.rand(base.shape, generator=generator).to(x.device)
    place = (draw * (smooth + 1e-6)).flatten(1).argmax(1)
    edge = base.flatten(1).gather(1, place[:, None])[..., None, None]  # one step lies at a drawn place at all levels
    bands = edge + (((base - edge) / step).floor() + 0.5) * step
    return x + smooth * (bands - base - detail.clamp(-step / 2, step / 2))  # what is left of dither would hide a band


@degradation(
    "jaggies",
    "resize",
    (1.4, 1.9, 2.8, 4.3, 7.0),
    "enlargement by repeated pixels, smoothed where it is easy",
    identity=1.0,
)
def _jaggies(x: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Width in pixels of the staircase that edges become; flat areas stay."""

    def means(length: int) -> Tensor:
        """Matrix (N, length, length) of the means over steps of one side."""
        step = (torch.arange(length) / width + torch.rand(x.shape[0], 1, generator=generator)).floor()
        same = (step[:, :, None] == step[:, None]).to(x)
        return (same / same.sum(2, keepdim=True))[:, None]

    steps = means(x.shape[2]) @ x @ means(x.shape[3]).mT
    return x.lerp(steps, _near_edges(luma(x), 1.5))
