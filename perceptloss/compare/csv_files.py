"""Tables of the user's, in CSV with a header, about the images of a comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath

from perceptloss.compare.folders import composed
from perceptloss.compare.images import SUFFIXES
from perceptloss.errors import ConfigError, near, some

__all__ = ["CsvTable", "key_of", "number", "read_table", "unquoted"]


@dataclass(frozen=True)
class CsvTable:
    """Rows of a file, all of the header's length.

    Attributes:
        path: Of the file.
        header: Names of the columns, all different.
        rows: Line in the file, and cells.
    """

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def cell(self, row: tuple[str, ...], column: str) -> str:
        """What a row has in a column."""
        return row[self.header.index(column)]


def read_table(path: str | PathLike[str], needed: Collection[str]) -> CsvTable:
    """Read a file with a header; empty lines are none.

    Args:
        path: The file, UTF-8.
        needed: Columns that it must have.

    Raises:
        ConfigError: listing what is wrong with its form.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"cannot be read as CSV in UTF-8: {reason}"], str(path)) from None
    table = [(n, tuple(cell.strip() for cell in line)) for n, line in enumerate(lines, 1) if any(map(str.strip, line))]
    if len(table) < 2:
        raise ConfigError(["expected a header and at least one row below it"], str(path))
    (_, header), *rows = table
    problems = [f"the header lacks {name!r}{near(name, header)}" for name in needed if name not in header]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        problems.append(f"columns are there twice: {some(map(repr, twice))}")
    ragged = [f"line {n}" for n, row in rows if len(row) != len(header)]
    if ragged:
        problems.append(f"expected {len(header)} cells as in the header, got another number in {some(ragged)}")
    if problems:
        raise ConfigError(problems, str(path))
    return CsvTable(str(path), header, tuple(rows))


def unquoted(name: str) -> str:
    """A name without the apostrophe that keeps spreadsheets from computing it, letters composed."""
    is_quoted = name.startswith("'") and name[1:].lstrip().startswith(("=", "+", "-", "@"))
    return composed(name[1:] if is_quoted else name)


def key_of(name: str, keys: Collection[str]) -> str | None:
    """The key that a table means by an image's name, with or without the ending of its file; None if there is none."""
    name = unquoted(name)
    if name in keys:
        return name
    path = PurePosixPath(name)
    stem = path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name
    return stem if stem in keys else None


def number(text: str) -> float | None:
    """A finite number, or None for text that is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
