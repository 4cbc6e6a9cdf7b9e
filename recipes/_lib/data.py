"""Patches and their order, both pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from perceptloss.compare.images import Pixels, Policy, read
from perceptloss.compare.pixels import as_tensor, stored, turned
from perceptloss.runs.images import Pair

__all__ = ["POLICY", "PatchPairs", "SampleOrder", "degrade", "patch_loader", "strip_of", "whole_pair"]

# a restorer learns the values that files hold, whatever colours a profile gives them
POLICY = Policy(exif="apply", grey="replicate", palette="expand", profile="ignore")
_STRIP = 4  # patches in a strip
_MARGIN = 4  # low-quality pixels: the antialiased bicubic kernel reaches two of them, and the grid must stay aligned


def degrade(gt: Tensor, scale: int) -> Tensor:
    """Shrink (N, 3, H, W) by antialiased bicubic interpolation (a = -0.5), rounded to 8 bits like a file."""
    size = (gt.shape[-2] // scale, gt.shape[-1] // scale)
    small = F.interpolate(gt, size=size, mode="bicubic", antialias=True, align_corners=False)
    return stored(small)


class PatchPairs(Dataset[tuple[Tensor, ...]]):
    """Aligned random patches: `patches[epoch, index] -> (lq, gt)`.

    The place and the flip of a patch depend on nothing but seed, epoch and index, so neither
    worker count nor an interruption changes what the network sees.

    Args:
        pairs: Files; without a low-quality file, that patch is made by `degrade`.
        patch: Side of the ground-truth patch, pixels, a multiple of `scale`.
        scale: Ground-truth pixels per low-quality pixel.
        seed: Of the patches.
        flips: Mirror and turn patches at random.
        cache_mb: Decoded files kept in memory by each worker.

    Attributes:
        spares_strips: Whether patches leave out what `strip_of` gives.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        patch: int,
        scale: int,
        *,
        seed: int = 0,
        flips: bool = True,
        cache_mb: int = 0,
    ) -> None:
        self.pairs, self.patch, self.scale = list(pairs), patch, scale
        self.spares_strips = False
        self.seed, self.flips = seed, flips
        self._room = cache_mb * 2**20
        self._kept: dict[Path, Pixels] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = place
        pair = self.pairs[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        gt = self._read(pair.gt)
        rows, columns = gt.shape[0] // self.scale, gt.shape[1] // self.scale
        side = self.patch // self.scale
        rows -= _strip_rows(rows, side) if self.spares_strips else 0
        top, left = (int(rng.integers(0, n - side + 1)) for n in (rows, columns))
        turn = int(rng.integers(0, 8)) if self.flips else 0
        if pair.lq is None:
            lq_patch, gt_patch = self._degraded(gt, top, left, side, (rows, columns))
        else:
            s = self.scale
            lq_patch = as_tensor(self._read(pair.lq)[top : top + side, left : left + side])
            gt_patch = as_tensor(gt[top * s : (top + side) * s, left * s : (left + side) * s])
        return turned(lq_patch, turn), turned(gt_patch, turn)

    def _read(self, path: Path) -> Pixels:
        if path in self._kept:
            return self._kept[path]
        image = read(path, POLICY)
        if image.nbytes <= self._room:
            self._kept[path] = image
            self._room -= image.nbytes
        return image

    def _degraded(self, gt: Pixels, top: int, left: int, side: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The same pixels as shrinking the whole image and cutting afterwards, without shrinking all of it."""
        s = self.scale
        first = [max(0, start - _MARGIN) for start in (top, left)]
        last = [min(n, start + side + _MARGIN) for start, n in zip((top, left), grid, strict=True)]
        wide = as_tensor(gt[first[0] * s : last[0] * s, first[1] * s : last[1] * s])
        y, x = top - first[0], left - first[1]
        lq = degrade(wide[None], s)[0, :, y : y + side, x : x + side]
        return lq, wide[:, y * s : (y + side) * s, x * s : (x + side) * s]


def _strip_rows(rows: int, side: int) -> int:
    """Low-quality rows at the bottom of an image that are kept from training: none of one that is too small."""
    return side if rows >= 3 * side else 0


def strip_of(pair: Pair, scale: int, patch: int) -> tuple[Tensor, Tensor]:
    """What `PatchPairs` spares of an image, at its bottom, as (lq, gt); all of one that is too small to spare some."""
    lq, gt = whole_pair(pair, scale)
    rows = _strip_rows(lq.shape[1], patch // scale) or lq.shape[1]
    columns = min(lq.shape[2], _STRIP * patch // scale)
    return lq[:, -rows:, :columns], gt[:, -rows * scale :, : columns * scale]


def whole_pair(pair: Pair, scale: int) -> tuple[Tensor, Tensor]:
    """A whole image as (lq, gt), (3, h, w) and (3, h * scale, w * scale); rows and columns that do not fit are cut."""
    gt = as_tensor(read(pair.gt, POLICY))
    height, width = (n // scale * scale for n in gt.shape[-2:])
    gt = gt[:, :height, :width]
    return (degrade(gt[None], scale)[0] if pair.lq is None else as_tensor(read(pair.lq, POLICY))), gt


class SampleOrder(Sampler[tuple[int, int]]):
    """The training samples of a whole run as one list: a shuffle of the images for each epoch, one after the other.

    A position in the list is all that a resumed run needs; epoch and place in the epoch follow from it.

    Args:
        length: Images in an epoch.
        start: First position.
        stop: One past the last position.
        seed: Of the shuffles.
    """

    def __init__(self, length: int, start: int, stop: int, seed: int = 0) -> None:
        self.length, self.start, self.stop, self.seed = length, start, stop, seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, np.empty(0, dtype=int)
        for position in range(self.start, self.stop):
            if position // self.length != epoch:
                epoch = position // self.length
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            yield epoch, int(order[position % self.length])


def patch_loader(
    patches: Dataset[tuple[Tensor, ...]], order: SampleOrder, batch: int, workers: int, seed: int = 0
) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of patches in the given order."""
    return DataLoader(
        patches,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # or it would draw from the global generator
    )
