"""Pixels of judged pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perceptloss.compare.images import ImageFile, Policy, inspect_all, read, require_pillow
from perceptloss.teach.data.opinion import Opinion, OpinionsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPINIONS", "TAUGHT", "load", "unreadable"]

# profiles of phones and cameras: no published score has heeded them
OPINIONS: Final = Policy(exif="apply", grey="replicate", palette="expand", profile="ignore")
TAUGHT: Final = replace(OPINIONS, depth="round")  # batches and scored sets are kept in 8 bits

_EVEN: Final = "holds two views side by side, so its width must be even"


def load(opinion: Opinion) -> tuple[Tensor, Tensor | None]:
    """Read the judged picture and its reference.

    They are read by the policy `OPINIONS`: as they stand in the file, 8 or 16 bits, upright.

    Returns:
        x and y (None without reference), RGB in [0, 1], (3, H, W) fp32, or (6, H, W) for a stereo pair, left view
        first.

    Raises:
        OpinionsError: listing what is wrong with the files.
    """
    from perceptloss.compare.pixels import as_tensor

    require_pillow()
    files, problems = inspect_all(opinion.files, OPINIONS)
    problems += _wrong_sizes(opinion, files)
    if problems:
        raise OpinionsError(problems, opinion.dataset)
    pixels = {path: as_tensor(read(path, OPINIONS)) for path in files}
    x = _views(pixels, opinion.image, opinion.image_right)
    y = None if opinion.reference is None else _views(pixels, opinion.reference, opinion.reference_right)
    return x, y


def unreadable(opinions: Iterable[Opinion]) -> list[str]:
    """Decode every file once, and say what is wrong: damage, a kind that cannot be read exactly, sizes that differ."""
    listed = tuple(opinions)
    require_pillow()
    paths = dict.fromkeys(path for opinion in listed for path in opinion.files)
    files, problems = inspect_all(list(paths), OPINIONS)
    wrong = (problem for opinion in listed for problem in _wrong_sizes(opinion, files))
    return list(dict.fromkeys([*problems, *wrong]))


def _wrong_sizes(opinion: Opinion, files: dict[Path, ImageFile]) -> list[str]:
    known = [files[path] for path in opinion.files if path in files]
    problems = [
        f"{file.path} is {file.height} x {file.width}, but {known[0].path} is {known[0].height} x {known[0].width}"
        for file in known[1:]
        if file.size != known[0].size
    ]
    if opinion.image_right == opinion.image and known and known[0].width % 2:
        problems.append(f"{known[0].path} {_EVEN}, got {known[0].width}")
    return problems


def _views(pixels: dict[Path, Tensor], left: Path, right: Path | None) -> Tensor:
    """One picture, or the two views of a pair one after the other."""
    import torch

    if right is None:
        return pixels[left]
    if right == left:
        return torch.cat(pixels[left].chunk(2, dim=2))
    return torch.cat([pixels[left], pixels[right]])
