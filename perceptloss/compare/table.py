"""Results as text: an aligned table, Markdown or LaTeX; always with direction, count and signatures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from perceptloss.compare.results import Flag, Results
from perceptloss.compare.summary import Cell, Standing
from perceptloss.errors import some
from perceptloss.output.names import in_markdown, visible
from perceptloss.output.tables import Row, counted, latex, markdown, text

__all__ = ["Format", "decimals", "render", "sentences"]

Format = Literal["table", "md", "latex", "csv", "json"]
_MINUS: Final = "−"


@dataclass(frozen=True)
class _Grid:
    """Cells of a table; a critic's cell is a pair: the score, and its difference to the baseline.

    Above the first column of each group stands its name, where a run declares roles.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | tuple[str, str], ...], ...]
    groups: tuple[str, ...]
    notes: tuple[str, ...]
    signatures: tuple[str, ...]

    @property
    def above(self) -> tuple[tuple[str, ...], ...]:
        """The row above the header, if there is one."""
        return (self.groups,) if self.groups else ()


def render(results: Results, form: Format = "table") -> str:
    """Text of the results, ending in a new line; equal for equal results (`json` but for its provenance).

    Args:
        results: What to show.
        form: `table`, `md` and `latex` show means (and each image, for one system); `csv` holds
            every score, `json` everything.
    """
    writers: dict[str, Callable[[], str]] = {
        "table": lambda: _text(_grid(results)),
        "md": lambda: _markdown(_grid(results)),
        "latex": lambda: _latex(_grid(results)),
        "csv": results.to_csv,
        "json": results.to_json,
    }
    if form not in writers:
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {form!r}")
    return writers[form]()


def decimals(values: Sequence[float]) -> int:
    """Digits after the point such that the largest value shows three or four that matter."""
    largest = max(map(abs, values), default=0)
    magnitude = math.floor(math.log10(largest)) if largest else 0
    return min(8, max(4, 2 - magnitude) if magnitude < 0 else max(1, 3 - magnitude))


def sentences(results: Results) -> list[str]:
    """What a reader must know beside the numbers, in a fixed order."""
    total = len(results.images)
    found = []
    if results.left_out:
        lacking = sorted({name for names in results.left_out.values() for name in names})
        found.append(
            f"{len(results.left_out)} of {total + len(results.left_out)} images were left out, because they are not in "
            f"{', '.join(lacking)}: {some(results.left_out)}"
        )
    by_kind: dict[str, list[Flag]] = defaultdict(list)
    for flag in results.flags:
        by_kind[flag.kind].append(flag)
    endings = {
        "identical": "judged a copy of the reference",
        "resized": "resized to its reference before scoring",
        "changed": "changed after it was checked, and scored as it was then",
        "cut": "cut before scoring, itself or its reference",
        "not-finite": "without a finite score, left out of that critic's means for all systems",
    }
    for kind, flags in by_kind.items():
        if kind in endings:
            found.append(f"{endings[kind]}: {some(map(_subject, flags))}")
        else:
            found += [flag.text for flag in flags]
    return list(map(visible, found))


def _grid(results: Results) -> _Grid:
    results = results.in_groups()
    summary = results.summary()
    single = len(results.systems) == 1
    title = f"means over {counted(len(results.images), 'image')}"
    if results.left_out:
        title += f" of {len(results.images) + len(results.left_out)} (those in all sets)"
    title += f" · {results.systems[0]}" if single else f" · baseline {results.baseline}"
    notes = sentences(results)
    if not all(column.is_evidence for column in results.critics):
        notes.append("*: trained on, so no evidence; counts for neither rank nor wins")
    header = ["image" if single else "system", *(column.header for column in results.critics)]
    if single:
        rows = _image_rows(results, summary.standings[0])
    else:
        header += ["rank", "wins"]
        rows = _system_rows(results, summary.standings)
        evidence = sum(column.is_evidence for column in results.critics)
        over = f"{counted(len(results.images), 'image')} and {counted(evidence, 'critic')}"
        notes += [
            "beside a score: its mean difference to the baseline, image by image; means alone: a small one may be "
            "chance",
            f"rank: mean over {over}, 1 is best; wins: images on which more critics prefer the system to the baseline",
        ]
    signatures = [column.signature for column in results.critics]
    groups = _groups(results, len(header))
    return _Grid(visible(title), tuple(header), tuple(rows), groups, tuple(notes), tuple(map(visible, signatures)))


