"""Pictures to be enhanced as tensors: raw and reference, aligned patches of them, and their masks of classes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from _lib.checks import refuse
from _lib.damage import DAMAGES, Domain
from _lib.data import POLICY
from perceptloss.compare.images import Pixels, read
from perceptloss.compare.pixels import as_tensor, turned
from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.runs.images import bundled
from perceptloss.runs.options import Data
from perceptloss.runs.scenes import Scene, check_scenes, find_scenes, raw_scenes, split_scenes

__all__ = [
    *("CLASSES", "Pictures", "Place", "ScenePatches"),
    *("classes_of", "found_scenes", "strip_of_scene", "whole_scene"),
]

CLASSES: Final = 8
_STRIP: Final = 4  # patches in a strip
_AROUND: Final = 2  # times the patch, of what is damaged with it


@dataclass(frozen=True)
class Pictures(Data):
    """Pictures, read recursively from folders: roots of published data sets, or folders of references."""

    train_lq: tuple[str, ...] = option(
        (), "folders of raw pictures, paired by stem with data.train; none: water or darkness is made over these"
    )
    val_lq: tuple[str, ...] = option((), "folders of raw pictures, paired by stem with data.val; none: made likewise")
    train_raw: tuple[str, ...] = option((), "folders of raw pictures without reference, to learn from as well")
    val_raw: tuple[str, ...] = option((), "folders of raw pictures without reference to validate on, by critics alone")
    train_masks: tuple[str, ...] = option((), "folders of masks in SUIM's colours, one for each of data.train")


def found_scenes(
    data: Pictures, photos: tuple[Sequence[str], Sequence[str]], least: int, accelerator: Accelerator
) -> tuple[list[Scene], list[Scene]]:
    """Scenes to train on and to validate on, every file checked, shared out over the processes.

    Args:
        data: Where the pictures are. One root for both is split: by its own parts, else the last tenth is held out.
        photos: Names of the installed photographs to train and to validate on if there are no folders.
        least: Smallest side of a picture to validate on.
        accelerator: Of the run.

    Raises:
        ConfigError: on all processes, listing everything that is wrong with them.
    """
    training = find_scenes(data.train, data.train_lq, data.train_masks, "train", "data.train")
    training += raw_scenes(data.train_raw, "data.train_raw")
    if data.val and data.val_raw:
        raise ConfigError(["data.val has references and data.val_raw has none: give only one of them"], "data")
    validation = find_scenes(data.val, data.val_lq, (), "val", "data.val") + raw_scenes(data.val_raw, "data.val_raw")
    if not data.train and not data.train_raw:
        training = _photographs(photos[0])
    if not data.val and not data.val_raw:
        validation = _photographs(photos[1])
    seen = {scene.picture.resolve() for scene in training}
    again = [scene for scene in validation if scene.picture.resolve() in seen]
    if again and data.train == data.val:
        held = {scene.picture for scene in split_scenes(again)[1]}
        training = [scene for scene in training if scene.picture not in held]
        validation = [scene for scene in validation if scene not in again or scene.picture in held]
    elif again:
        raise ConfigError([f"{scene.picture} is trained on and validated on" for scene in again], "data")
    if not training:
        raise ConfigError(["all pictures are held out for data.val, so none is left to train on: give more"], "data")
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    found = []
    for name, scenes, side in (("data.train", training, data.patch), ("data.val", validation, least)):
        found += [f"{name}: {p}" for p in check_scenes(scenes[share], POLICY, side, decode=data.check)]
    refuse(found)
    return training, validation


def _photographs(names: Sequence[str]) -> list[Scene]:
    return [Scene(pair.name, None, pair.gt) for pair in bundled(names)]


class Place:
    """Columns of the third tensor of a batch: which picture a patch is of, where it was cut, how it was turned."""

    INDEX, TOP, LEFT, TURN, HAS_REFERENCE = range(5)


def classes_of(mask: Pixels) -> Tensor:
    """A mask of colours, (H, W, 3), as numbers of classes, (1, H, W): red counts 4, green 2, blue 1."""
    bits = as_tensor(mask) > 0.5
    return (bits * torch.tensor([4, 2, 1])[:, None, None]).sum(0, keepdim=True)


def seed_of(name: str) -> int:
    """Of what is done to a picture that is validated on: the same in every run."""
    return zlib.crc32(name.encode())


def whole_scene(scene: Scene, domain: Domain) -> tuple[Tensor, Tensor]:
    """A whole picture as raw, (3, h, w), and reference, which is empty if nobody knows it.

    Of a picture with a mask the raw one has a fourth plane: numbers of classes.
    """
    reference = torch.empty(3, 0, 0) if scene.reference is None else as_tensor(read(scene.reference, POLICY))
    if scene.raw is None:
        raw = DAMAGES[domain](reference[None], seed_of(scene.name))[0]
    else:
        raw = as_tensor(read(scene.raw, POLICY))
    if scene.mask is not None:
        raw = torch.cat([raw, classes_of(read(scene.mask, POLICY)).to(raw.dtype)])
    return raw, reference


def _strip_rows(rows: int, side: int) -> int:
    """Rows at the bottom of a picture that are kept from training: none of one that is too small."""
    return side if rows >= 3 * side else 0


def strip_of_scene(scene: Scene, domain: Domain, patch: int) -> tuple[Tensor, Tensor]:
    """What `ScenePatches` spares of a picture, at its bottom; all of one that is too small to spare some."""
    raw, reference = whole_scene(scene, domain)
    rows = _strip_rows(raw.shape[1], patch) or raw.shape[1]
    columns = min(raw.shape[2], _STRIP * patch)
    return raw[:, -rows:, :columns], reference[:, -rows:, :columns]


class ScenePatches(Dataset[tuple[Tensor, ...]]):
    """Aligned random patches: `patches[epoch, index] -> (raw, reference, place, classes)`.

    Place, turn and generated damage depend on nothing but seed, epoch and index. Where there is no reference, the raw
    patch stands for it and `place` says so; where there is no mask, the number of the class is -1.

    Args:
        scenes: Pictures.
        patch: Side, pixels.
        domain: Of the damage, for pictures that are references alone.
        seed: Of the patches.
        flips: Mirror and turn patches at random.
        cache_mb: Decoded files kept in memory by each worker.
        spares_strips: Whether patches leave out what `strip_of_scene` gives.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        patch: int,
        domain: Domain,
        *,
        seed: int = 0,
        flips: bool = True,
        cache_mb: int = 0,
        spares_strips: bool = False,
    ) -> None:
        self.scenes, self.patch, self.domain = list(scenes), patch, domain
        self.seed, self.flips, self.spares_strips = seed, flips, spares_strips
        self._room = cache_mb * 2**20
        self._kept: dict[Path, Pixels] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, ...]:
        epoch, index = place
        scene, side = self.scenes[index], self.patch
        rng = np.random.default_rng([self.seed, epoch, index])
        first = self._read(scene.picture)
        rows, columns = first.shape[:2]
        rows -= _strip_rows(rows, side) if self.spares_strips else 0
        top, left = (int(rng.integers(0, n - side + 1)) for n in (rows, columns))
        turn = int(rng.integers(0, 8)) if self.flips else 0
        box = slice(top, top + side), slice(left, left + side)
        if scene.raw is None:
            raw, reference = self._damaged(first, top, left, int(rng.integers(2**31)))
        else:
            raw = as_tensor(self._read(scene.raw)[box])
            reference = as_tensor(first[box])
        classes = torch.full((1, side, side), -1)
        if scene.mask is not None:
            classes = classes_of(self._read(scene.mask)[box])
        where = torch.tensor([index, top, left, turn, scene.reference is not None])
        return turned(raw, turn), turned(reference, turn), where, turned(classes, turn)

    def _damaged(self, image: Pixels, top: int, left: int, seed: int) -> tuple[Tensor, Tensor]:
        """A patch and the same as damaged with its surroundings, over which light and distance change."""
        wide, side = _AROUND * self.patch, self.patch
        y, x = (
            min(max(0, at - (wide - side) // 2), max(0, n - wide))
            for at, n in zip((top, left), image.shape, strict=False)
        )
        around = as_tensor(image[y : y + wide, x : x + wide])
        box = (slice(None), slice(top - y, top - y + side), slice(left - x, left - x + side))
        return DAMAGES[self.domain](around[None], seed)[0][box], around[box]

    def _read(self, path: Path) -> Pixels:
        if path not in self._kept:
            image = read(path, POLICY)
            if image.nbytes > self._room:
                return image
            self._kept[path] = image
            self._room -= image.nbytes
        return self._kept[path]
