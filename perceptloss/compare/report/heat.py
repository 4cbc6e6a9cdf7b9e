"""Heat maps of a report: mean ranks, who beats whom, and which critics agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.results import Results
from perceptloss.compare.standings import Cell, Row
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.significance import wilson
from perceptloss.compare.statistics.units import Units

__all__ = ["Matrix", "clustered", "critic_agreement", "heat", "win_matrices"]


@dataclass(frozen=True)
class Matrix:
    """How often each system beats each other.

    Attributes:
        label: Of the critic.
        rows: One per system; the diagonal is empty.
    """

    label: str
    rows: tuple[Row, ...]


def heat(results: Results, scores: Scores, agreement: Sequence[Sequence[float | None]]) -> list[Row]:
    """Mean ranks over images, a row per critic, a cell per system; 1 is best and has the strongest colour.

    Critics that agree stand together, each with the domains that it was made for, if they are not natural images.

    Beside a mean rank stand the places that a system may have: those of all orders in which it is behind each system
    that surely beats it, and before each that it surely beats. Systems whose places overlap are tied.
    """
    most, rows = len(results.systems), []
    for n in clustered(agreement):
        column, duel, cells = results.critics[n], _duel(results, scores, n), list[Cell]()
        for s, row in enumerate(results.inference.ranks):
            if (rank := row[n]) is None:
                cells.append(Cell("n/a"))
                continue
            gains = [] if duel is None else [duel.cell(s, other).gain for other in range(most)]
            best, worst = 1 + gains.count(-1), most - gains.count(1)
            places = f"{best}–{worst}" if best < worst else f"{best}"
            cells.append(Cell(f"{rank:.2f}", rank, places if gains else "", shade=(most - rank) / (most - 1)))
        domains = [] if "natural" in (found := column.card.get("domains") or ["natural"]) else found
        rows.append(Row(" · ".join([column.header, *domains]), tuple(cells)))
    return rows


def clustered(agreement: Sequence[Sequence[float | None]]) -> list[int]:
    """An order in which critics that agree stand together: leaves of clusters joined by their mean agreement."""
    clusters = [[n] for n in range(len(agreement))]
    shares = np.array([[0.5 if share is None else share for share in row] for row in agreement])
    while len(clusters) > 1:
        pairs = [(a, b) for b in range(len(clusters)) for a in range(b)]
        a, b = max(pairs, key=lambda pair: shares[np.ix_(clusters[pair[0]], clusters[pair[1]])].mean())
        clusters[a] += clusters.pop(b)
    return clusters[0]


def win_matrices(results: Results, scores: Scores) -> Iterator[Matrix]:
    """Share of images (or groups) on which the system of a row beats that of a column, for each critic; ties are half.

    Beside a share stands its Wilson interval; it counts as a gain or a loss where that leaves out one half.
    """
    for n, column in enumerate(results.critics):
        if (duel := _duel(results, scores, n)) is not None:
            systems = range(len(results.systems))
            rows = (Row(name, tuple(duel.cell(s, t) for t in systems)) for s, name in enumerate(results.systems))
            yield Matrix(column.header, tuple(rows))


@dataclass(frozen=True)
class _Duel:
    """Systems against each other under a critic: the unit's means, higher is better, of those that have scores."""

    means: Array
    alive: list[int]
    level: float

    def cell(self, own: int, other: int) -> Cell:
        """How often one system beats another."""
        if own == other or own not in self.alive or other not in self.alive:
            return Cell("" if own == other else "n/a")
        mine, theirs = self.means[:, self.alive.index(own)], self.means[:, self.alive.index(other)]
        share = float(((mine > theirs) + (mine == theirs) / 2).mean())
        low, high = wilson(share, len(self.means), self.level)
        gain = 1 if low > 0.5 else -1 if high < 0.5 else 0
        more = f"{100 * low:.0f}–{100 * high:.0f}"
        return Cell(f"{100 * share:.0f} %", share, more, gain != 0, gain, abs(2 * share - 1))


def _duel(results: Results, scores: Scores, critic: int) -> _Duel | None:
    """None where fewer than two systems have scores."""
    seen, alive, groups = scores.complete(critic), scores.alive(critic), results.analysis.groups
    if not seen.any() or len(alive) < 2:
        return None
    codes = codes_of(np.array([groups[key] for key in np.array(scores.keys)[seen]])) if groups else None
    means = Units.of(scores.oriented[:, critic, seen][alive].T, codes).means
    return _Duel(means, alive, results.analysis.level)


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
