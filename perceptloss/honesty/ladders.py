"""Plain degradations in growing levels, by which a critic's sense of direction is examined.

They are few and fixed, so that figures of two critics, or of two versions of one, can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.images import require_pillow

__all__ = ["LADDERS", "degraded", "enlarged", "pixelated", "pixels"]

LADDERS: Final[dict[str, tuple[float, ...]]] = {
    "blur": (0.7, 1.2, 2.0, 4.0),
    "noise": (0.02, 0.05, 0.1, 0.2),
    "jpeg": (80, 40, 15, 5),
    "downscale": (2, 3, 4, 8),
}
"""Levels from weak to strong: deviation of a Gaussian in pixels, of noise, JPEG quality, factor of shrinking."""


def degraded(kind: str, y: Tensor, level: float) -> Tensor:
    """Images at a level of a ladder.

    Args:
        kind: A key of `LADDERS`.
        y: Images, (N, C, H, W), in [0, 1]; C is a multiple of 3.
        level: In the units of the ladder.

    Returns:
        Images of the same shape, in [0, 1].
    """
    return _DEGRADE[kind](y, level).clamp(0, 1)


def enlarged(y: Tensor, factor: float) -> Tensor:
    """Images shrunk and brought back to their size, both bicubic: what a restorer begins with, in [0, 1]."""
    small = [max(1, round(side / factor)) for side in y.shape[-2:]]
    shrunk = F.interpolate(y, small, mode="bicubic", antialias=True).clamp(0, 1)
    return F.interpolate(shrunk, y.shape[-2:], mode="bicubic").clamp(0, 1)


def pixelated(y: Tensor, factor: int, *, smooth: bool) -> Tensor:
    """Means of squares, shown as squares, or interpolated linearly; sides must be multiples of `factor`."""
    small = F.avg_pool2d(y, factor)
    return F.interpolate(small, y.shape[-2:], mode="bilinear" if smooth else "nearest")


def pixels(array: np.ndarray) -> Tensor:
    """An image of a file, (H, W, 3) of 8 or 16 bits, as (1, 3, H, W) in [0, 1]."""
    scaled = torch.from_numpy(array.astype(np.float32)) / np.iinfo(array.dtype).max
    return scaled.permute(2, 0, 1)[None].contiguous()


def _blur(y: Tensor, sigma: float) -> Tensor:
    radius = round(4 * sigma)
    taps = torch.exp(-torch.arange(-radius, radius + 1, dtype=y.dtype, device=y.device).square() / (2 * sigma**2))
    row = (taps / taps.sum()).expand(y.shape[1], 1, 1, -1)
    padded = F.pad(y, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, row, groups=y.shape[1]), row.mT, groups=y.shape[1])


def _noise(y: Tensor, deviation: float) -> Tensor:
    return y + deviation * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)


def _jpeg(y: Tensor, quality: float) -> Tensor:
    require_pillow()
    from PIL import Image

    coded = []
    for picture in y.reshape(-1, 3, *y.shape[2:]):  # a stereo pair is two pictures
        buffer = io.BytesIO()
        array = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=int(quality))
        coded.append(pixels(np.asarray(Image.open(buffer))))
    return torch.cat(coded).reshape(y.shape).to(y)


_DEGRADE: Final[dict[str, Callable[[Tensor, float], Tensor]]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "downscale": enlarged,
}
