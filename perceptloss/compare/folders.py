"""What is in a folder: its files, the folders below, and every entry that cannot be used. No entry is passed over.

Entries whose names begin with a dot are hidden and belong to nobody.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from perceptloss.output.names import visible

__all__ = ["Listing", "composed", "list_folder", "spelt", "trouble"]

_log = logging.getLogger("perceptloss.compare")
_Identity = tuple[int, int]  # of a folder, by whatever path


@dataclass(frozen=True)
class Listing:
    """What was found in a folder.

    Attributes:
        files: Regular files and links to such, sorted.
        folders: Those below, where they were not searched, sorted.
        broken: What can be neither read nor searched, and why: dangling links, pipes, locked folders.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """A folder to search.

    Attributes:
        around: The folders that it lies in, by the path on which it was reached.
        is_linked: Whether one of these was a link, the first aside.
        is_again: Whether one of these was searched on another path too.
    """

    path: Path
    around: tuple[_Identity, ...] = ()
    is_linked: bool = False
    is_again: bool = False


def composed(text: str) -> str:
    """Text with its letters composed (NFC): some systems take accents off the letters of file names."""
    return normalize("NFC", text)


def spelt(path: Path) -> Path:
    """The path as the disk has it, where letters are composed in one and decomposed in the other."""
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    parent = spelt(path.parent)
    try:
        return next((parent / name for name in os.listdir(parent) if composed(name) == composed(path.name)), path)
    except (OSError, ValueError):
        return path


def trouble(path: Path) -> str:
    """Why a path cannot be read as a file, as the end of a sentence; empty if nothing is known against it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "is not there"
    except (OSError, ValueError) as error:  # a list may name a null byte
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "" if stat.S_ISREG(mode) else "is a pipe or a device, not a file"


def list_folder(folder: Path, *, deep: bool = False) -> Listing:
    """List a folder.

    Args:
        folder: Where to look.
        deep: Search the folders below too, and those that links lead to; but never a folder inside itself, nor, on
            the far side of a link, by a second link what was searched before. A warning names what is not searched.

    Returns:
        All that is there; a folder that cannot be searched, itself included, is among what is broken.
    """
    found = Listing()
    seen: dict[_Identity, Path] = {}
    waiting = [_Place(folder)]
    while waiting:
        below = _searched(waiting.pop(), found, seen)
        if deep:
            waiting += reversed(below)
        else:
            found.folders.extend(place.path for place in below)
    found.files.sort()
    return found


def _searched(place: _Place, found: Listing, seen: dict[_Identity, Path]) -> list[_Place]:
    """Note what is in a place; the folders in it come next."""
    path = place.path
    try:
        status = path.stat()
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    except OSError as error:
        found.broken[path] = f"cannot be searched: {error.strerror}"
        return []
    here, is_link = (status.st_dev, status.st_ino), bool(place.around) and path.is_symlink()
    first = seen.setdefault(here, path)
    if here in place.around:
        _say("%s leads back to a folder that it is in (%s), and is not searched again", path, first)
        return []
    if first != path and is_link and place.is_linked:
        _say("%s leads to %s, which was searched already", path, first)
        return []
    if first != path and not place.is_again:
        _say("%s and %s are one folder: its files are there under both names", path, first)
    below = []
    for entry in (path / name for name in names):
        reason = trouble(entry)
        if not reason:
            found.files.append(entry)
        elif reason == "is a folder":
            flags = (place.is_linked or is_link, place.is_again or first != path)
            below.append(_Place(entry, (*place.around, here), *flags))
        else:
            found.broken[entry] = reason
    return below


def _say(text: str, *paths: Path) -> None:
    _log.warning(text, *(visible(str(path)) for path in paths))
