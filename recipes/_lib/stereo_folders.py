"""Finding stereo pairs in folders of the published layouts, and reading the disparity that comes with some of them.

| set | left | right | disparity of the left view |
|---|---|---|---|
| Flickr1024 and others | `0001_L.png`, `left/0001.png` | `0001_R.png`, `right/0001.png` | |
| Middlebury | `NAME/im0.png`, `NAME/hr0.png`, `NAME/view1.png` | `im1.png`, `hr1.png`, `view5.png` | `NAME/disp0.pfm` |
| KITTI 2012 | `colored_0/000000_10.png`, `image_0/` | `colored_1/`, `image_1/` | `disp_occ/`, 16 bits |
| KITTI 2015 | `image_2/000000_10.png` | `image_3/` | `disp_occ_0/`, 16 bits |
| scikit-image | `motorcycle_left.png` | `motorcycle_right.png` | `motorcycle_disp.npz` |

KITTI 2012 has its pairs in grey too, and Middlebury right views in other light (`im1E`, `im1L`); these are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from _lib.data import POLICY
from _lib.stereo_data import Scene
from perceptloss.compare.images import inspect_all
from perceptloss.compare.pairing import find_images
from perceptloss.compare.settings import Pairing
from perceptloss.compare.views import view_of
from perceptloss.errors import ConfigError, some
from perceptloss.runs.images import bundled

__all__ = ["MOTORCYCLE", "check_scenes", "find_photographs", "find_scenes", "installed", "read_disparity"]

MOTORCYCLE = ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
_FOLDERS = {
    **dict.fromkeys(("colored_0", "image_0", "image_2"), "left"),
    **dict.fromkeys(("colored_1", "image_1", "image_3"), "right"),
}
_GREY = {"image_0": "colored_0", "image_1": "colored_1"}
_NAMES = {"view1": "left", "view5": "right"}
_NO_PICTURE = re.compile(r"(?:.*/)?(?:disp|flow|mask|calib|obj_map)[^/]*(?:/.*)?", re.IGNORECASE)
_EXPECTED = "names such as 0001_L and 0001_R, folders left/ and right/, NAME/im0 and im1, colored_0/ and colored_1/, "
_EXPECTED += "or image_2/ and image_3/"


def find_scenes(folders: Sequence[str], where: str) -> list[Scene]:
    """The stereo pairs below some folders, in the layouts of this module.

    Raises:
        ConfigError: listing missing folders, names that say no view, views without partner, and names that are twice.
    """
    problems: list[str] = []
    scenes: list[Scene] = []
    for folder in folders:
        found, more = find_images("images", folder, Pairing(recursive=True))
        problems += [problem.removeprefix("images: ") for problem in more]
        prefix = f"{Path(folder).name}/" if len(folders) > 1 else ""
        once = {key: path for key, path in found.files.items() if not _is_shown_better(key, found.files)}
        scenes += _paired(once, prefix, problems)
    twice = len(scenes) - len({scene.name for scene in scenes})
    problems += [f"{twice} pairs have the same name; rename a folder"] if twice else []
    if problems:
        raise ConfigError(sorted(problems), where)
    return scenes


def _is_shown_better(key: str, files: Mapping[str, Path]) -> bool:
    """Whether a file is the grey version of one in colours, or of one in other light."""
    coloured = "/".join(_GREY.get(part, part) for part in key.split("/"))
    in_light = key[:-1] if re.fullmatch(r"(?:.*/)?im[01][EL]", key) else key
    return any(other != key and other in files for other in (coloured, in_light))


def _paired(files: Mapping[str, Path], prefix: str, problems: list[str]) -> list[Scene]:
    views: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    lost = []
    for key, path in files.items():
        said = _view(key)
        if said is not None:
            views[said[0]][said[1]].append(path)
        elif not _NO_PICTURE.fullmatch(key):
            lost.append(path.as_posix())
    if lost:
        problems.append(f"{len(lost)} images say no view: {some(lost, 3)}; expected {_EXPECTED}")
    scenes = []
    for name, sides in views.items():
        problems += [f"{name!r} has {len(paths)} {view} views: {paths}" for view, paths in sides.items() if paths[1:]]
        problems += [
            f"{sides[view][0].as_posix()} is a {view} view without its {other} one"
            for view, other in (("left", "right"), ("right", "left"))
            if view in sides and other not in sides
        ]
        if {"left", "right"} <= sides.keys():
            left = sides["left"][0]
            scenes.append(Scene(prefix + name, left, sides["right"][0], _disparity_beside(left)))
    return scenes


def _view(key: str) -> tuple[str, str] | None:
    """Name of the pair and view that a path without suffix says."""
    parts = key.split("/")
    for n, part in enumerate(parts[:-1]):
        if part.lower() in _FOLDERS:
            return "/".join([*parts[:n], *parts[n + 1 :]]), _FOLDERS[part.lower()]
    if parts[-1].lower() in _NAMES:
        return "/".join(parts[:-1]) or "pair", _NAMES[parts[-1].lower()]
    return view_of(key)


def _disparity_beside(left: Path) -> Path | None:
    """The file of the true disparity, where a layout has one."""
    folder, base = left.parent, left.stem.removesuffix("_left")
    candidates = [folder / "disp0.pfm", folder / "disp0GT.pfm"] if left.stem in ("im0", "hr0") else []
    candidates += [folder.parent / name / left.name for name in ("disp_occ_0", "disp_occ") if folder.name in _FOLDERS]
    candidates += [folder / f"{base}_disp.npz", folder / f"{base}_left_disparity.npz"]
    return next((path for path in candidates if path.is_file()), None)


def find_photographs(folders: Sequence[str], where: str) -> list[Scene]:
    """Every picture below some folders, as a photograph that is given a depth.

    Raises:
        ConfigError: listing what is wrong with the folders.
    """
    scenes, problems = [], []
    for folder in folders:
        found, more = find_images("images", folder, Pairing(recursive=True))
        problems += [problem.removeprefix("images: ") for problem in more]
        scenes += [Scene(f"{Path(folder).name}/{key}", path) for key, path in found.files.items()]
    if problems:
        raise ConfigError(sorted(problems), where)
    return scenes


def installed(photographs: Sequence[str], own: str) -> tuple[list[Scene], list[Scene]]:
    """Photographs that come with scikit-image, to make pairs of, and the real pair that comes with it.

    Raises:
        ConfigError: if scikit-image or a file is missing.
    """
    alone = [Scene(pair.name, pair.gt) for pair in bundled(photographs, own)]
    left, right, disparity = (pair.gt for pair in bundled(MOTORCYCLE, own))
    return alone, [Scene("motorcycle", left, right, disparity)]


def check_scenes(scenes: Sequence[Scene], least: tuple[int, int], *, decode: bool) -> list[str]:
    """What is wrong with the pictures of some scenes; `least` are rows and columns that each must have."""
    files, problems = inspect_all([path for scene in scenes for path in scene.views], POLICY, decode=decode)
    known = {path: file.size for path, file in files.items()}
    for scene in scenes:
        sizes = [known[path] for path in scene.views if path in known]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            shown = ["{}x{}".format(*size) for size in sizes]
            problems.append(f"{scene.right}: {shown[1]} pixels, but {scene.left} has {shown[0]}")
        elif sizes and any(n < k for n, k in zip(sizes[0], least, strict=True)):
            need = f"at least {least[0]}x{least[1]} are needed"
            problems.append(f"{scene.left}: {sizes[0][0]}x{sizes[0][1]} pixels; {need}")
    return problems


def read_disparity(path: Path) -> Tensor:
    """Disparity of a left view in pixels, (H, W); NaN where it is unknown.

    Reads `.npz` and `.npy` arrays, `.pfm` files of Middlebury, and 16-bit PNG files of KITTI (256 a pixel, 0 unknown).

    Raises:
        ConfigError: if the file is none of them.
    """
    try:
        if path.suffix in (".npz", ".npy"):
            loaded = np.load(path, allow_pickle=False)
            values = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        elif path.suffix == ".pfm":
            values = _pfm(path.read_bytes())
        else:
            with Image.open(path) as image:
                if not image.mode.startswith("I"):
                    raise ValueError(f"a picture of mode {image.mode}, not of 16 bits")
                values = np.asarray(image).astype(np.float32) / 256
        found = torch.from_numpy(np.array(values, dtype=np.float32))
        if found.ndim != 2:
            raise ValueError(f"an array of shape {tuple(found.shape)}")
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError([f"{path} cannot be read as a map of disparity: {error}"], "data") from error
    return torch.where(torch.isfinite(found) & (found > 0), found, torch.nan)


def _pfm(data: bytes) -> np.ndarray:
    """One channel, stored from the bottom row up; the sign of its scale says the order of bytes."""
    kind, size, scale, pixels = data.split(b"\n", 3)
    if kind.strip() != b"Pf":
        raise ValueError(f"expected one channel (Pf), got {kind[:8]!r}")
    width, height = map(int, size.split())
    order = "<f4" if float(scale) < 0 else ">f4"
    return np.frombuffer(pixels, order, width * height).reshape(height, width)[::-1]
