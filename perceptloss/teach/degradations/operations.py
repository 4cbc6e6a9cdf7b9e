"""Operations that several families share: random draws, colour spaces, filters and warps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import PerceptlossError
from perceptloss.networks.functional import blur, gaussian, mix_channels

try:
    from kornia.color import lab_to_rgb as from_lab
    from kornia.color import linear_rgb_to_rgb
    from kornia.color import rgb_to_lab as to_lab
    from kornia.color import rgb_to_linear_rgb as to_linear
    from kornia.color import rgb_to_y as luma
    from kornia.geometry.transform import remap, rotate
except ModuleNotFoundError as error:
    raise PerceptlossError("degradations need kornia: pip install 'perceptloss[teach]'") from error

__all__ = [
    "direction",
    "filter_images",
    "from_lab",
    "from_linear",
    "from_ycbcr",
    "gaussian_blur",
    "grid",
    "luma",
    "normal",
    "pad",
    "place",
    "rotate",
    "shift",
    "shift_rows",
    "sign",
    "to_lab",
    "to_linear",
    "to_ycbcr",
    "uniform",
    "warp",
    "zoomed",
]

_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def uniform(x: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number for each image, (N, 1, 1, 1), on x's device."""
    return low + (high - low) * torch.rand(x.shape[0], 1, 1, 1, generator=generator).to(x.device)


def place(x: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """A pixel (across, down) in each image, (N, 2), between shares of its sides."""
    across, down = uniform(x, generator, low, high), uniform(x, generator, low, high)
    return torch.cat([(x.shape[3] - 1) * across, (x.shape[2] - 1) * down], 1)[..., 0, 0]


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


def to_ycbcr(x: Tensor) -> Tensor:
    """JPEG's full-range YCbCr with the chroma centred at 0: Y in [0, 1], Cb and Cr in [-0.5, 0.5]."""
    return mix_channels(x, _YCBCR)


def from_ycbcr(x: Tensor) -> Tensor:
    """Inverse of `to_ycbcr`, not clamped."""
    return mix_channels(x, _RGB)


def from_linear(x: Tensor) -> Tensor:
    """SRGB values of light, which is clamped to [0, 1] first."""
    return linear_rgb_to_rgb(x.clamp(0, 1))


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
    shape = (x.shape[0], *x.shape[-2:])
    return remap(x, across.expand(shape), down.expand(shape), "bicubic", "border", align_corners=True)


def shift(x: Tensor, pixels: Tensor) -> Tensor:
    """The images looked up so many pixels away (across, down), (N, 2), bicubic, borders repeated."""
    across, down = grid(x)
    return warp(x, across + pixels[:, :1, None], down + pixels[:, 1:, None])


def zoomed(x: Tensor, centre: Tensor, factors: Tensor) -> Tensor:
    """The images enlarged about (across, down), (N, 2), by factors (N,), bicubic, borders repeated."""
    across, down = grid(x)
    (left, top), by = centre[:, :, None, None].unbind(1), factors[:, None, None]
    return warp(x, left + (across - left) / by, top + (down - top) / by)


def shift_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Images moved down by a number of rows, whole or not, (N, 1, 1, 1); the border repeats."""
    height = x.shape[2]
    place = (torch.arange(height, device=x.device)[:, None] - rows).clamp(0, height - 1)
    above = place.floor()

    def lines(number: Tensor) -> Tensor:
        return x.gather(2, number.long().expand(x.shape[0], x.shape[1], height, x.shape[3]))

    return lines(above).lerp(lines((above + 1).clamp_max(height - 1)), place - above)
