"""A data set of stereo pairs for BasicSR, whose own data sets have single images."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from perceptloss.compare.images import Policy, read
from perceptloss.compare.pairing import find_images
from perceptloss.compare.pixels import as_tensor, stored
from perceptloss.compare.settings import Pairing
from perceptloss.compare.views import find_pairs
from perceptloss.errors import ConfigError, near

__all__ = ["StereoPairDataset"]

_POLICY = Policy(exif="apply", grey="replicate", palette="expand", profile="ignore")
_OURS = ("dataroot_gt", "dataroot_lq", "gt_size", "gt_width", "use_hflip", "use_vflip", "use_colours", "scale")
_HOSTS = (
    *("name", "type", "phase", "io_backend", "num_worker_per_gpu", "batch_size_per_gpu", "dataset_enlarge_ratio"),
    *("prefetch_mode", "num_prefetch_queue", "persistent_workers", "pin_memory", "manual_seed", "use_shuffle"),
)
_COLOURS = tuple(permutations(range(3)))


class StereoPairDataset(Dataset[dict[str, Any]]):
    """Stereo pairs as six channels, left RGB and right RGB: `lq`, `gt` and their paths.

    A folder holds pairs whose names or folders say the view (`0001_L.png` and `0001_R.png`, `left/` and `right/`,
    `im0` and `im1`). Augmentation is what is legal for pairs.

    Args:
        opt: `dataroot_gt`, and `dataroot_lq` (left out: antialiased bicubic shrinking by `scale`); in training
            `gt_size` and `gt_width`, rows and columns of patches, multiples of the scale; `use_hflip` (the views change
            places), `use_vflip`, `use_colours` (exchanged alike in both views).

    Raises:
        ConfigError: listing unknown options, sizes that do not fit, and what is wrong with the folders.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt, self.scale = opt, int(opt["scale"])
        known = (*_OURS, *_HOSTS)
        problems = [f"unknown option {key!r}{near(key, _OURS)}" for key in opt if key not in known]
        self.size: tuple[int, int] | None = None
        if opt.get("phase") == "train":
            rows, columns = opt.get("gt_size"), opt.get("gt_width") or opt.get("gt_size")
            if all(isinstance(n, int) and n > 0 and n % self.scale == 0 for n in (rows, columns)):
                self.size = int(rows or 0), int(columns or 0)
            else:
                problems.append(f"gt_size and gt_width must be multiples of {self.scale}, got {rows} and {columns}")
        self.gt = self._listed("dataroot_gt", problems)
        self.lq = self._listed("dataroot_lq", problems) if opt.get("dataroot_lq") else {}
        if opt.get("dataroot_lq"):
            problems += [f"{name!r} has no low-quality pair" for name in self.gt if name not in self.lq]
        if problems:
            raise ConfigError(problems, f"data set {opt.get('name', 'of pairs')}")
        self.names = sorted(self.gt)

    def _listed(self, key: str, problems: list[str]) -> dict[str, tuple[Path, Path]]:
        if not self.opt.get(key):
            problems.append(f"{key} is missing")
            return {}
        found, more = find_pairs(key, str(self.opt[key]), Pairing(recursive=True, stereo=True), find_images)
        problems += more
        return {name: (left, found.right[name]) for name, left in found.files.items()}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        gt = _pair(self.gt[name])
        if self.lq:
            lq = _pair(self.lq[name])
        else:
            height, width = (n // self.scale * self.scale for n in gt.shape[1:])
            gt = gt[:, :height, :width]
            small = F.interpolate(gt[None], scale_factor=1 / self.scale, mode="bicubic", antialias=True)
            lq = stored(small)[0]
        if self.size is not None:
            lq, gt = self._patch(lq, gt, name)
        return {
            "lq": lq,
            "gt": gt,
            "lq_path": str(self.lq.get(name, self.gt[name])[0]),
            "gt_path": str(self.gt[name][0]),
        }

    def _patch(self, lq: Tensor, gt: Tensor, name: str) -> tuple[Tensor, Tensor]:
        s = self.scale
        rows, columns = (n // s for n in self.size or (0, 0))
        if (
            lq.shape[1] < rows
            or lq.shape[2] < columns
            or gt.shape[1] < s * lq.shape[1]
            or gt.shape[2] < s * lq.shape[2]
        ):
            shown = " and ".join("x".join(map(str, image.shape[1:])) for image in (lq, gt))
            raise ConfigError([f"{name!r} is of {shown}, too small for patches or not {s} times as large"], "data set")
        top, left = random.randint(0, lq.shape[1] - rows), random.randint(0, lq.shape[2] - columns)
        lq = lq[:, top : top + rows, left : left + columns]
        gt = gt[:, s * top : s * (top + rows), s * left : s * (left + columns)]
        mirror, upside = (self.opt.get(key) and random.random() < 0.5 for key in ("use_hflip", "use_vflip"))
        order = random.choice(_COLOURS) if self.opt.get("use_colours") else _COLOURS[0]
        return _turned(lq, mirror, upside, order), _turned(gt, mirror, upside, order)


def _pair(files: tuple[Path, Path]) -> Tensor:
    return torch.cat([as_tensor(read(file, _POLICY)) for file in files])


def _turned(pair: Tensor, mirror: Any, upside: Any, order: tuple[int, ...]) -> Tensor:
    pair = pair.flip(2).roll(3, 0) if mirror else pair
    pair = pair.flip(1) if upside else pair
    return pair[[*order, *(3 + c for c in order)]].contiguous()
