"""Photographs in memory: decoding with a bounded cache, and cutting squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss.compare.images import read
from perceptloss.teach.data.pictures import TAUGHT

__all__ = ["Photos", "cut"]


class Photos:
    """Decoded files, (3, H, W) uint8; the first that fit into the memory stay.

    Args:
        cache_mb: Memory for decoded files, MiB.
    """

    def __init__(self, cache_mb: int) -> None:
        self._room = cache_mb * 2**20
        self._kept: dict[Path, Tensor] = {}

    def __getitem__(self, path: Path) -> Tensor:
        if path not in self._kept:
            image = torch.from_numpy(np.ascontiguousarray(read(path, TAUGHT).transpose(2, 0, 1)))
            if image.numel() > self._room:
                return image
            self._kept[path] = image
            self._room -= image.numel()
        return self._kept[path]


def cut(image: Tensor, side: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Place of a random square, as rows and columns."""
    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in image.shape[-2:])
    return slice(top, top + side), slice(left, left + side)
