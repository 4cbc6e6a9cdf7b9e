"""The table of systems as cells, for pages and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from perceptloss.compare.columns import Column
from perceptloss.compare.inference import Inference
from perceptloss.compare.shown import decimals, half_width, number, signed_number
from perceptloss.compare.summary import Summary
from perceptloss.output.names import visible

__all__ = ["Cell", "Row", "header_of", "html_table", "rows_of"]


@dataclass(frozen=True)
class Cell:
    """What a table shows in a cell.

    Attributes:
        text: The figure.
        value: It as a number to sort by; None where there is none.
        more: What stands beside it, such as a difference.
        is_starred: Whether that is shown to be one.
        gain: 1 where the difference is for the better, -1 for the worse, 0 where neither is shown.
        shade: Strength of its colour, in [0, 1]; below 0 where it has none.
    """

    text: str
    value: float | None = None
    more: str = ""
    is_starred: bool = False
    gain: int = 0
    shade: float = -1.0


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]


def rows_of(
    systems: Sequence[str], columns: Sequence[Column], summary: Summary, found: Inference, images: int
) -> list[Row]:
    """A row per system: under each critic its mean and difference to the baseline, presets, mean rank and wins.

    Beside a mean without a difference stands how far its own interval reaches.
    """
    rows, standings = [], summary.standings
    for place, (name, standing) in enumerate(zip(systems, standings, strict=True)):
        cells = []
        for n, (column, cell) in enumerate(zip(columns, standing.cells, strict=True)):
            shown = [mean for other in standings if (mean := other.cells[n].mean) is not None]
            effect, digits = found.effects[place][n], decimals(shown)
            bounds = found.means[place][n] if effect is None else effect.bounds
            starred = effect is not None and effect.is_starred
            gain = 0
            if effect is None or cell.difference is None:
                more = half_width(cell.mean, bounds, digits) if cell.mean is not None else ""
            else:
                more = f"{signed_number(cell.difference, digits)} {half_width(cell.difference, bounds, digits)}"
                gain = (1 if (cell.difference > 0) == column.is_higher_better else -1) if starred else 0
            cells.append(Cell(number(cell.mean, shown), cell.mean, more.strip(), starred, gain))
        for preset in found.presets:
            value, values = preset.values[place], [v for v in preset.values if v is not None]
            cells.append(Cell(number(value, values), value))
        if len(systems) > 1:
            cells.append(Cell("n/a" if standing.rank is None else f"{standing.rank:.2f}", standing.rank))
            wins = standing.wins
            cells.append(Cell("—" if wins is None else f"{wins} of {images}", wins))
        rows.append(Row(name, tuple(cells)))
    return rows


def header_of(columns: Sequence[Column], presets: Sequence[str], *, is_single: bool) -> list[str]:
    """Of the columns of `rows_of`."""
    return ["system", *(column.header for column in columns), *presets, *([] if is_single else ["rank", "wins"])]


def html_table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """An HTML table without any style or script."""
    head = "".join(f"<th>{_safe(name)}</th>" for name in header)
    body = "".join(
        f"<tr><th>{_safe(row.name)}</th>{''.join(f'<td>{_html(cell)}</td>' for cell in row.cells)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(cell: Cell) -> str:
    more = f"<br><small>{_safe(cell.more)}{' *' if cell.is_starred else ''}</small>" if cell.more else ""
    return f"{_safe(cell.text)}{more}"


def _safe(text: str) -> str:
    return escape(visible(text))