def _groups(results: Results, width: int) -> tuple[str, ...]:
    """Names above the columns of a table so wide, each above the first of its group; none without roles."""
    groups = [column.group or "" for column in results.critics]
    if not any(groups):
        return ()
    shown = [name if n == 0 or name != groups[n - 1] else "" for n, name in enumerate(groups)]
    return ("", *shown, *[""] * (width - len(shown) - 1))


def _image_rows(results: Results, standing: Standing) -> list[tuple[str | tuple[str, str], ...]]:
    rows: list[tuple[str | tuple[str, str], ...]] = []
    scores = results.values[0]
    digits = [decimals([v for v in row if v is not None]) for row in scores]
    for index, image in enumerate(results.images):
        cells = [(_number(row[index], d), "") for row, d in zip(scores, digits, strict=True)]
        rows.append((image.key, *cells))
    rows.append(("mean", *((_number(cell.mean, d), "") for cell, d in zip(standing.cells, digits, strict=True))))
    return rows


def _system_rows(results: Results, standings: Sequence[Standing]) -> list[tuple[str | tuple[str, str], ...]]:
    columns = list(zip(*(standing.cells for standing in standings), strict=True))
    digits = [decimals([cell.mean for cell in column if cell.mean is not None]) for column in columns]
    rows: list[tuple[str | tuple[str, str], ...]] = []
    for name, standing in zip(results.systems, standings, strict=True):
        cells = [(_number(c.mean, d), _difference(c, d)) for c, d in zip(standing.cells, digits, strict=True)]
        wins = "—" if standing.wins is None else f"{standing.wins}/{len(results.images)}"
        rows.append((name, *cells, _number(standing.rank, 2), wins))
    return rows


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def _difference(cell: Cell, digits: int) -> str:
    """Signed difference; in scientific form where the column's digits would hide it."""
    if cell.difference is None:
        return ""
    shown = f"{cell.difference:+.{digits}f}"
    if cell.difference and not shown.strip("+-0."):
        shown = f"{cell.difference:+.0e}"
    return ("0" if not cell.difference else shown).replace("-", _MINUS)


def _text(grid: _Grid) -> str:
    critics = [n for n, cell in enumerate(grid.rows[0]) if isinstance(cell, tuple)]
    flat: list[list[str]] = [[] for _ in grid.rows]
    for n in range(len(grid.header)):
        column = [row[n] for row in grid.rows]
        pairs = [cell if isinstance(cell, tuple) else (cell, "") for cell in column]
        widths = [max(len(pair[k]) for pair in pairs) for k in (0, 1)]
        for row, (score, difference) in zip(flat, pairs, strict=True):
            cell = f"{score:>{widths[0]}}  {difference:>{widths[1]}}" if n in critics else score
            row.append(cell.rstrip())
    align = "l" * (len(grid.header) - 2) + "rr" if "wins" in grid.header else "l"
    table = text([*grid.above, grid.header, *flat], align)
    return f"{grid.title}\n{table}" + _lines([*grid.notes, *(f"  {signature}" for signature in grid.signatures)])


def _joined(cell: str | tuple[str, str]) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell[0]} ({cell[1]})" if cell[1] else cell[0]


def _markdown(grid: _Grid) -> str:
    head = [in_markdown(cell.removesuffix("*")) + "*" * cell.endswith("*") for cell in grid.header]
    rows = [[in_markdown(_joined(name)), *map(_joined, cells)] for name, *cells in grid.rows]
    lines: list[Row] = [*grid.above, head, *rows]
    table = markdown(lines[0], lines[1:])
    notes = [f"- {in_markdown(note)}" for note in grid.notes]
    notes += [f"- `{line}`" if "`" not in line else f"- {in_markdown(line)}" for line in grid.signatures]
    return f"{in_markdown(grid.title)}\n\n{table}\n{_lines(notes)}"


def _latex(grid: _Grid) -> str:
    comments = _lines(f"% {line}" for line in (grid.title, *grid.notes, *grid.signatures))
    lines: list[Row] = [*grid.above, grid.header, *([_joined(cell) for cell in row] for row in grid.rows)]
    return comments + latex(lines[0], lines[1:])


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _subject(flag: Flag) -> str:
    where = f"{flag.system}/{flag.image}"
    return f"{where} ({flag.critic})" if flag.critic else where
