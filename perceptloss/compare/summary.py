"""What is computed from per-image scores: means, paired differences, ranks and wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "Standing", "Summary", "Values", "summarise"]

Values = Sequence[Sequence[Sequence[float | None]]]  # of systems, critics, images; None where a score is missing


@dataclass(frozen=True)
class Cell:
    """A system under a critic, over the images for which every system has a score.

    Attributes:
        count: Number of those images.
        mean: Mean score; None if `count` is 0.
        difference: Mean difference to the baseline, image by image; None for the baseline.
        wins: Images on which it is better than the baseline; None for the baseline.
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
    """Summary of per-image scores; an image that lacks a score is left out of a critic for all systems.

    Args:
        values: The scores.
        higher_better: Direction of each critic.
        base: Index of the system that the others are compared with.
        counted: Which critics count for ranks and wins; none given: all.
    """
    signs = [1 if higher else -1 for higher in higher_better]
    complete = [_complete([system[critic] for system in values]) for critic in range(len(signs))]
    voters = counted or [True] * len(signs)
    return Summary(tuple(_standing(values, signs, system, base, complete, voters) for system in range(len(values))))


def _complete(rows: Sequence[Sequence[float | None]]) -> list[int]:
    """Images for which every system has a score by one critic."""
    return [image for image in range(len(rows[0])) if all(row[image] is not None for row in rows)]


def _standing(
    values: Values,
    signs: Sequence[int],
    system: int,
    base: int | None,
    complete: Sequence[Sequence[int]],
    voters: Sequence[bool],
) -> Standing:
    cells, ranks, votes = [], [], [0] * len(values[0][0])
    for critic, sign in enumerate(signs):
        images = complete[critic]
        rows = [[sign * _number(rows[critic][i]) for i in images] for rows in values]
        if voters[critic]:
            ranks += [_rank([row[n] for row in rows], system) for n in range(len(images))]
        if base is None or base == system:
            cells.append(_cell(rows[system], sign))
            continue
        cells.append(_cell(rows[system], sign, rows[base]))
        for n, image in enumerate(images if voters[critic] else ()):
            votes[image] += _compare(rows[system][n], rows[base][n])
    wins = None if base is None or base == system else sum(vote > 0 for vote in votes)
    return Standing(tuple(cells), _mean(ranks), wins)


def _cell(scores: Sequence[float], sign: int, base: Sequence[float] | None = None) -> Cell:
    """Cell from scores oriented such that more is better, in natural units again."""
    mean = _mean([sign * s for s in scores])
    if base is None:
        return Cell(len(scores), mean)
    pairs = list(zip(scores, base, strict=True))
    return Cell(
        count=len(scores),
        mean=mean,
        difference=_mean([sign * (own - other) for own, other in pairs]),
        wins=sum(own > other for own, other in pairs),
        losses=sum(own < other for own, other in pairs),
    )


def _rank(scores: Sequence[float], system: int) -> float:
    """Rank of one among oriented scores, 1 is best; equal scores share the mean of their ranks."""
    own = scores[system]
    better, equal = sum(s > own for s in scores), sum(s == own for s in scores)
    return better + (equal + 1) / 2


def _compare(own: float, other: float) -> int:
    return (own > other) - (own < other)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _number(value: float | None) -> float:
    if value is None:
        raise ValueError("a missing score has no number")
    return value
