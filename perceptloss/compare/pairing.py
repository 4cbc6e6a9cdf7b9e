"""Which files belong together: sets of images by stem, and everything that speaks against a comparison."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Final
from unicodedata import normalize

from perceptloss.compare.folders import composed, list_folder, spelt, trouble
from perceptloss.compare.images import SUFFIXES
from perceptloss.compare.settings import Pairing
from perceptloss.compare.strip import too_slow
from perceptloss.errors import PairingError, points, some
from perceptloss.output.names import visible
from perceptloss.output.tables import counted

__all__ = ["REFERENCE", "ImageSet", "Images", "Matched", "find_images", "match", "refuse", "same_source"]

Images = str | PathLike[str] | Sequence[str | PathLike[str]]
REFERENCE = "the reference"
_LIKE_LATIN: Final = str.maketrans("авеіјкмнорсѕтухοαν", "abeijkmhopcstyxoav")  # Cyrillic and Greek
_log = logging.getLogger("perceptloss.compare")


@dataclass(frozen=True)
class ImageSet:
    """The images of one system, or the references.

    Attributes:
        name: For messages and tables.
        source: The folder, list or file as given.
        files: Key to path, sorted by key.
        is_file: Whether it was given as one image file.
        right: The right views of stereo pairs, whose left ones are `files`; empty for other images.
    """

    name: str
    source: str
    files: dict[str, Path]
    is_file: bool = False
    right: dict[str, Path] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """File of a key; the only one, if it was given as one file."""
        return next(iter(self.files.values())) if self.is_file else self.files[key]

    def paths(self, key: str) -> tuple[Path, ...]:
        """All files of a key: one, or the left and the right view."""
        views = (self.files, self.right) if self.right else (self.files,)
        return tuple(next(iter(view.values())) if self.is_file else view[key] for view in views)


@dataclass(frozen=True)
class Matched:
    """Keys that can be compared, and those left out with the sets that lack them."""

    keys: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]


def refuse(problems: Sequence[str]) -> None:
    """Raise `PairingError` listing all problems, if there are any."""
    if problems:
        count = counted(len(problems), "problem")
        raise PairingError(f"{count} in the images to compare:\n{points(map(visible, problems), len(problems))}")


def find_images(name: str, source: Images, rules: Pairing) -> tuple[ImageSet, list[str]]:
    """List the images of a folder, a file, several files, a `.txt` list or a two-column `.csv`.

    Args:
        name: What messages call the set.
        source: A folder; an image; a sequence of images; a text file with one path per line; a
            CSV file of rows `image,path` where `image` is the key. Paths inside a list are relative to it.
        rules: How stems become keys.

    Returns:
        The set and all problems: nothing found, files that are not there, two files of one key.
    """
    if slow := too_slow(rules.strip, source):
        return ImageSet(name, str(source), {}), [f"{name}: {problem}" for problem in slow]
    if not isinstance(source, (str, PathLike)):
        paths = [Path(p) for p in source]
        if len(paths) > 1 or not paths:
            return _from_paths(name, " ".join(p.as_posix() for p in paths), [(None, p) for p in paths], rules)
        source = paths[0]
    path = spelt(Path(source))
    if trouble(path) == "is a folder":
        return _from_folder(name, path, rules)
    if path.suffix.lower() in (".txt", ".csv"):
        return _from_list(name, path, rules)
    found, problems = _from_paths(name, path.as_posix(), [(None, path)], rules)
    return replace(found, is_file=True), problems


def _from_folder(name: str, folder: Path, rules: Pairing) -> tuple[ImageSet, list[str]]:
    listing = list_folder(folder, deep=rules.recursive)
    entries = sorted([*listing.files, *listing.broken])
    images = [p for p in entries if p.suffix.lower() in SUFFIXES and p != folder]
    other = [visible(p.name) for p in listing.files if p.suffix.lower() not in SUFFIXES]
    problems = [f"{name}: {p.as_posix()} {why}" for p, why in listing.broken.items() if p not in images]
    shown, folders = visible(str(folder)), [visible(p.name) for p in listing.folders]
    if other:
        _log.warning("%s: %d files are not images of a known kind, ignored: %s", shown, len(other), some(other))
    if not images:
        inside = f"; it has the folders {some(folders)} (--recursive searches them)" if folders else ""
        return ImageSet(name, folder.as_posix(), {}), [*problems, f"{name}: no images in {folder.as_posix()}{inside}"]
    if folders:
        _log.warning("%s: folders inside are not searched without --recursive: %s", shown, some(folders))
    keyed = [((p.relative_to(folder).parent / "_").as_posix()[:-1] + _stem(p, rules), p) for p in images]
    found, more = _from_paths(name, folder.as_posix(), keyed, rules)
    return found, problems + more


def _from_list(name: str, path: Path, rules: Pairing) -> tuple[ImageSet, list[str]]:
    if path.exists() and not path.is_file():
        return ImageSet(name, path.as_posix(), {}), [f"{name}: {path} is a pipe or device, expected a file"]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return ImageSet(name, path.as_posix(), {}), [f"{name}: {path}: cannot be read: {reason}"]
    if "\0" in text:
        return ImageSet(name, path.as_posix(), {}), [f"{name}: {path} is no list: it holds null bytes"]
    rows: list[tuple[str | None, Path]] = []
    problems: list[str] = []
    if path.suffix.lower() == ".txt":
        rows = [(None, path.parent / line.strip()) for line in text.split("\n") if line.strip()]
    else:
        try:
            table = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            return ImageSet(name, path.as_posix(), {}), [f"{name}: {path} is not CSV: {error}"]
        for number, row in enumerate(table, start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and [c.lower() for c in cells] == ["image", "path"]):
                continue
            if len(cells) != 2 or not all(cells):
                problems.append(f"{name}: {path} line {number}: expected two columns, image and path, got {row}")
                continue
            rows.append((cells[0], path.parent / cells[1]))
    found, more = _from_paths(name, path.as_posix(), rows, rules)
    return found, problems + more


def _from_paths(
    name: str, source: str, rows: Iterable[tuple[str | None, Path]], rules: Pairing
) -> tuple[ImageSet, list[str]]:
    by_key: dict[str, list[Path]] = defaultdict(list)
    problems = []
    for key, path in ((key, spelt(path)) for key, path in rows):
        if why := trouble(path):
            problems.append(f"{name}: {path.as_posix()} {why}")
        by_key[composed(_stem(path, rules) if key is None else key)].append(path)
    if not by_key:
        problems.append(f"{name}: no images in {source}")
    for key, paths in sorted(by_key.items()):
        if len(paths) > 1:
            problems.append(f"{name}: {len(paths)} files are called {key!r}: {_told_apart(paths)}; keep one of them")
        if not key or key.endswith("/"):
            problems.append(f"{name}: --strip leaves nothing of the name of {paths[0].as_posix()}")
    return ImageSet(name, source, {key: paths[0] for key, paths in sorted(by_key.items())}), problems


def _told_apart(paths: Sequence[Path]) -> str:
    """Names of files; spelt out where some of them look the same."""
    names = [path.name for path in paths]
    if len(set(map(composed, names))) == len(set(names)):
        return ", ".join(names)
    return f"{', '.join(map(ascii, names))} (letters that are composed in one and decomposed in another)"


def _stem(path: Path, rules: Pairing) -> str:
    """The stem without its stripped endings; each expression takes one off, in any order."""
    stem, left = composed(path.stem), list(rules.strip)
    while True:
        for pattern in left:
            shorter = re.sub(f"(?:{pattern})$", "", stem, count=1)
            if shorter != stem:
                stem = shorter
                left.remove(pattern)
                break
        else:
            return stem


def match(sets: Sequence[ImageSet], rules: Pairing) -> tuple[Matched, list[str]]:
    """Keys that all sets have; single files are matched whatever they are called.

    Returns:
        The keys, sorted, and the problems: missing images, unless that is allowed.
    """
    if all(images.is_file for images in sets):
        named = next((images for images in sets if images.name == REFERENCE), sets[0])
        return Matched(tuple(named.files), {}), []
    union = sorted({key for images in sets for key in images.files})
    left_out = {key: tuple(s.name for s in sets if key not in s.files) for key in union}
    left_out = {key: lacking for key, lacking in left_out.items() if lacking}
    keys = tuple(key for key in union if key not in left_out)
    problems = [] if rules.allow_missing else _missing(sets, left_out)
    if not keys and any(images.files for images in sets):
        problems.append("no image is in all sets; keys are file stems, --strip removes endings from them")
    return Matched(keys, left_out), problems


def _missing(sets: Sequence[ImageSet], left_out: Mapping[str, tuple[str, ...]]) -> list[str]:
    """One line per key and per set that lacks it; a key that one set alone has is extra there."""
    problems = []
    for key, lacking in left_out.items():
        have = [images.name for images in sets if images.name not in lacking]
        if len(have) == 1 and have[0] != REFERENCE:
            problems.append(f"{have[0]}: {key!r} is extra: no other set has it")
        else:
            problems += [f"{name}: {key!r} is missing (in {', '.join(have)})" for name in lacking]
    hints = [hint for images in sets if (hint := _hint(images, left_out))]
    return problems + hints + _alike(left_out)


def _hint(images: ImageSet, left_out: Mapping[str, tuple[str, ...]]) -> str:
    """Which `--strip` would pair everything that a set lacks, if one would."""
    missing = [key for key, lacking in left_out.items() if images.name in lacking and key not in images.files]
    extra = {key for key in images.files if key in left_out}
    endings = [{other.removeprefix(key) for other in extra if other.startswith(key)} for key in missing]
    common = set.intersection(*endings) if endings else set()
    return f"{images.name}: --strip {shlex.quote(re.escape(min(common)))} would pair all of these" if common else ""


def _alike(keys: Iterable[str]) -> list[str]:
    """That names are different ones although they look the same."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_look[_look(key)].append(key)
    found = [twins for twins in by_look.values() if len(twins) > 1]
    if not found:
        return []
    names = " and ".join(map(ascii, found[0]))
    kind = "capitals" if len(set(map(str.casefold, found[0]))) == 1 else "signs that look alike or cannot be seen"
    more = f" (and so do {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"{names} differ only in {kind}{more}; rename them alike"]


def _look(key: str) -> str:
    """What a reader may see of a name: no capitals, widths or invisible signs, and Latin for letters like it."""
    return "".join(sign for sign in normalize("NFKC", key).casefold().translate(_LIKE_LATIN) if sign.isprintable())


def same_source(sets: Sequence[ImageSet]) -> list[str]:
    """Problems where one folder, list or file was given twice."""
    same: dict[tuple[str, ...], list[ImageSet]] = defaultdict(list)
    for images in sets:
        same[tuple(map(os.path.realpath, images.files.values() or (images.source,)))].append(images)
    return [
        f"{' and '.join(images.name for images in twins)} are the same files: {twins[0].source}"
        for _, twins in sorted(same.items(), key=lambda item: str(item[0]))
        if len(twins) > 1
    ]
