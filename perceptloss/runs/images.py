"""Finding, pairing and checking picture files; they are read by `perceptloss.compare.images`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from perceptloss.compare.images import Policy, inspect_all
from perceptloss.compare.pairing import find_images
from perceptloss.compare.settings import Pairing
from perceptloss.errors import ConfigError

__all__ = ["Pair", "bundled", "check", "find_pairs"]


@dataclass(frozen=True)
class Pair:
    """A ground-truth file, its low-quality file if there is one, and the name both go by."""

    gt: Path
    lq: Path | None
    name: str

    @property
    def files(self) -> dict[str, Path]:
        """Every file, by what it is called in messages."""
        return {self.name: self.gt} | ({} if self.lq is None else {f"{self.name} (low quality)": self.lq})


def bundled(names: Iterable[str], own: str = "--data.train and --data.val") -> list[Pair]:
    """Photographs that are installed with scikit-image, so that a recipe runs without a data set.

    Args:
        names: Of their files.
        own: Flags that give others, for messages.

    Raises:
        ConfigError: if scikit-image or one of the files is missing.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        advice = f"`pip install scikit-image`, or give your own with {own}"
        raise ConfigError([f"the default photographs come with scikit-image, which is not installed: {advice}"], "data")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    pairs = [Pair(folder / name, None, Path(name).stem) for name in names]
    missing = [f"scikit-image has no {pair.gt}" for pair in pairs if not pair.gt.is_file()]
    if missing:
        raise ConfigError([*missing, f"give your own images with {own}"], "data")
    return pairs


def find_pairs(gt_folders: Sequence[str], lq_folders: Sequence[str], scale: int, where: str) -> list[Pair]:
    """All images below the folders, each with its low-quality partner if such folders are given.

    A partner has the same path below its folder, whatever the suffix; its stem may end in
    `x4` (the scale). The n-th low-quality folder belongs to the n-th ground-truth folder.

    Raises:
        ConfigError: listing missing folders, images without partner and names that occur twice.
    """
    if lq_folders and len(lq_folders) != len(gt_folders):
        raise ConfigError([f"{len(gt_folders)} ground-truth folders, but {len(lq_folders)} low-quality folders"], where)
    problems: list[str] = []
    pairs: list[Pair] = []
    for i, folder in enumerate(gt_folders):
        gt = _files(folder, problems)
        lq = _files(lq_folders[i], problems, f"x{scale}") if lq_folders else {}
        prefix = f"{Path(folder).name}/" if len(gt_folders) > 1 else ""
        if lq_folders:
            problems += [f"{gt[key]} has no low-quality partner in {lq_folders[i]}" for key in gt.keys() - lq.keys()]
            problems += [f"{lq[key]} has no ground truth in {folder}" for key in lq.keys() - gt.keys()]
        pairs += [Pair(path, lq.get(key), prefix + key) for key, path in gt.items()]
    if twice := len(pairs) - len({pair.name for pair in pairs}):
        problems.append(f"{twice} images have the same name; rename a folder")
    if problems:
        raise ConfigError(sorted(problems), where)
    return pairs


def _files(folder: str, problems: list[str], ending: str = "") -> dict[str, Path]:
    found, more = find_images("images", folder, Pairing(recursive=True, strip=(ending,) if ending else ()))
    problems += [problem.removeprefix("images: ") for problem in more]
    return found.files


def check(pairs: Sequence[Pair], policy: Policy, smallest: int, scale: int, *, decode: bool) -> list[str]:
    """What is wrong with the files of some pairs, all of them, in order.

    Args:
        pairs: Pairs to look at.
        policy: By which they will be read.
        smallest: Least side of a ground truth, pixels.
        scale: Ground-truth pixels per low-quality pixel.
        decode: Read every pixel, which finds truncated files; otherwise only headers.
    """
    paths = [path for pair in pairs for path in (pair.gt, pair.lq) if path is not None]
    files, problems = inspect_all(paths, policy, decode=decode)
    known = {path: file.size for path, file in files.items()}
    for pair in pairs:
        height, width = known.get(pair.gt, (smallest * scale,) * 2)
        if min(height, width) // scale * scale < smallest:
            problems.append(f"{pair.gt}: {height}x{width} pixels; at least {smallest}x{smallest} are needed")
        elif pair.gt in known and pair.lq in known and known[pair.lq] != (height // scale, width // scale):
            found = "{}x{}".format(*known[pair.lq])
            problems.append(f"{pair.lq}: {found} pixels, but {pair.gt} is {height}x{width} and the scale {scale}")
    return problems
