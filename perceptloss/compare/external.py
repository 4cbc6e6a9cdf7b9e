"""Scores made elsewhere, such as those of VMAF or of a model that was asked, as columns of equal right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Final

from perceptloss.card import Direction
from perceptloss.compare.columns import Column
from perceptloss.compare.csv_files import CsvTable, key_of, number, read_table, unquoted
from perceptloss.compare.results import Flag, Results
from perceptloss.errors import ConfigError, near, some

__all__ = ["ExternalScores", "column_names", "join_scores", "read_scores", "unknown_better"]

_STATED: Final = re.compile(r"(?P<name>.+?)\s*(?::\s*(?P<word>higher|lower)|(?P<arrow>[↑↓]))")
_OURS: Final = ("image", "system", "signatures")  # the last in files that perceptloss writes itself


@dataclass(frozen=True)
class ExternalScores:
    """Columns of a file, for the outputs of a comparison.

    Attributes:
        columns: What results keep of them.
        values: `values[system][column][image]`; None where the file has no number.
    """

    columns: tuple[Column, ...]
    values: tuple[tuple[tuple[float | None, ...], ...], ...]


def read_scores(
    path: str | PathLike[str],
    systems: Sequence[str],
    keys: Sequence[str],
    *,
    better: Mapping[str, Direction] | None = None,
    taken: Collection[str] = (),
    allow_missing: bool = False,
) -> ExternalScores:
    """Read a `.csv` with the columns `image` and `system` (which a single system may lack), and one for each judge.

    Args:
        path: The file. The header states the direction, `vmaf:higher` or `vmaf ↑`.
        systems: Names of the systems, in order.
        keys: Of the images, in order.
        better: Direction by column, where the header does not state it.
        taken: Labels that columns must not have.
        allow_missing: Whether an output without a row, or a cell without a number, is a missing score.

    Raises:
        ConfigError: listing what is wrong: columns without direction, cells that are no numbers, rows of other
            systems or images, outputs without a row, or with two.
    """
    table = read_table(path, ("image", *(("system",) if len(systems) > 1 else ())))
    columns, problems = _columns(table, better or {}, taken)
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    known = frozenset(keys)
    foreign = []
    for line, row in table.rows:
        system = unquoted(table.cell(row, "system")) if "system" in table.header else systems[0]
        name = table.cell(row, "image")
        key = key_of(name, known)
        if system not in systems or key is None:
            foreign.append(f"{system}/{name}")
        elif (system, key) in rows:
            problems.append(f"line {line}: {system}/{key} is there twice")
        else:
            rows[system, key] = row
            wrong = [c for c in columns if number(table.cell(row, c)) is None and not _is_gap(table.cell(row, c))]
            problems += [f"line {line}: {c} must be a number, got {table.cell(row, c)!r}" for c in wrong]
    if foreign and not allow_missing:
        advice = "leave these rows out, or allow it by --allow-missing"
        problems.append(f"not among the outputs that are compared: {some(foreign)}; {advice}")
    asked = [(system, key) for system in systems for key in keys]
    lacking = [f"{s}/{k}" for s, k in asked if (s, k) not in rows]
    lacking += [f"{s}/{k} ({c})" for (s, k), row in rows.items() for c in columns if _is_gap(table.cell(row, c))]
    if lacking and not allow_missing:
        problems.append(f"no score of {some(lacking)}; add them, or allow it by --allow-missing")
    if problems:
        raise ConfigError(problems, f"--scores-from {path}")

    def value(system: str, key: str, column: str) -> float | None:
        return number(table.cell(rows[system, key], column)) if (system, key) in rows else None

    values = tuple(tuple(tuple(value(s, k, c) for k in keys) for c in columns) for s in systems)
    return ExternalScores(tuple(columns.values()), values)


def column_names(path: str | PathLike[str]) -> list[str]:
    """Names of the columns of scores that a file has, without a look at its rows.

    Raises:
        ConfigError: if it is not CSV with `image`.
    """
    header = read_table(path, ("image",)).header
    return [_parted(cell)[0] for cell in header if cell not in _OURS]


def _parted(cell: str) -> tuple[str, Direction | None]:
    """Name and direction that a header states."""
    match = _STATED.fullmatch(cell)
    if match is None:
        return unquoted(cell), None
    return unquoted(match["name"]), "higher" if match["word"] == "higher" or match["arrow"] == "↑" else "lower"


def _is_gap(cell: str) -> bool:
    return cell.lower() in ("", "nan", "n/a", "null", "none")


def _columns(
    table: CsvTable, better: Mapping[str, Direction], taken: Collection[str]
) -> tuple[dict[str, Column], list[str]]:
    """Columns by their place in the header, and what is wrong with them."""
    digest = hashlib.sha256(Path(table.path).read_bytes()).hexdigest()[:12]
    columns: dict[str, Column] = {}
    problems = []
    for cell in table.header:
        if cell in _OURS:
            continue
        name, said = _parted(cell)
        stated = said or better.get(name)
        if not name:
            problems.append("a column has no name")
        elif name in taken or name in (column.label for column in columns.values()):
            problems.append(f"{name!r} is there twice: it has a column already")
        elif stated is None:
            problems.append(f"direction of {name!r} is not stated: write {name}:higher or {name}:lower in the header")
        elif better.get(name, stated) != stated:
            problems.append(f"{name!r} is {stated}-better in the header and {better[name]}-better by --better")
        else:
            facts = {
                "name": name,
                "kind": "external",
                "better": stated,
                "summary": f"scores made elsewhere: {table.path}",
            }
            columns[cell] = Column(name, f"{name}|external|sha256:{digest}", facts)
    if not columns and not problems:
        problems.append("there is no column of scores beside image and system")
    return columns, problems


def join_scores(results: Results, parts: Sequence[ExternalScores]) -> Results:
    """The results with more columns, at the end; scores that are missing are flagged."""
    flags = [
        Flag("not-finite", f"{system}: no score by {column.label} for {image.key!r}", system, image.key, column.label)
        for part in parts
        for system, rows in zip(results.systems, part.values, strict=True)
        for column, row in zip(part.columns, rows, strict=True)
        for image, value in zip(results.images, row, strict=True)
        if value is None
    ]
    added = [tuple(row for part in parts for row in part.values[n]) for n in range(len(results.systems))]
    return replace(
        results,
        critics=(*results.critics, *(column for part in parts for column in part.columns)),
        values=tuple((*own, *more) for own, more in zip(results.values, added, strict=True)),
        flags=(*results.flags, *flags),
    )


def unknown_better(better: Mapping[str, Direction], names: Sequence[str]) -> list[str]:
    """What is wrong with directions of columns that no file has."""
    return [
        f"--better {name}: no such column in --scores-from{near(name, names)}" for name in better if name not in names
    ]
