"""An unpacked release of a data set: finding its files, and gathering what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perceptloss.compare.folders import Listing, composed, list_folder
from perceptloss.errors import some
from perceptloss.teach.data.opinion import Opinion, OpinionsError
from perceptloss.teach.data.opinions import OpinionSet

__all__ = ["Folder", "Release"]


class Release:
    """A folder with a data set in it; names are matched whatever their case, composed or not.

    Args:
        name: Of the data set, for messages.
        root: The folder.

    Attributes:
        name: As given.
        root: As given.
        problems: Found so far; `stop` and `finish` raise them together.
        opinions: Found so far.

    Raises:
        OpinionsError: if there is no such folder.
    """

    def __init__(self, name: str, root: str | Path) -> None:
        self.name, self.root = name, Path(root)
        self.problems: list[str] = []
        self.opinions: list[Opinion] = []
        if not self.root.is_dir():
            raise OpinionsError([f"{root} is not a folder"], name)

    def has(self, path: str) -> bool:
        """Whether there is a file or folder at a path below the root."""
        return self._find(path) is not None

    def file(self, *places: str) -> Path:
        """The first of several paths below the root that is a file; a problem is noted if none is."""
        found = next((path for path in map(self._find, places) if path is not None and path.is_file()), None)
        return found or self._note_missing("the file", places)

    def folder(self, *places: str, deep: bool = False) -> Folder:
        """The first of several paths below the root that is a folder; a problem is noted if none is.

        Args:
            places: Paths below the root; an empty one is the root.
            deep: Whether files in folders below belong to it.
        """
        found = next((path for path in map(self._find, places) if path is not None and path.is_dir()), None)
        return Folder(found or self._note_missing("the folder", places), self.problems, deep)

    def stop(self) -> None:
        """Raise the problems noted so far, if any."""
        if self.problems:
            raise OpinionsError(dict.fromkeys(self.problems), f"{self.name} at {self.root}")

    def finish(self, range: tuple[float, float], *, higher_better: bool = True) -> OpinionSet:
        """The set of opinions, or the problems that were met in making them."""
        self.stop()
        return OpinionSet(self.name, self.opinions, higher_better, range)

    def _find(self, place: str) -> Path | None:
        path = self.root
        for part in Path(place).parts:
            exact = path / part
            matches = [exact] if exact.exists() else [p for p in _entries(path) if _fold(p.name) == _fold(part)]
            if not matches:
                return None
            path = matches[0]
        return path

    def _note_missing(self, what: str, places: tuple[str, ...]) -> Path:
        names = [p.name + ("/" if p.is_dir() else "") for p in _entries(self.root)]
        there = some(names, 20) or "an empty folder"
        self.problems.append(f"expected {what} {' or '.join(places)}, found {there}")
        return self.root / places[0]


class Folder:
    """The files of a folder by name; what is asked for in vain is noted as a problem.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, problems: list[str], deep: bool = False) -> None:
        self.path, self._problems = path, problems
        self._files: dict[str, Path] = {}
        self._there = path.is_dir()
        listing = list_folder(path, deep=deep) if self._there else Listing()
        problems += [f"{entry} {why}" for entry, why in listing.broken.items()]
        for file in listing.files:
            if (first := self._files.setdefault(_fold(file.name), file)) != file:
                problems.append(f"{file} and {first} have the same name")

    def __iter__(self) -> Iterator[Path]:
        return iter(self._files.values())

    def get(self, name: str) -> Path:
        """The file of this name, or the place where it should be."""
        found = self._files.get(_fold(name))
        if found is None and self._there:  # a folder that is missing altogether was noted once
            self._problems.append(f"{self.path / name} is missing")
        return found or self.path / name


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:  # no folder, or a locked one, where whatever is wanted will be missing
        return []


def _fold(name: str) -> str:
    return composed(name).lower()
