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
    critics = [_complete([system[critic] for system in values]) for critic in range(len(signs))]
    voters = counted or [True] * len(signs)
    standings = []
    for system in range(len(values)):
        rival = None if base == system else base
        cells, ranks, votes = [], [], [0] * len(values[0][0])
        for scores, sign, votes_too in zip(critics, signs, voters, strict=True):
            mean = _mean([row[system] for row in scores.values()])
            if votes_too:
                ranks += [_rank([sign * score for score in row], system) for row in scores.values()]
            if rival is None:
                cells.append(Cell(len(scores), mean))
                continue
            gains = {image: row[system] - row[rival] for image, row in scores.items()}
            better, worse = ({image for image, gain in gains.items() if s * gain > 0} for s in (sign, -sign))
            cells.append(Cell(len(scores), mean, _mean(list(gains.values())), len(better), len(worse)))
            for image in scores if votes_too else ():
                votes[image] += (image in better) - (image in worse)
        wins = None if rival is None else sum(vote > 0 for vote in votes)
        standings.append(Standing(tuple(cells), _mean(ranks), wins))
    return Summary(tuple(standings))


def _complete(rows: Sequence[Sequence[float | None]]) -> dict[int, list[float]]:
    """Scores of every system by one critic, for each image that has them all."""
    found = {}
    for image, column in enumerate(zip(*rows, strict=True)):
        scores = [score for score in column if score is not None]
        if len(scores) == len(rows):
            found[image] = scores
    return found


def _rank(scores: Sequence[float], system: int) -> float:
    """Rank of one among oriented scores, 1 is best; equal scores share the mean of their ranks."""
    own = scores[system]
    better, equal = sum(s > own for s in scores), sum(s == own for s in scores)
    return better + (equal + 1) / 2


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
