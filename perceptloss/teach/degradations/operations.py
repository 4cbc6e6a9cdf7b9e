"""Operations that several families share: random draws, colour spaces, filters and warps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import blur, gaussian, mix_channels

__all__ = [
    "direction",
    "filter_images",
    "from_linear",
    "from_ycbcr",
    "gaussian_blur",
    "grid",
    "luma",
    "normal",
    "pad",
    "sign",
    "to_linear",
    "to_ycbcr",
    "uniform",
    "warp",
]

_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def uniform(x: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number for each image, (N, 1, 1, 1), on x's device."""
    return low + (high - low) * torch.rand(x.shape[0], 1, 1, 1, generator=generator).to(x.device)


def sign(x: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1 for each image, (N, 1, 1, 1)."""
    return 1 - 2 * (uniform(x, generator) < 0.5).to(x.dtype)


def direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """A unit vector (across, down) for each image, (N, 2)."""
    angle = uniform(x, generator, 0, 2 * math.pi).flatten()
    return torch.stack([angle.cos(), angle.sin()], 1)


def normal(x: Tensor, generator: torch.Generator, channels: int = 3) -> Tensor:
    """Independent standard normal numbers, (N, channels, H, W), on x's device."""
    return torch.randn(x.shape[0], channels, *x.shape[2:], generator=generator).to(x.device)


def luma(x: Tensor) -> Tensor:
    """BT.601 luma of RGB, (N, 1, H, W)."""
    return mix_channels(x, _YCBCR[:1])


def to_ycbcr(x: Tensor) -> Tensor:
    """JPEG's full-range YCbCr with the chroma centred at 0: Y in [0, 1], Cb and Cr in [-0.5, 0.5]."""
    return mix_channels(x, _YCBCR)


def from_ycbcr(x: Tensor) -> Tensor:
    """Inverse of `to_ycbcr`, not clamped."""
    return mix_channels(x, _RGB)


def to_linear(x: Tensor) -> Tensor:
    """Light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def from_linear(x: Tensor) -> Tensor:
    """SRGB values of light, which is clamped to [0, 1] first."""
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def pad(x: Tensor, margin: int) -> Tensor:
    """Mirror an image outwards by `margin` pixels, or repeat its border where it is too small for that."""
    mode = "reflect" if margin < min(x.shape[-2:]) else "replicate"
    return F.pad(x, (margin,) * 4, mode=mode)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of a standard deviation in pixels, truncated at 4 sigma, borders mirrored."""
    radius = math.ceil(4 * sigma)
    return blur(pad(x, radius), gaussian(2 * radius + 1, max(sigma, 1e-3)))


def filter_images(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image convolved with its own kernel in the frequency domain, borders mirrored.

    Args:
        x: Images, (N, C, H, W).
        kernels: (N, k, k), k odd.
    """
    margin = kernels.shape[-1] // 2
    padded = pad(x, margin)
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels, s=size)[:, None]
    height, width = x.shape[-2:]
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * margin :, 2 * margin :][..., :height, :width]


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates (across, down) of an image, (1, W) and (H, 1)."""
    height, width = x.shape[-2:]
    return torch.arange(width, device=x.device)[None].to(x), torch.arange(height, device=x.device)[:, None].to(x)


def warp(x: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The images looked up at pixel coordinates that broadcast to (N, H, W), bicubic, borders repeated."""
    height, width = x.shape[-2:]
    shape = (x.shape[0], height, width)
    places = [(2 * across / (width - 1) - 1).expand(shape), (2 * down / (height - 1) - 1).expand(shape)]
    return F.grid_sample(x, torch.stack(places, -1), mode="bicubic", padding_mode="border", align_corners=True)
