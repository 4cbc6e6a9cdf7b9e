"""Heat maps of a report: mean ranks, who beats whom, and which critics agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.results import Results
from perceptloss.compare.standings import Cell, Row
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.significance import wilson
from perceptloss.compare.statistics.units import Units

__all__ = ["Matrix", "critic_agreement", "heat", "win_matrices"]


@dataclass(frozen=True)
class Matrix:
    """How often each system beats each other.

    Attributes:
        label: Of the critic.
        rows: One per system; the diagonal is empty.
    """

    label: str
    rows: tuple[Row, ...]


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
