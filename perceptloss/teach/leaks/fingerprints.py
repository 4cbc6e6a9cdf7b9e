"""Content hashes: 64 signs of the lowest cosine coefficients of a luma thumbnail.

Compression, blur, noise, resizing, brightness and contrast leave most signs as they are, and mirroring flips a known
part of them. No learned weights. The signs of DCT coefficients as a fingerprint are after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.teach.leaks.thumbnails import (
    ORDERS,
    SIDE,
    luma_thumbnails,
    read_thumbnails,
)

__all__ = ["BITS", "MIRROR", "Fingerprints", "fingerprint", "fingerprint_files", "signs"]

BITS: Final = 64
_PLACES: Final = tuple(
    sorted(
        ((v, u) for v in range(ORDERS) for u in range(ORDERS) if (v, u) != (0, 0)),
        key=lambda place: (place[0] ** 2 + place[1] ** 2, place),
    )[:BITS]
)
_ROW, _COLUMN = torch.tensor(_PLACES).T
MIRROR: Final = _COLUMN % 2 == 1  # (64,), the bits that mirroring left to right flips


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of pictures to find them again: 8 KiB each.

    Attributes:
        names: One for each picture, all different.
        thumbnails: (N, 64, 64), fp16, luma in [0, 1].
    """

    names: tuple[str, ...]
    thumbnails: Tensor

    def __post_init__(self) -> None:
        if self.thumbnails.shape != (len(self.names), SIDE, SIDE):
            raise InputError(f"{len(self.names)} names, but thumbnails of shape {tuple(self.thumbnails.shape)}")
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"names come more than once: {', '.join(twice)}")


def fingerprint(names: Sequence[str], images: Tensor) -> Fingerprints:
    """Fingerprints of pictures, RGB in [0, 1], (N, 3, H, W); raises InputError as `luma_thumbnails` does."""
    return Fingerprints(tuple(names), luma_thumbnails(images).cpu().half())


def fingerprint_files(paths: Sequence[str | Path]) -> Fingerprints:
    """Fingerprints of image files, named by their paths; raises ConfigError listing all that cannot be read."""
    unique = [Path(path) for path in dict.fromkeys(str(path) for path in paths)]
    return Fingerprints(tuple(str(path) for path in unique), read_thumbnails(unique).half())


def signs(coefficients: Tensor) -> Tensor:
    """The hash of cosine coefficients: (N, 13, 13) to (N, 64), as -1 and 1."""
    return (coefficients[:, _ROW, _COLUMN] > 0) * 2.0 - 1
