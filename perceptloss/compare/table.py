"""Results as text: an aligned table, Markdown or LaTeX; always with direction, count and signatures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from perceptloss.compare.inference import Effect
from perceptloss.compare.pools import Composite
from perceptloss.compare.results import Flag, Results
from perceptloss.compare.sections import Section, lines, sections
from perceptloss.compare.shown import decimals, half_width, number, signed_number
from perceptloss.compare.statistics.units import Bounds
from perceptloss.compare.summary import Cell, Standing
from perceptloss.compare.summary_csv import summary_csv
from perceptloss.errors import some
from perceptloss.output.names import in_markdown, visible
from perceptloss.output.tables import Row, counted, latex, markdown, text

__all__ = ["Format", "decimals", "render", "sentences"]

Format = Literal["table", "md", "latex", "csv", "summary-csv", "json"]
_Judged: TypeAlias = tuple[str, str, str, str]  # score, difference to the baseline, how far its interval reaches, star
_PLAIN: Final = ("", "", "")


@dataclass(frozen=True)
class _Grid:
    """Cells of a table, texts or those of a critic, and what stands under it.

    Above the first column of each group stands its name, where a run declares roles.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | _Judged, ...], ...]
    groups: tuple[str, ...]
    notes: tuple[str, ...]
    signatures: tuple[str, ...]
    sections: tuple[Section, ...] = ()

    @property
    def above(self) -> tuple[tuple[str, ...], ...]:
        """The row above the header, if there is one."""
        return (self.groups,) if self.groups else ()


def render(results: Results, form: Format = "table") -> str:
    """Text of the results, ending in a new line; equal for equal results (`json` but for its provenance).

    Args:
        results: What to show.
        form: `table`, `md` and `latex` show means (and each image, for one system); `csv` holds
            every score, `summary-csv` a row for each system and critic with all that was tested, `json` everything.
    """
    writers: dict[str, Callable[[], str]] = {
        "table": lambda: _text(_grid(results)),
        "md": lambda: _markdown(_grid(results)),
        "latex": lambda: _latex(_grid(results)),
        "csv": results.to_csv,
        "summary-csv": lambda: summary_csv(results),
        "json": results.to_json,
    }
    if form not in writers:
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {form!r}")
    return writers[form]()


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
    presets = results.inference.presets
    title = f"means over {counted(len(results.images), 'image')}"
    if results.left_out:
        title += f" of {len(results.images) + len(results.left_out)} (those in all sets)"
    title += f" · {results.systems[0]}" if single else f" · baseline {results.baseline}"
    notes = [*lines(results), *sentences(results)]
    if not all(column.is_evidence for column in results.critics):
        notes.append("†: trained on, so no evidence; counts for neither rank nor wins")
    notes += [f"{preset.name}: {_about(preset)}" for preset in presets]
    header = ["image" if single else "system", *(column.header for column in results.critics)]
    header += [preset.header for preset in results.analysis.presets]
    if single:
        rows = _image_rows(results, summary.standings[0])
    else:
        header += ["rank", "wins"]
        rows = _system_rows(results, summary.standings)
        evidence = sum(column.is_evidence for column in results.critics)
        over = f"{counted(len(results.images), 'image')} and {counted(evidence, 'critic')}"
        notes += [
            "beside a score: its mean difference to the baseline, image by image, and how far the interval around that "
            "reaches",
            f"rank: mean over {over}, 1 is best; wins: images on which more critics prefer the system to the baseline",
        ]
    signatures = [column.signature for column in results.critics]
    return _Grid(
        visible(title),
        tuple(header),
        tuple(rows),
        _groups(results, len(header)),
        tuple(map(visible, notes)),
        tuple(map(visible, signatures)),
        tuple(sections(results)),
    )


def _groups(results: Results, width: int) -> tuple[str, ...]:
    """Names above the columns of a table so wide, each above the first of its group; none without roles."""
    groups = [column.group or "" for column in results.critics]
    if not any(groups):
        return ()
    shown = [name if n == 0 or name != groups[n - 1] else "" for n, name in enumerate(groups)]
    return ("", *shown, *[""] * (width - len(shown) - 1))


def _about(preset: Composite) -> str:
    if preset.missing:
        return f"no score, because these are not here: {'; '.join(preset.missing)}"
    return "of mean scores; its interval is a percentile bootstrap over images, and it gets no star"


def _image_rows(results: Results, standing: Standing) -> list[tuple[str | _Judged, ...]]:
    rows: list[tuple[str | _Judged, ...]] = []
    presets = results.inference.presets
    scores = [[v for v in row if v is not None] for row in results.values[0]]
    for index, image in enumerate(results.images):
        cells = [number(row[index], column) for row, column in zip(results.values[0], scores, strict=True)]
        rows.append((image.key, *((cell, *_PLAIN) for cell in cells), *(("", *_PLAIN) for _ in presets)))
    means = [number(cell.mean, column) for cell, column in zip(standing.cells, scores, strict=True)]
    sums = [number(preset.values[0], _present(preset.values)) for preset in presets]
    rows.append(("mean", *((cell, *_PLAIN) for cell in (*means, *sums))))
    return rows


