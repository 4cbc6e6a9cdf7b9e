"""Stereo pairs to train on: real ones, and photographs that are given a depth; patches are pure functions of a place.

What a pair may be turned into: mirrored, if its views change places; upside down; with its colours exchanged, alike in
both views. It may not be turned by a quarter, because rows must go on to correspond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from _lib.data import POLICY, degrade
from perceptloss.compare.images import Pixels, read
from perceptloss.compare.pixels import as_tensor
from perceptloss.teach.degradations.stereo import stereo_pair

__all__ = ["PairPatches", "Scene", "mirrored", "strip_of_scene", "whole_scene"]

_MARGIN = 4  # low-quality pixels around a patch, which the kernel of shrinking reaches
_STRIP = 2  # patches in a strip
_COLOURS = tuple(permutations(range(3)))
_NAMES: Final = 2**31


@dataclass(frozen=True)
class Scene:
    """A stereo pair, or a photograph of which pairs are made.

    Attributes:
        name: In tables and messages.
        left: File of the left view, or of the photograph.
        right: File of the right view; None of a photograph.
        disparity: File of the left view's true disparity, for validation; None if there is none.
    """

    name: str
    left: Path
    right: Path | None = None
    disparity: Path | None = None

    @property
    def views(self) -> tuple[Path, ...]:
        """Its pictures."""
        return (self.left,) if self.right is None else (self.left, self.right)

    @property
    def files(self) -> dict[str, Path]:
        """Every file, by what it is called in messages."""
        found = {"": self.left, " (right)": self.right, " (disparity)": self.disparity}
        return {f"{self.name}{what}": path for what, path in found.items() if path is not None}


def mirrored(pair: Tensor) -> Tensor:
    """A pair (..., 6, H, W) as in a mirror: each view mirrored, and the views exchanged."""
    return pair.flip(-1).roll(3, -3)


class PairPatches(Dataset[tuple[Tensor, Tensor]]):
    """Aligned random patches: `patches[epoch, index] -> (lq, gt)`, (6, h, w) and (6, rows, columns).

    Place, depth and turn of a patch depend on nothing but seed, epoch and index.

    Args:
        scenes: Pairs and photographs.
        size: Rows and columns of the ground-truth patches, pixels, multiples of `scale`.
        scale: Ground-truth pixels per low-quality pixel.
        disparity: Largest one of pairs that are made, pixels; each has at least a quarter of it.
        seed: Of the patches.
        flips: Mirror, turn upside down and exchange colours at random.
        cache_mb: Decoded files kept in memory by each worker.
        spares_strips: Whether patches leave out what `strip_of_scene` gives.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        size: tuple[int, int],
        scale: int,
        *,
        disparity: float = 48.0,
        seed: int = 0,
        flips: bool = True,
        cache_mb: int = 0,
        spares_strips: bool = False,
    ) -> None:
        self.pairs, self.size, self.scale, self.disparity = list(scenes), size, scale, disparity
        self.seed, self.flips, self.spares_strips = seed, flips, spares_strips
        self._room = cache_mb * 2**20
        self._kept: dict[Path, Pixels] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = place
        rng = np.random.default_rng([self.seed, epoch, index])
        scene, s = self.pairs[index], self.scale
        views = [self._read(file) for file in scene.views]
        depth = self.disparity * rng.uniform(0.25, 1) if scene.right is None else 0.0
        made, room = int(rng.integers(_NAMES)), ceil(depth)
        rows, columns = (n // s for n in self.size)
        height, width = views[0].shape[0], views[0].shape[1] - room
        spared = _spared(height, self.size[0]) if self.spares_strips else 0
        grid = (height - spared) // s, width // s
        top, left = (int(rng.integers(n - k + 1)) for n, k in zip(grid, (rows, columns), strict=True))
        first = [max(0, start - _MARGIN) for start in (top, left)]
        last = [min(n, start + k + _MARGIN) for start, n, k in zip((top, left), grid, (rows, columns), strict=True)]
        part = slice(first[0] * s, last[0] * s), slice(first[1] * s, last[1] * s + room)
        wide = torch.cat([as_tensor(view[part]) for view in views])
        if scene.right is None:
            wide = stereo_pair(wide[None], made, depth)[0][0]
        y, x = top - first[0], left - first[1]
        lq = degrade(wide[None], s)[0, :, y : y + rows, x : x + columns]
        gt = wide[:, y * s : (y + rows) * s, x * s : (x + columns) * s]
        mirror, upside, colours = (int(rng.integers(n)) for n in (2, 2, len(_COLOURS)))
        if not self.flips:
            return lq, gt
        return _turned(lq, mirror, upside, colours), _turned(gt, mirror, upside, colours)

    def _read(self, path: Path) -> Pixels:
        if path in self._kept:
            return self._kept[path]
        image = read(path, POLICY)
        if image.nbytes <= self._room:
            self._kept[path] = image
            self._room -= image.nbytes
        return image


def _turned(pair: Tensor, mirror: int, upside: int, colours: int) -> Tensor:
    pair = mirrored(pair) if mirror else pair
    pair = pair.flip(-2) if upside else pair
    order = _COLOURS[colours]
    return pair[[*order, *(3 + c for c in order)]].contiguous()


def _spared(height: int, rows: int) -> int:
    """Rows at the bottom that are kept from training: none of an image that is too small."""
    return rows if height >= 3 * rows else 0


@lru_cache(maxsize=16)
def _views(scene: Scene, disparity: float) -> Tensor:
    views = torch.cat([as_tensor(read(file, POLICY)) for file in scene.views])
    return views if scene.right is not None else stereo_pair(views[None], 0, disparity)[0][0]


def _even(pair: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    height, width = (n // scale * scale for n in pair.shape[-2:])
    gt = pair[:, :height, :width]
    return degrade(gt[None], scale)[0], gt


def whole_scene(scene: Scene, scale: int, disparity: float = 48.0) -> tuple[Tensor, Tensor]:
    """A whole pair as (lq, gt), (6, h, w) and (6, h * scale, w * scale); rows and columns that do not fit are cut."""
    return _even(_views(scene, disparity), scale)


def strip_of_scene(scene: Scene, scale: int, size: tuple[int, int], disparity: float = 48.0) -> tuple[Tensor, Tensor]:
    """What `PairPatches` spares of a scene, at its bottom, as (lq, gt); all of one that is too small to spare some."""
    views = _views(scene, disparity)
    rows = _spared(views.shape[1], size[0]) or views.shape[1]
    return _even(views[:, views.shape[1] - rows :, : _STRIP * size[1]], scale)
