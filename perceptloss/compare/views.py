"""Stereo pairs: which two files are the left and the right view of one image."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Final, Literal

from perceptloss.compare.images import ImageFile
from perceptloss.compare.pairing import Images, ImageSet
from perceptloss.compare.settings import Pairing

__all__ = ["find_pairs", "paired", "view_of"]

View = Literal["left", "right"]
Find = Callable[[str, Images, Pairing], tuple[ImageSet, list[str]]]
_SIGNS: Final[dict[str, View]] = {
    "left": "left",
    "l": "left",
    "0": "left",
    "right": "right",
    "r": "right",
    "1": "right",
}
_SIGN: Final = r"(?P<sign>left|right|[lr])"
# what is not the sign is the name of the image; letters beside it would make it part of a word
_LETTERED: Final = (
    rf"(?P<before>(?:.*[^a-z])?){_SIGN}",
    r"(?P<sign>left|right)(?P<after>[^a-z].*)",
    r"(?P<sign>[lr])(?P<after>[_\-. ].*)",
    rf"(?P<before>.*[_\-. ]){_SIGN}(?P<after>[_\-. ].*)",
)
_NUMBERED: Final = (r"(?P<before>(?:.*[^a-z])?)(?:hr|lr|sr|gt|im|img|image|view|cam|out)_?(?P<sign>[01])",)
_EXPECTED: Final = "names such as a_L and a_R, a_left and a_right, hr0 and hr1, or folders left/ and right/"


def view_of(key: str) -> tuple[str, View] | None:
    """Name of the image and view that a key says; None if it says none.

    A folder `left` or `l` decides, else the last part that says something, names before folders.
    """
    parts = key.split("/")
    for n, part in enumerate(parts[:-1]):
        if view := _SIGNS.get(part.lower()):
            name, said = _part_view(parts[-1], _LETTERED) or (parts[-1], None)
            return _joined([*parts[:n], *parts[n + 1 : -1], name if said == view else parts[-1]]), view
    for n in reversed(range(len(parts))):
        if found := _part_view(parts[n], (*_LETTERED, *_NUMBERED)):
            return _joined([*parts[:n], found[0], *parts[n + 1 :]]), found[1]
    return None


def _part_view(part: str, patterns: Sequence[str]) -> tuple[str, View] | None:
    for pattern in patterns:
        if match := re.fullmatch(pattern, part, re.IGNORECASE):
            found = match.groupdict(default="")
            before, after = found.get("before", "").rstrip("_-. "), found.get("after", "").lstrip("_-. ")
            return "_".join(side for side in (before, after) if side), _SIGNS[found["sign"].lower()]
    return None


def _joined(parts: Sequence[str]) -> str:
    return "/".join(part for part in parts if part) or "pair"


def find_pairs(name: str, source: Images, rules: Pairing, find: Find) -> tuple[ImageSet, list[str]]:
    """List the stereo pairs of two folders (or lists, or files), left and right, or of one.

    Args:
        name: What messages call the set.
        source: Two sources, as a sequence or with a comma between them; or one in which names or folders say the view.
        rules: How stems become keys.
        find: Lists the images of a source.

    Returns:
        The set, left views as its files, and all problems: views without partner, names that say no view.
    """
    two = _two(source)
    if two is None:
        found, problems = find(name, source, rules)
        if not found.files and not rules.recursive and not isinstance(source, (list, tuple)):
            below, more = find(name, source, replace(rules, recursive=True))
            found, problems = (below, more) if below.files else (found, problems)
        return _by_name(found, problems)
    sides = [find(name, part, rules) for part in two]
    problems = [problem for _, more in sides for problem in more]
    left, right = (_without_view(images, view) for (images, _), view in zip(sides, ("left", "right"), strict=True))
    source_text = ",".join(str(part) for part in two)
    if left.is_file and right.is_file:
        rights = dict(zip(left.files, right.files.values(), strict=True))
        return _checked(replace(left, source=source_text, right=rights), problems)
    if left.files and right.files:
        problems += [f"{name}: {key!r} has no right view in {two[1]}" for key in left.files if key not in right.files]
        problems += [f"{name}: {key!r} has no left view in {two[0]}" for key in right.files if key not in left.files]
    both = sorted(left.files.keys() & right.files.keys())
    files, rights = ({key: images.files[key] for key in both} for images in (left, right))
    return _checked(ImageSet(name, source_text, files, right=rights), problems)


def _two(source: Images) -> tuple[str | PathLike[str], str | PathLike[str]] | None:
    """The left and the right source, if there are two."""
    if isinstance(source, (str, PathLike)):
        parts = str(source).split(",")
        return (parts[0], parts[1]) if len(parts) == 2 and all(parts) and not os.path.exists(source) else None
    return (source[0], source[1]) if len(source) == 2 else None


def _without_view(images: ImageSet, view: str) -> ImageSet:
    """The set under names without the view, if all of them say the one that was given."""
    found = {key: view_of(key) for key in images.files}
    names = {said[0] for said in found.values() if said and said[1] == view}
    if len(names) < len(found):
        return images
    return replace(images, files={said[0]: images.files[key] for key, said in found.items() if said})


def _by_name(images: ImageSet, problems: list[str]) -> tuple[ImageSet, list[str]]:
    views: dict[View, dict[str, list[Path]]] = {"left": defaultdict(list), "right": defaultdict(list)}
    problems = list(problems)
    for key, path in images.files.items():
        found = view_of(key)
        if found is None:
            problems.append(f"{images.name}: {path.as_posix()} says no view; expected {_EXPECTED}")
        else:
            views[found[1]][found[0]].append(path)
    for view, other in (("left", "right"), ("right", "left")):
        for key, paths in views[view].items():  # type: ignore[index]
            if len(paths) > 1:
                several = ", ".join(path.as_posix() for path in paths)
                problems.append(f"{images.name}: {key!r} has {len(paths)} {view} views: {several}; keep one of them")
            if key not in views[other]:  # type: ignore[index]
                problems.append(f"{images.name}: {paths[0].as_posix()} is a {view} view without its {other} one")
    both = sorted(views["left"].keys() & views["right"].keys())
    left, right = ({key: views[side][key][0] for key in both} for side in ("left", "right"))  # type: ignore[index]
    return replace(images, files=left, right=right, is_file=False), problems


def _checked(images: ImageSet, problems: list[str]) -> tuple[ImageSet, list[str]]:
    same = [key for key in images.files if images.files[key].resolve() == images.right[key].resolve()]
    return images, [*problems, *(f"{images.name}: both views of {key!r} are {images.files[key]}" for key in same)]


def paired(subject: str, files: Sequence[ImageFile]) -> tuple[ImageFile, list[str]]:
    """One image of its one or two files, and the problem if its views are not alike."""
    if len(files) == 1:
        return files[0], []
    left, right = files
    facts = ["{}x{}, {} bits".format(*view.size, view.depth) for view in (left, right)]
    problem = f"{subject} has a left view of {facts[0]} and a right one of {facts[1]}; save both alike"
    return replace(left, right=right), [problem] if facts[0] != facts[1] else []
