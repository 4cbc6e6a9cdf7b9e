"""Opinions from a plain CSV file."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from perceptloss.compare.folders import spelt, trouble
from perceptloss.teach.data.opinion import Opinion, OpinionsError
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.tables import Row, read_rows

__all__ = ["read_csv"]

_COLUMNS: Final = (
    *("image", "mos", "dmos", "reference", "std", "content", "distortion", "level"),
    *("image_right", "reference_right"),
)
_NEAR: Final = 0.8  # likeness from which on a name is a slip of the pen
_log = logging.getLogger("perceptloss.teach")


def read_csv(
    root: str | Path,
    *,
    name: str | None = None,
    higher_better: bool | None = None,
    range: tuple[float, float] | None = None,
) -> OpinionSet:
    """Opinions from a CSV file in UTF-8 whose first line names the columns.

    Columns `image` and `mos` (or `dmos`, of which lower is better) must be there. These may be, and their cells may be
    empty: `reference`, `std`, `content`, `distortion`, `level`, and for stereo pairs `image_right`, `reference_right`.
    Paths are relative to the folder of the file. Without `content`, the reference names the content, or the image
    where there is none. A picture that is a row of its own and the reference of others has their content.

    Args:
        root: The file.
        name: Of the data set; by default that of the file without its ending.
        higher_better: Whether a higher number is a better picture; by default as the column is called.
        range: Lowest and highest value of the scale; by default those that occur.

    Raises:
        OpinionsError: listing missing and misspelt columns, cells that are not numbers, rows that come twice, and
            missing pictures.
    """
    path = Path(root)
    if not path.is_file():
        raise OpinionsError([f"{path} is not a file"], "csv")
    rows = read_rows(path, ("image", "mos|dmos"))
    scores = {"mos", "dmos"} & {column for row in rows for column in row.cells}
    score = "dmos" if scores == {"dmos"} else "mos"
    problems: list[str] = [*_unknown(path, rows), *_repeated(rows)]
    problems += ["there are scores in mos and in dmos; leave one column out"] if len(scores) > 1 else []
    shared = {
        row.cells["reference"]: row.cells["content"] for row in rows if {"reference", "content"} <= row.cells.keys()
    }
    name = name or path.stem
    opinions = [_opinion(row, score, path.parent, shared, problems) for row in rows]
    problems += [
        f"{row.where}: {file} {'is missing' if why == 'is not there' else why}"
        for row, opinion in zip(rows, opinions, strict=True)
        for file in opinion.files
        if file != path.parent and (why := trouble(file))
    ]
    if problems:
        raise OpinionsError(problems, str(path))
    found = [opinion.mos for opinion in opinions]
    higher = score == "mos" if higher_better is None else higher_better
    return OpinionSet(name, opinions, higher, range or (min(found), max(found)))


def _opinion(row: Row, score: str, folder: Path, shared: dict[str, str], problems: list[str]) -> Opinion:
    cells = row.cells
    image = row.text("image", problems)
    level = row.optional("level", problems)
    if level is not None and level != int(level):
        problems.append(f"{row.where}: level is {cells['level']!r}, expected a whole number")

    def file(column: str) -> Path | None:
        return spelt(folder / cells[column]) if column in cells else None

    return Opinion(
        image=spelt(folder / image),
        reference=file("reference"),
        mos=row.number(score, problems),
        std=row.optional("std", problems),
        content=cells.get("content") or cells.get("reference") or shared.get(image, image),
        distortion=cells.get("distortion"),
        level=None if level is None else int(level),
        image_right=file("image_right"),
        reference_right=file("reference_right"),
    )


def _unknown(path: Path, rows: list[Row]) -> list[str]:
    """Problems of columns that are nearly called like a known one that is not there; the others are told."""
    there = dict.fromkeys(column for row in rows for column in row.cells)
    unknown = [column for column in there if column not in _COLUMNS]
    absent = [column for column in _COLUMNS if column not in there]
    meant = {column: close[0] for column in unknown if (close := get_close_matches(column, absent, 1, _NEAR))}
    others = [column for column in unknown if column not in meant]
    if others:
        _log.warning("%s: columns that mean nothing here: %s; known: %s", path, ", ".join(others), ", ".join(_COLUMNS))
    return [f"{path}: unknown column {column!r}; did you mean {known!r}?" for column, known in meant.items()]


def _repeated(rows: list[Row]) -> list[str]:
    first: dict[tuple[str | None, ...], Row] = {}
    problems = []
    for row in rows:
        key = tuple(row.cells.get(column) for column in ("image", "image_right", "reference", "reference_right"))
        if first.setdefault(key, row) is not row:
            line = first[key].where.rsplit(" ", 1)[-1]
            again = f"{row.where}: {row.cells.get('image')} was already in line {line}"
            problems.append(f"{again}; give each picture one row, with the mean of its scores")
    return problems
