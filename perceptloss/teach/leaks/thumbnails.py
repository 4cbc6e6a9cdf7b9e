"""Luma thumbnails of pictures, and their cosine coefficients over any window of them.

A thumbnail is a square of luma means over a grid that spans the whole picture, whatever its shape. The coefficients
are those of the cosine series of the thumbnail, taken as a function that is constant on each of its pixels,
on a window with real-valued edges: a crop costs two small matrix products and needs no resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.images import Policy, read
from perceptloss.compare.pixels import as_tensor, shrink
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.functional import LUMA

__all__ = ["ORDERS", "SIDE", "centred", "cosine_coefficients", "luma_thumbnails", "read_thumbnails"]

SIDE: Final = 64  # pixels of a thumbnail
ORDERS: Final = 13  # coefficients kept per axis, the mean included: six periods over the width
_SMALLEST: Final = 16  # side of a picture, pixels
_DRAFT: Final = 256  # side to which a decoder may shrink a picture; four samples per thumbnail pixel
_THREADS: Final = 4
_POLICY: Final = Policy(
    exif="apply", grey="replicate", palette="expand", alpha="drop", profile="ignore", depth="round"
)  # a copy may be of any kind
_FLAT: Final = 0.5 / 255  # a deviation below half an 8-bit step is no content


def luma_thumbnails(images: Tensor) -> Tensor:
    """Luma means of pictures over a grid of 64 x 64 cells.

    Args:
        images: RGB in [0, 1], (N, 3, H, W), each side at least 16, floating point.

    Returns:
        (N, 64, 64), fp32, in [0, 1], on the device of the images, without graph.

    Raises:
        InputError: if the shape or the type is another, or a value is not finite.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < _SMALLEST or not images.is_floating_point():
        raise InputError(
            f"expected floating-point RGB in [0, 1] of shape (N, 3, H, W) with sides of at least {_SMALLEST}, "
            f"got {tuple(images.shape)} of {images.dtype}"
        )
    pictures = images.detach().float()
    if not bool(torch.isfinite(pictures).all()):
        raise InputError("expected finite pixels, got NaN or infinity")
    luma = (pictures * pictures.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return F.adaptive_avg_pool2d(luma, SIDE)[:, 0]


def read_thumbnails(paths: Sequence[Path]) -> Tensor:
    """Thumbnails of image files; EXIF rotation is applied, grey is repeated, an alpha channel is ignored.

    Returns:
        (N, 64, 64), fp32.

    Raises:
        ConfigError: listing every file that cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(_read, paths))
    problems = [found for found in read if isinstance(found, str)]
    if problems:
        raise ConfigError(problems, "the pictures to compare")
    return torch.cat([found for found in read if isinstance(found, Tensor)]) if read else torch.empty(0, SIDE, SIDE)


def centred(thumbnails: Tensor) -> Tensor:
    """Thumbnails less their means, (N, 64, 64), fp32; all 0 where one deviates by less than half an 8-bit step."""
    thumbnails = thumbnails.float()
    varying = thumbnails - thumbnails.mean((1, 2), keepdim=True)
    return varying * (varying.square().mean((1, 2), keepdim=True).sqrt() > _FLAT)


def cosine_coefficients(thumbnails: Tensor, windows: Tensor) -> Tensor:
    """Cosine coefficients of a window of each thumbnail, without the mean.

    Coefficient (v, u) is the mean over the window of the thumbnail times cos(pi v t) cos(pi u s), with t and s running
    from 0 to 1 over the window. Mirroring left to right changes the sign of odd u.

    Args:
        thumbnails: `centred`, (N, 64, 64).
        windows: Left, right, top, bottom as fractions of the sides, (N, 4) or (4,).

    Returns:
        (N, 13, 13), rows v, columns u; element (0, 0) is 0.
    """
    windows = windows.expand(len(thumbnails), 4)
    found = _basis(windows[:, 2:]) @ thumbnails @ _basis(windows[:, :2]).transpose(1, 2)
    found[:, 0, 0] = 0
    return found


def _basis(ranges: Tensor) -> Tensor:
    """Integrals of cos(pi k t) over each pixel of an axis, per range: (N, 2) to (N, 13, 64)."""
    low, high = ranges[:, :1], ranges[:, 1:]
    edges = torch.linspace(0, 1, SIDE + 1, device=ranges.device)
    t = ((edges - low) / (high - low)).clamp(0, 1)
    k = math.pi * torch.arange(1, ORDERS, device=ranges.device)[:, None]
    integral = torch.sin(k * t[:, None]) / k
    return torch.cat([t[:, None], integral], 1).diff(dim=2)


def _read(path: Path) -> Tensor | str:
    try:
        pixels = read(path, _POLICY, least=_DRAFT)
    except InputError as error:
        return str(error)
    height, width = pixels.shape[:2]
    factor = max(1, min(height, width) // _DRAFT)
    image = as_tensor(shrink(pixels.astype(np.uint8, copy=False), factor))
    try:
        return luma_thumbnails(image[None])
    except InputError:
        return f"{path}: {height} x {width} pixels; at least {_SMALLEST} x {_SMALLEST} are needed"
