"""Loss of focus, motion, the kernels of real-world super-resolution, and over-eager denoising."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.networks.functional import blur
from perceptloss.teach.degradations.core import KADID, REAL_ESRGAN, degradation
from perceptloss.teach.degradations.operations import (
    direction,
    filter_images,
    gaussian_blur,
    pad,
    place,
    uniform,
    zoomed,
)

__all__ = ["disc_kernel", "elliptic_distance", "guided_filter", "line_kernels", "soft_kernels"]


def disc_kernel(radius: float) -> Tensor:
    """Uniform disc of a radius in pixels with an antialiased rim, (k, k), sum 1."""
    return _normalised((radius + 0.5 - _distance(math.ceil(radius) + 1)).clamp(0, 1))


def line_kernels(directions: Tensor, length: float, points: int = 64) -> Tensor:
    """Straight path of a length in pixels along unit vectors (N, 2), points spread bilinearly: (N, k, k), sum 1."""
    offsets = length * torch.linspace(-0.5, 0.5, points, device=directions.device)
    radius = math.ceil(length / 2) + 1
    taps = torch.arange(-radius, radius + 1, device=directions.device)
    across, down = (1 - (directions[:, :, None, None] * offsets[:, None] - taps).abs()).clamp_min(0).unbind(1)
    return down.mT @ across / points


def elliptic_distance(radius: int, sigma: float, directions: Tensor, ratios: Tensor) -> Tensor:
    """Squared Mahalanobis distance from the middle, (N, k, k), k = 2 radius + 1.

    Args:
        radius: Of the kernel, in pixels.
        sigma: Standard deviation along the long axis, in pixels.
        directions: Unit vectors of the long axis, (N, 2).
        ratios: Short axis over long axis, (N,).
    """
    taps = torch.arange(-radius, radius + 1, device=directions.device, dtype=directions.dtype)
    cosine, sine = directions[:, 0, None, None], directions[:, 1, None, None]
    along = (cosine * taps + sine * taps[:, None]) / sigma
    beside = (cosine * taps[:, None] - sine * taps) / (sigma * ratios[:, None, None])
    return along.square() + beside.square()


def soft_kernels(profile: Tensor, sigma: float) -> Tensor:
    """Kernels (N, k, k) cut off smoothly at 4 sigma, so that a heavy tail does not jump with sigma; sum 1."""
    rim = (4 * sigma + 0.5 - _distance(profile.shape[-1] // 2).to(profile)).clamp(0, 1)
    return _normalised(profile * rim)


def _distance(radius: int) -> Tensor:
    taps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.hypot(taps, taps[:, None])


def _normalised(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum((-2, -1), keepdim=True)


@degradation("gaussian-blur", "blur", (0.6, 1.0, 1.6, 2.5, 4.5), KADID)
def _gaussian(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Standard deviation in pixels."""
    return gaussian_blur(x, sigma)


@degradation("lens-blur", "blur", (1.0, 1.8, 3.0, 5.0, 8.0), KADID)
def _lens(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Radius of the disc in pixels."""
    return filter_images(x, disc_kernel(radius).to(x.device)[None])


@degradation("motion-blur", "blur", (2.5, 4.5, 8.0, 13.0, 22.0), KADID)
def _motion(x: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Length of the straight path in pixels, direction drawn."""
    return filter_images(x, line_kernels(direction(x, generator), length))


@degradation("anisotropic-blur", "blur", (0.9, 1.6, 2.7, 4.2, 7.0), REAL_ESRGAN)
def _anisotropic(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Standard deviation along the long axis in pixels; axis and ratio 0.2 to 0.6 drawn."""
    axis, ratio = direction(x, generator), uniform(x, generator, 0.2, 0.6).flatten()
    sigma = max(sigma, 1e-3)
    return filter_images(
        x, soft_kernels((-elliptic_distance(math.ceil(4 * sigma), sigma, axis, ratio) / 2).exp(), sigma)
    )


@degradation("generalised-blur", "blur", (0.7, 1.1, 1.7, 2.6, 4.5), REAL_ESRGAN)
def _generalised(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Scale of a generalised Gaussian in pixels; shape 0.5 to 4, axis and ratio drawn."""
    axis, ratio = direction(x, generator), uniform(x, generator, 0.6, 1).flatten()
    beta = 2 ** uniform(x, generator, -1, 2).flatten()[:, None, None]
    sigma = max(sigma, 1e-3)
    distance = elliptic_distance(math.ceil(4 * sigma), sigma, axis, ratio)
    return filter_images(x, soft_kernels((-(distance**beta) / 2).exp(), sigma))


@degradation("plateau-blur", "blur", (0.5, 0.85, 1.4, 2.2, 3.8), REAL_ESRGAN)
def _plateau(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Scale of a plateau kernel in pixels; shape 1 to 2, axis and ratio drawn."""
    axis, ratio = direction(x, generator), uniform(x, generator, 0.6, 1).flatten()
    beta = uniform(x, generator, 1, 2).flatten()[:, None, None]
    sigma = max(sigma, 1e-3)
    distance = elliptic_distance(math.ceil(4 * sigma), sigma, axis, ratio)
    return filter_images(x, soft_kernels(1 / (1 + distance**beta), sigma))


@degradation("zoom-blur", "blur", (0.008, 0.018, 0.04, 0.075, 0.15), "ImageNet-C, ICLR 2019")
def _zoom(x: Tensor, zoom: float, generator: torch.Generator) -> Tensor:
    """Zoom during the exposure, as a share of the size; centre drawn."""
    centre = place(x, generator, 0.35, 0.65)
    # averaging with a copy zoomed by s, s^2, s^4 and s^8 in turn gives 16 evenly spread zooms
    step = math.log1p(zoom) / 15
    for turn in range(4):
        x = (x + zoomed(x, centre, x.new_full((len(x),), math.exp(step * 2**turn)))) / 2
    return x


@degradation(
    "denoise",
    "blur",
    (0.02, 0.04, 0.08, 0.15, 0.3),
    "TID2013 (image denoising); filter: He, Sun, Tang, Guided Image Filtering, ECCV 2010",
)
def _denoise(x: Tensor, threshold: float, generator: torch.Generator) -> Tensor:
    """Contrast (standard deviation) below which texture is smoothed away by a guided filter."""
    return guided_filter(x, threshold)


def guided_filter(x: Tensor, threshold: float, radius: int = 4) -> Tensor:
    """Edge-preserving smoothing of each channel by itself, twice (He, Sun, Tang, Guided Image Filtering, ECCV 2010).

    Args:
        x: Images, (N, C, H, W).
        threshold: Standard deviation below which contrast is smoothed away.
        radius: Of the square window, in pixels.
    """
    size = 2 * radius + 1

    def local_mean(maps: Tensor) -> Tensor:
        return blur(pad(maps, radius), (1 / size,) * size)

    for _ in range(2):
        mean = local_mean(x)
        variance = (local_mean(x * x) - mean * mean).clamp_min(0)
        slope = variance / (variance + threshold**2 + 1e-12)
        x = local_mean(slope) * x + local_mean((1 - slope) * mean)
    return x
