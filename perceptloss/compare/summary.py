"""What is computed from per-image scores: means, paired differences, ranks and wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "Standing", "Summary", "Values", "summarise"]

Values = Sequence[Sequence[Sequence[float | None]]]  # of systems, critics, images; None where a score is missing


@dataclass(frozen=True)
class Cell:
    """A system under a critic.

    Attributes:
        count: Number of images that are averaged: those of which every system has a score, but for systems without any.
        mean: Mean score; None if `count` is 0.
        difference: Mean difference to the baseline, image by image; None for the baseline.
        wins: Images on which it is better than the baseline, also because that has no score; None for the baseline.
        losses: Images on which the baseline is better; likewise.
    """

    count: int
    mean: float | None
    difference: float | None = None
    wins: int | None = None
    losses: int | None = None


@dataclass(frozen=True)
class Standing:
    """A system under all critics.

    Attributes:
        cells: One per critic.
        rank: Mean rank among the systems over images and critics, 1 is best, ties share.
        wins: Images on which more critics prefer it to the baseline than the other way; None
            for the baseline.
    """

    cells: tuple[Cell, ...]
    rank: float | None
    wins: int | None


@dataclass(frozen=True)
class Summary:
    """Standings in the order of the systems."""

    standings: tuple[Standing, ...]


def summarise(
    values: Values, higher_better: Sequence[bool], base: int | None = None, counted: Sequence[bool] = ()
) -> Summary:
    """Summary of per-image scores.

    A missing score loses to any other in ranks and wins, and its image is left out of the means of that critic for all
    systems, so that means are of the same images.

    Args:
        values: The scores.
        higher_better: Direction of each critic.
        base: Index of the system that the others are compared with.
        counted: Which critics count for ranks and wins; none given: all.
    """
    signs = [1 if higher else -1 for higher in higher_better]
    critics = [[system[critic] for system in values] for critic in range(len(signs))]
    voters = counted or [True] * len(signs)
    standings = []
    for system in range(len(values)):
        rival = None if base == system else base
        cells, ranks, votes = [], [], [0] * len(values[0][0])
        for scores, sign, votes_too in zip(critics, signs, voters, strict=True):
            oriented = {image: [_oriented(s, sign) for s in column] for image, column in _seen(scores).items()}
            means = _complete(scores) if any(score is not None for score in scores[system]) else {}
            own = [score for row in means.values() if (score := row[system]) is not None]
            if votes_too:
                ranks += [_rank(row, system) for row in oriented.values()]
            if rival is None:
                cells.append(Cell(len(own), _mean(own)))
                continue
            theirs = [score for row in means.values() if (score := row[rival]) is not None]
            gains = [mine - other for mine, other in zip(own, theirs, strict=False)]
            better = {image for image, row in oriented.items() if row[system] > row[rival]}
            worse = {image for image, row in oriented.items() if row[system] < row[rival]}
            cells.append(Cell(len(own), _mean(own), _mean(gains), len(better), len(worse)))
            for image in oriented if votes_too else ():
                votes[image] += (image in better) - (image in worse)
        wins = None if rival is None else sum(vote > 0 for vote in votes)
        standings.append(Standing(tuple(cells), _mean(ranks), wins))
    return Summary(tuple(standings))


def _seen(rows: Sequence[Sequence[float | None]]) -> dict[int, list[float | None]]:
    """Scores of one critic by image, for images of which any system has one."""
    columns = enumerate(map(list, zip(*rows, strict=True)))
    return {image: column for image, column in columns if any(score is not None for score in column)}


def _complete(rows: Sequence[Sequence[float | None]]) -> dict[int, list[float | None]]:
    """Those of which every system has a score, but for systems that have none at all."""
    lost = [system for system, scores in enumerate(rows) if all(score is None for score in scores)]
    return {
        image: column
        for image, column in _seen(rows).items()
        if all(score is not None or system in lost for system, score in enumerate(column))
    }


def _oriented(score: float | None, sign: int) -> float:
    """Higher is better; a score that is missing is worse than any."""
    return -math.inf if score is None else sign * score


def _rank(scores: Sequence[float], system: int) -> float:
    """Rank of one among oriented scores, 1 is best; equal scores share the mean of their ranks."""
    own = scores[system]
    better, equal = sum(s > own for s in scores), sum(s == own for s in scores)
    return better + (equal + 1) / 2


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
