"""Finding, pairing, checking and reading image files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from perceptloss.errors import ConfigError, InputError

__all__ = ["Pair", "bundled", "check", "find_pairs", "read_image", "to_tensor", "write_png"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_OPAQUE_8_BIT = frozenset({"RGB", "L", "P", "1"})


@dataclass(frozen=True)
class Pair:
    """A ground-truth file, its low-quality file if there is one, and the name both go by."""

    gt: Path
    lq: Path | None
    name: str


def bundled(names: Iterable[str]) -> list[Pair]:
    """Photographs that are installed with scikit-image, so that a recipe runs without a data set.

    Raises:
        ConfigError: if scikit-image or one of the files is missing.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            [
                "the default photographs come with scikit-image, which is not installed: "
                "`pip install scikit-image`, or give your own with --data.train and --data.val"
            ],
            "data",
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    pairs = [Pair(folder / name, None, Path(name).stem) for name in names]
    missing = [
        f"scikit-image has no {pair.gt}; give your own images with --data.train"
        for pair in pairs
        if not pair.gt.is_file()
    ]
    if missing:
        raise ConfigError(missing, "data")
    return pairs


def find_pairs(gt_folders: Sequence[str], lq_folders: Sequence[str], scale: int, where: str) -> list[Pair]:
    """All images below the folders, each with its low-quality partner if such folders are given.

    A partner has the same path below its folder, whatever the suffix; its stem may end in
    `x4` (the scale). The n-th low-quality folder belongs to the n-th ground-truth folder.

    Raises:
        ConfigError: listing missing folders, images without partner and names that occur twice.
    """
    problems: list[str] = []
    if lq_folders and len(lq_folders) != len(gt_folders):
        raise ConfigError([f"{len(gt_folders)} ground-truth folders, but {len(lq_folders)} low-quality folders"], where)
    pairs: list[Pair] = []
    for i, folder in enumerate(gt_folders):
        gt = _files(Path(folder), problems)
        lq = _files(Path(lq_folders[i]), problems, f"x{scale}") if lq_folders else {}
        prefix = f"{Path(folder).name}/" if len(gt_folders) > 1 else ""
        if lq_folders:
            problems += [f"{gt[key]} has no low-quality partner in {lq_folders[i]}" for key in gt.keys() - lq.keys()]
            problems += [f"{lq[key]} has no ground truth in {folder}" for key in lq.keys() - gt.keys()]
        pairs += [Pair(path, lq.get(key), prefix + key) for key, path in gt.items()]
    names = [pair.name for pair in pairs]
    problems += (
        [f"{len(names) - len(set(names))} images have the same name; rename a folder"]
        if len(set(names)) < len(names)
        else []
    )
    if problems:
        raise ConfigError(sorted(problems), where)
    return pairs


def _files(folder: Path, problems: list[str], ending: str = "") -> dict[str, Path]:
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder")
        return {}
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()):
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        if key in found:
            problems.append(f"{path} and {found[key]} have the same stem")
        found[key] = path
    if not found:
        problems.append(f"{folder} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return found


def read_image(path: Path) -> np.ndarray:
    """Decode an image to RGB, uint8, (H, W, 3).

    Raises:
        InputError: naming the file, if it is damaged, or not an opaque image of 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _OPAQUE_8_BIT or "transparency" in image.info:
                raise InputError(
                    f"{path}: mode {image.mode}; expected 8-bit RGB or grey without transparency. Convert it first."
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {error}") from None


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def check(pairs: Sequence[Pair], smallest: int, scale: int, *, decode: bool) -> list[str]:
    """What is wrong with the files of some pairs, all of them, in order.

    Args:
        pairs: Pairs to look at.
        smallest: Least side of a ground truth, pixels.
        scale: Ground-truth pixels per low-quality pixel.
        decode: Read every pixel, which finds truncated files; otherwise only headers.
    """

    def look(pair: Pair) -> list[str]:
        try:
            sizes = [read_image(p).shape[:2] if decode else _size(p) for p in (pair.gt, pair.lq) if p is not None]
        except InputError as error:
            return [str(error)]
        height, width = sizes[0]
        if min(height, width) // scale * scale < smallest:
            return [f"{pair.gt}: {height}x{width} pixels; at least {smallest}x{smallest} are needed"]
        if pair.lq is not None and sizes[1] != (height // scale, width // scale):
            found = "{}x{}".format(*sizes[1])
            return [f"{pair.lq}: {found} pixels, but {pair.gt} is {height}x{width} and the scale {scale}"]
        return []

    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        return [problem for found in pool.map(look, pairs) for problem in found]


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)


def write_png(image: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as an 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(path)