def _system_rows(results: Results, standings: Sequence[Standing]) -> list[tuple[str | _Judged, ...]]:
    found = results.inference
    columns = [_present([cell.mean for cell in column]) for column in zip(*(s.cells for s in standings), strict=True)]
    rows: list[tuple[str | _Judged, ...]] = []
    for place, (name, standing) in enumerate(zip(results.systems, standings, strict=True)):
        cells = map(_judged, standing.cells, found.effects[place], columns)
        sums = [
            _with_difference(preset.values[place], preset.differences[place], preset.bounds[place], preset.values)
            for preset in found.presets
        ]
        wins = "—" if standing.wins is None else f"{standing.wins}/{len(results.images)}"
        rows.append((name, *cells, *sums, "n/a" if standing.rank is None else f"{standing.rank:.2f}", wins))
    return rows


def _judged(cell: Cell, effect: Effect | None, column: Sequence[float]) -> _Judged:
    bounds, star = (None, "") if effect is None else (effect.bounds, "*" if effect.is_starred else "")
    return (*_with_difference(cell.mean, cell.difference, bounds, column)[:3], star)


def _with_difference(
    value: float | None, difference: float | None, bounds: Bounds | None, column: Sequence[float | None]
) -> _Judged:
    shown = _present(column)
    digits = decimals(shown)
    if difference is None:
        return (number(value, shown), *_PLAIN)
    return number(value, shown), signed_number(difference, digits), half_width(difference, bounds, digits), ""


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _text(grid: _Grid) -> str:
    flat: list[list[str]] = [[] for _ in grid.rows]
    for n in range(len(grid.header)):
        column = [row[n] for row in grid.rows]
        if all(isinstance(cell, str) for cell in column):
            cells = [str(cell) for cell in column]
        else:
            parts = [(cell, *_PLAIN) if isinstance(cell, str) else cell for cell in column]
            a, b, c, d = (max(len(part[k]) for part in parts) for k in range(4))
            cells = [f"{p[0]:>{a}}  {p[1]:>{b}} {p[2]:>{c}} {p[3]:<{d}}".rstrip() for p in parts]
        for row, cell in zip(flat, cells, strict=True):
            row.append(cell)
    align = "l" * (len(grid.header) - 2) + "rr" if "wins" in grid.header else "l"
    table = text([*grid.above, grid.header, *flat], align)
    further = "".join(
        f"\n{visible(s.title)}\n{text([s.header, *s.rows])}{_lines(map(visible, s.notes))}" for s in grid.sections
    )
    notes = _lines([*grid.notes, *(f"  {signature}" for signature in grid.signatures)])
    return f"{grid.title}\n{table}{notes}{further}"


def _joined(cell: str | _Judged) -> str:
    if isinstance(cell, str):
        return cell
    difference = " ".join(filter(None, cell[1:]))
    return f"{cell[0]} ({difference})" if difference else cell[0]


def _markdown(grid: _Grid) -> str:
    head = list(map(in_markdown, grid.header))
    lines: list[Row] = [*grid.above, head, *_in_markdown(map(_joined, row) for row in grid.rows)]
    table = markdown(lines[0], lines[1:])
    notes = [f"- {in_markdown(note)}" for note in grid.notes]
    notes += [f"- `{line}`" if "`" not in line else f"- {in_markdown(line)}" for line in grid.signatures]
    further = (
        f"\n{in_markdown(s.title)}\n\n{markdown(list(map(in_markdown, s.header)), _in_markdown(s.rows))}"
        + ("\n" if s.notes else "")
        + _lines(f"- {in_markdown(note)}" for note in s.notes)
        for s in grid.sections
    )
    return f"{in_markdown(grid.title)}\n\n{table}\n{_lines(notes)}{''.join(further)}"


def _in_markdown(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[in_markdown(cell) for cell in row] for row in rows]


def _latex(grid: _Grid) -> str:
    comments = _lines(f"% {line}" for line in (grid.title, *grid.notes, *grid.signatures))
    lines: list[Row] = [*grid.above, grid.header, *([_joined(cell) for cell in row] for row in grid.rows)]
    table = latex(lines[0], lines[1:])
    further = (
        _lines(f"% {visible(line)}" for line in (s.title, *s.notes)) + latex(s.header, s.rows) for s in grid.sections
    )
    return comments + table + "".join(further)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _subject(flag: Flag) -> str:
    where = f"{flag.system}/{flag.image}"
    return f"{where} ({flag.critic})" if flag.critic else where
