"""Tables of a report: scores with differences, mean ranks, who beats whom, and which critics agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.results import Results
from perceptloss.compare.shown import decimals, half_width, number, signed_number
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.significance import wilson
from perceptloss.compare.statistics.units import Units

__all__ = ["Cell", "Matrix", "Row", "critic_agreement", "heat", "rows_of", "win_matrices"]


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


@dataclass(frozen=True)
class Matrix:
    """How often each system beats each other.

    Attributes:
        label: Of the critic.
        rows: One per system; the diagonal is empty.
    """

    label: str
    rows: tuple[Row, ...]


def rows_of(results: Results) -> list[Row]:
    """A row per system: under each critic its mean and difference to the baseline, presets, mean rank and wins."""
    found, rows = results.inference, []
    standings = results.summary().standings
    for place, (name, standing) in enumerate(zip(results.systems, standings, strict=True)):
        cells = []
        for n, (column, cell) in enumerate(zip(results.critics, standing.cells, strict=True)):
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
        if len(results.systems) > 1:
            cells.append(Cell("n/a" if standing.rank is None else f"{standing.rank:.2f}", standing.rank))
            wins = standing.wins
            cells.append(Cell("—" if wins is None else f"{wins} of {len(results.images)}", wins))
        rows.append(Row(name, tuple(cells)))
    return rows


def heat(results: Results) -> list[Row]:
    """Mean ranks over images, a row per critic, a cell per system; 1 is best and has the strongest colour."""
    most, rows = len(results.systems), []
    for n, column in enumerate(results.critics):
        ranks = [row[n] for row in results.inference.ranks]
        cells = (
            Cell("n/a") if rank is None else Cell(f"{rank:.2f}", rank, shade=(most - rank) / (most - 1))
            for rank in ranks
        )
        rows.append(Row(column.header, tuple(cells)))
    return rows


def win_matrices(results: Results, scores: Scores) -> Iterator[Matrix]:
    """Share of images (or groups) on which the system of a row beats that of a column, for each critic; ties are half.

    Beside a share stands its Wilson interval; it counts as a gain or a loss where that leaves out one half.
    """
    groups = results.analysis.groups
    for n, column in enumerate(results.critics):
        seen = scores.complete(n)
        alive = scores.alive(n)
        if not seen.any() or len(alive) < 2:
            continue
        codes = codes_of(np.array([groups[key] for key in np.array(scores.keys)[seen]])) if groups else None
        means = Units.of(scores.oriented[:, n, seen][alive].T, codes).means
        rows = []
        for s, name in enumerate(results.systems):
            cells = [_share(means, alive, s, t, results.analysis.level) for t in range(len(results.systems))]
            rows.append(Row(name, tuple(cells)))
        yield Matrix(column.header, tuple(rows))


def _share(means: Array, alive: list[int], own: int, other: int, level: float) -> Cell:
    if own == other or own not in alive or other not in alive:
        return Cell("" if own == other else "n/a")
    mine, theirs = means[:, alive.index(own)], means[:, alive.index(other)]
    share = float(((mine > theirs) + (mine == theirs) / 2).mean())
    low, high = wilson(share, len(means), level)
    gain = 1 if low > 0.5 else -1 if high < 0.5 else 0
    return Cell(f"{100 * share:.0f} %", share, f"{100 * low:.0f}–{100 * high:.0f}", gain != 0, gain, abs(2 * share - 1))


def critic_agreement(scores: Scores) -> list[list[float | None]]:
    """Share of pairs of outputs of one image that two critics order alike, (critics, critics); None without a pair.

    Pairs that one of the two calls equal say nothing and do not count.
    """
    first, second = np.triu_indices(len(scores.systems), 1)
    with np.errstate(invalid="ignore"):
        signs = np.nan_to_num(np.sign(scores.oriented[first] - scores.oriented[second]))  # (pairs, critics, images)
    flat = signs.transpose(1, 0, 2).reshape(len(scores.labels), -1)
    both = np.abs(flat) @ np.abs(flat).T
    alike = (flat @ flat.T + both) / 2
    return [
        [a / b if b else None for a, b in zip(row, counts, strict=True)]
        for row, counts in zip(alike.tolist(), both.tolist(), strict=True)
    ]
