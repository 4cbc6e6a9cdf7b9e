"""Where the sets of a comparison come from: folders and lists, stereo pairs, layouts of training frameworks."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike

from perceptloss.compare.layout import chosen, named_like
from perceptloss.compare.pairing import REFERENCE, Images, ImageSet, find_images, match
from perceptloss.compare.settings import Pairing
from perceptloss.compare.views import find_pairs

__all__ = ["find_sets", "layout_hint"]

_log = logging.getLogger("perceptloss.compare")


def find_sets(given: Mapping[str, Images], rules: Pairing, *, quiet: bool = False) -> tuple[list[ImageSet], list[str]]:
    """The sets of images by name, the references among them under `REFERENCE`, and all problems of finding them."""
    sets, problems, notes = [], [], []
    for name, source in given.items():
        find = _find_in_layout if rules.layout != "flat" and _is_folder(source) else find_images
        images, more = find_pairs(name, source, rules, find) if rules.stereo else find(name, source, rules)
        sets.append(images)
        problems += more
    if rules.layout != "flat":
        wanted = next((set(images.files) for images in sets if images.name == REFERENCE), None)
        for n, images in enumerate(sets):
            if images.name != REFERENCE and not images.is_file:
                sets[n], more, told = named_like(images, wanted, rules)
                problems += more
                notes += told
    for note in notes if not quiet else ():
        _log.info("%s", note)
    return sets, problems


def _is_folder(source: Images) -> bool:
    return isinstance(source, (str, PathLike)) and os.path.isdir(source)


def _find_in_layout(name: str, source: Images, rules: Pairing) -> tuple[ImageSet, list[str]]:
    if name == REFERENCE:
        return find_images(name, source, replace(rules, recursive=True))
    images, problems = find_images(name, source, replace(rules, recursive=True, strip=()))  # endings are found
    images, more = chosen(images, rules)
    return images, [*problems, *more]


def layout_hint(given: Mapping[str, Images], rules: Pairing) -> list[str]:
    """The layout that would pair everything, if one would and none was named."""
    if rules.layout != "flat" or not any(_is_folder(source) for name, source in given.items() if name != REFERENCE):
        return []
    other = replace(rules, layout="basicsr")
    before = _log.level
    _log.setLevel(logging.ERROR)  # what it would tell has been told
    try:
        sets, problems = find_sets(given, other, quiet=True)
    finally:
        _log.setLevel(before)
    if problems or any(not images.files for images in sets) or _lacking(sets, other):
        return []
    return ["--layout basicsr would pair all of these: they lie as BasicSR and its kin write them"]


def _lacking(sets: Sequence[ImageSet], rules: Pairing) -> bool:
    matched, problems = match(sets, rules)
    return bool(problems) or not matched.keys or bool(matched.left_out)
