"""Folders as BasicSR and its kin (KAIR, HAT, NAFNet, neosr, traiNNer-redux) write them.

While training a picture is `NAME/NAME_ITERATION.png`, in a test `DATASET/NAME_SUFFIX.png`, for a clip
`DATASET/CLIP/FRAME_SUFFIX.png`; NAME is that of the low-quality file, so that `baby` may be called `babyx4`. NAFNet
puts the ground truth beside it, `NAME_gt.png`, traiNNer-redux the input, `NAME_lr.png`, and with several data sets it
calls the folder `DATASET - NAME`.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from perceptloss.compare.pairing import ImageSet
from perceptloss.compare.settings import Pairing
from perceptloss.errors import some
from perceptloss.output.tables import counted

__all__ = ["chosen", "named_like"]

_HOME: Final = r"(?:(?P<above>.+)/)?(?:(?P<set>[^/]+) - )?(?P<name>[^/]+)/(?P=name)_"
_TRAINING: Final = re.compile(rf"{_HOME}(?P<iteration>\d+)")
_INPUT: Final = re.compile(rf"{_HOME}(?:lr|lq)")
_COPY: Final = "_gt"
_log = logging.getLogger("perceptloss.compare")
_ENDING: Final = re.compile(r"|[^A-Za-z0-9].*|[xX]\d.*")  # what may follow a name: nothing, _SUFFIX, or the scale


def _choice(rules: Pairing) -> str:
    return rules.layout.partition(":")[2]


def chosen(images: ImageSet, rules: Pairing) -> tuple[ImageSet, list[str]]:
    """The pictures of one iteration under the names of their folders; others keep theirs.

    Args:
        images: Everything below a folder, by relative path.
        rules: Whose layout may name the iteration.

    Returns:
        The set without copies of the ground truth, and the problems: no iteration that all images have.
    """
    files = _without_copies(images)
    home = Path(images.source).resolve().name
    runs: dict[str, dict[int, Path]] = defaultdict(dict)
    others = {}
    for key, path in files.items():
        if match := _TRAINING.fullmatch(key if "/" in key else f"{home}/{key}"):
            name = "/".join(filter(None, match.group("above", "set", "name")))
            runs[name][int(match["iteration"])] = path
        else:
            others[key] = path
    choice = _choice(rules)
    if not runs:
        problem = f"{images.name}: no pictures NAME/NAME_{choice} in {images.source}"
        return replace(images, files=others), [problem] if choice.isdecimal() else []
    there = sorted(set().union(*runs.values()))
    common = sorted(set.intersection(*(set(run) for run in runs.values())))
    wanted = int(choice) if choice.isdecimal() else common[-1] if common else there[-1]
    lacking = [name for name, run in runs.items() if wanted not in run]
    if lacking:
        what = f"{images.name}: iteration {wanted} is not there for {some(map(repr, lacking))}"
        advice = f"--layout basicsr:{common[-1]} is the newest that all have" if common else "no iteration is in all"
        return replace(images, files=others), [f"{what}; there are {some(map(str, there), 8)}: {advice}"]
    _log.info("%s: iteration %d of %s", images.name, wanted, some(map(str, there), 8))
    found = {**others, **{name: run[wanted] for name, run in runs.items()}}
    return replace(images, files=dict(sorted(found.items()))), []


def _without_copies(images: ImageSet) -> dict[str, Path]:
    files = images.files
    copies = {k for k in files if k.endswith(_COPY) and k.removesuffix(_COPY) in files}
    if any(_TRAINING.fullmatch(key) for key in files):
        copies |= {key for key in files if _INPUT.fullmatch(key)}
    if copies:
        _log.info("%s: copies of inputs and ground truth left out: %s", images.name, some(sorted(copies)))
    return {key: path for key, path in files.items() if key not in copies}


def named_like(
    images: ImageSet, wanted: Collection[str] | None, rules: Pairing
) -> tuple[ImageSet, list[str], list[str]]:
    """The set under the names of its references: without the folder of the data set, and without a common ending.

    Args:
        images: Of a system, after `chosen`.
        wanted: Keys of the references; None if there are none, when nothing but a common `_SUFFIX` is taken off.
        rules: Whose layout may name the suffix.

    Returns:
        The set, the problems (results of several runs lie there), and notes of what was chosen.
    """
    choice = _choice(rules)
    notes: list[str] = []
    keys = {key: key for key in images.files}
    if choice and not choice.isdecimal():
        keys = {key: key.removesuffix(choice) for key in keys if key.endswith(choice)}
        if not keys:
            return (
                replace(images, files={}, right={}),
                [f"{images.name}: no name in {images.source} ends in {choice!r}"],
                notes,
            )
        if left := len(images.files) - len(keys):
            notes.append(f"{images.name}: {counted(left, 'picture')} without {choice!r} left out")
    known = wanted if wanted is not None else ()
    keys = _below(keys, known)
    problems: list[str] = []
    if wanted is None:
        ending = _common_ending(list(keys.values())) if len(keys) > 1 else ""
    else:
        ending, problems = _ending(images.name, list(keys.values()), known)
    if problems:
        return replace(images, files={}, right={}), problems, notes
    named = {old: new.removesuffix(ending) for old, new in keys.items()}
    files, right = (
        {named[old]: path for old, path in view.items() if old in named} for view in (images.files, images.right)
    )
    return replace(images, files=dict(sorted(files.items())), right=right), [], notes


def _below(keys: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Without a first folder that all have and no reference has."""
    keys = dict(keys)
    while True:
        tops = {new.partition("/")[0] for new in keys.values() if "/" in new}
        if len(tops) != 1 or not all("/" in new for new in keys.values()):
            return keys
        (top,) = tops
        if any(key.startswith(f"{top}/") for key in known):
            return keys
        keys = {old: new.partition("/")[2] for old, new in keys.items()}


def _ending(name: str, keys: Collection[str], known: Collection[str]) -> tuple[str, list[str]]:
    """What all names have behind those of their references."""
    homes: dict[str, list[str]] = defaultdict(list)
    for key in known:
        homes[key.rpartition("/")[0]].append(key)
    endings = []
    for key in keys:
        near = (other for other in homes[key.rpartition("/")[0]] if key.startswith(other))
        endings.append({end for other in near if _ENDING.fullmatch(end := key.removeprefix(other))})
    paired = [found for found in endings if found]
    common = set.intersection(*paired) if paired else set()
    if common or not paired:
        return min(common, key=len, default=""), []
    shortest = [min(found, key=len) for found in paired]
    counts = [f"{end or 'no ending'} ({shortest.count(end)})" for end in sorted(set(shortest))]
    advice = f"choose one, such as --layout basicsr:{max(shortest)}, or give one folder for each"
    return "", [f"{name}: holds results of several kinds, by their endings: {some(counts)}; {advice}"]


def _common_ending(keys: Collection[str]) -> str:
    """The longest `_SUFFIX` that all names have, leaving something of each."""
    first = min(keys, key=len)
    ends = [first[n:] for n, sign in enumerate(first) if sign == "_" and n and "/" not in first[n - 1 :]]
    return next((end for end in ends if all(len(Path(key).name) > len(end) and key.endswith(end) for key in keys)), "")
