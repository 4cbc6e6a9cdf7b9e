"""Pixels as tensors, the one place where they become floating point, and back to 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.inputs import all_finite, not_finite
from perceptloss.output.files import replacing

if TYPE_CHECKING:
    from perceptloss.compare.images import Pixels

__all__ = ["as_bytes", "as_tensor", "in_colour", "luma", "resize", "shrink", "stored", "turned", "write_png"]


def as_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3), uint8 over 255 or uint16 over 65535, as (3, H, W), fp32 in [0, 1]."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)  # filled at once: an 8K picture takes 400 MB
    np.divide(pixels.transpose(2, 0, 1), np.float32(np.iinfo(pixels.dtype).max), out=planes, dtype=np.float32)
    return torch.from_numpy(planes)


def stored(image: Tensor) -> Tensor:
    """An image in [0, 1] as an 8-bit file keeps it: clamped and rounded."""
    return image.clamp(0, 1).mul(255).round().div(255)


def as_bytes(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1], clamped and rounded, as (H, W, 3), uint8.

    Raises:
        InputError: if pixels are not finite, which 8 bits cannot say.
    """
    if not all_finite(image):
        raise InputError(f"an image with {not_finite(image[None])} cannot be written as 8 bits.")
    levels: NDArray[np.uint8] = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return levels


def write_png(image: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as an 8-bit PNG."""
    from PIL import Image as Pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        Pillow.fromarray(as_bytes(image)).save(draft, format="PNG")


def shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means over squares of `factor` pixels a side, rounded; what is left at the edges gives smaller ones."""
    from PIL import Image as Pillow

    return np.asarray(Pillow.fromarray(pixels).reduce(factor))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (3, H, W) by Pillow's bicubic filter in floating point and clamp to [0, 1]."""
    from PIL import Image as Pillow

    bicubic = Pillow.Resampling.BICUBIC
    planes = [np.asarray(Pillow.fromarray(plane.numpy()).resize((width, height), bicubic)) for plane in image]
    return torch.from_numpy(np.stack(planes)).clamp(0, 1)


def turned(image: Tensor, code: int) -> Tensor:
    """One of the eight ways to mirror and transpose an image (C, H, W); mirrored views of a stereo pair change places.

    Args:
        image: Three channels, or six: left RGB, right RGB.
        code: 0 to 7: mirrored across (1), down (2), and then transposed (4).
    """
    if code & 1:
        image = image.flip(-1)
        image = image.roll(3, 0) if len(image) == 6 else image
    image = image.flip(-2) if code & 2 else image
    return image.mT if code & 4 else image


def luma(image: Tensor) -> Tensor:
    """BT.601 luma of (..., 3, H, W) in [0, 1], range [16, 235]/255, repeated in three channels.

    The constants are those of MATLAB's `rgb2ycbcr`, which BasicSR's evaluation follows.
    """
    red, green, blue = image.unbind(-3)
    y = (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255
    return y.unsqueeze(-3).expand_as(image).contiguous()


@overload
def in_colour(colour: Literal["rgb", "y"], image: Tensor) -> Tensor: ...
@overload
def in_colour(colour: Literal["rgb", "y"], image: Tensor | None) -> Tensor | None: ...
def in_colour(colour: Literal["rgb", "y"], image: Tensor | None) -> Tensor | None:
    """What a critic sees of an image (or of none): all of it, or its luma."""
    return luma(image) if colour == "y" and image is not None else image
