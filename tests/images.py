"""Deterministic test images: synthetic pictures, photographs that scikit-image ships, and ladders of degradations."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from parity.parity import distort, image
from torch import Tensor

LADDERS = {"blur": (0.8, 1.6, 3.2), "noise": (0.03, 0.08, 0.2), "jpeg": (60, 20, 5)}
_KINDS = (("noise", 0.06), ("box", 5), ("gain", 0.85), ("quant", 9))


def pair(
    n: int,
    height: int,
    width: int | None = None,
    *,
    channels: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Distorted pictures and their originals, each (n, channels, height, width); no two neighbours distorted alike."""
    originals = [image(100 + seed + i, height, width or height, channels) for i in range(n)]
    distorted = [distort(p, *_KINDS[(i + seed) % len(_KINDS)], seed=i) for i, p in enumerate(originals)]
    x, y = (torch.from_numpy(np.stack(planes)).to(dtype) for planes in (distorted, originals))
    return x, y


@lru_cache
def photographs(side: int, names: tuple[str, ...] = ("astronaut", "coffee", "chelsea")) -> Tensor:
    """Square photographs, (3, 3, side, side), shrunk so that a small image still shows a scene."""
    from skimage import data

    squares = []
    for picture in (getattr(data, name)() for name in names):
        edge = min(picture.shape[:2])
        square = torch.from_numpy(picture[:edge, :edge].copy()).permute(2, 0, 1)[None].float() / 255
        squares.append(F.interpolate(square, (side, side), mode="bicubic", antialias=True).clamp(0, 1))
    return torch.cat(squares)


def ladder(kind: str, y: Tensor) -> list[Tensor]:
    """The images themselves, then three stronger and stronger degradations of them."""
    return [y, *(_DEGRADE[kind](y, level) for level in LADDERS[kind])]


def _blur(y: Tensor, sigma: float) -> Tensor:
    radius = int(3 * sigma + 0.5)
    row = torch.exp(-(torch.arange(-radius, radius + 1, dtype=y.dtype) ** 2) / (2 * sigma**2))
    row = (row / row.sum()).expand(y.shape[1], 1, 1, -1)
    padded = F.pad(y, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, row, groups=y.shape[1])
    return F.conv2d(rows, row.transpose(2, 3), groups=y.shape[1])


def _noise(y: Tensor, deviation: float) -> Tensor:
    grain = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return (y + deviation * grain).clamp(0, 1)


def _jpeg(y: Tensor, quality: float) -> Tensor:
    from PIL import Image

    coded = []
    for picture in y.reshape(-1, 3, *y.shape[2:]):  # a stereo pair is two pictures
        buffer = io.BytesIO()
        Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(
            buffer, "JPEG", quality=int(quality)
        )
        coded.append(torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1).to(y.dtype) / 255)
    return torch.stack(coded).reshape(y.shape)


_DEGRADE = {"blur": _blur, "noise": _noise, "jpeg": _jpeg}
