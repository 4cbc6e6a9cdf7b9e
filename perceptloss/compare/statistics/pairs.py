"""Agreement on pairs: which of two images is better, weighted by how sure people are, and order of damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from perceptloss.compare.statistics.bootstrap import by_counts
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, codes_of, labels, pair_counts, paired

__all__ = ["PairWeight", "elo_probability", "level_accuracy", "pairwise_accuracy"]

PairWeight: TypeAlias = Literal["equal", "elo"]
_CELLS: Final = 4_000_000  # pairs that are compared at once
_ELO_SCALE: Final = 400.0


def elo_probability(a: Any, b: Any = 0.0, scale: float = _ELO_SCALE) -> Any:
    """Chance that a rating wins over another, 1 / (1 + 10^((b - a) / scale)), in [0, 1].

    Args:
        a: Elo ratings, any shape; with `b` left out, the gap.
        b: The others' ratings.
        scale: Gap that means odds of ten to one.
    """
    gap = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) * (np.log(10) / scale)
    chance = 0.5 * (1 + np.tanh(gap / 2))
    return float(chance) if chance.ndim == 0 else chance


def _weights(mos: Array, rows: slice, min_gap: float, weight: PairWeight) -> Array:
    """Weight of each pair of `rows` with every image, (rows, n): 0 unless the first is better by more than the gap."""
    gap = mos[rows, None] - mos[None]
    counted = (gap > 0) & (gap >= min_gap)
    return counted * (1.0 if weight == "equal" else elo_probability(gap) - 0.5)


def _rightness(pred: Array, rows: slice) -> Array:
    """1 where a pair of predictions is in the right order, 1/2 where it is equal, (rows, n)."""
    right: Array = 0.5 * (1 + np.sign(pred[rows, None] - pred[None]))
    return right


def _blocks(count: int) -> Iterator[slice]:
    size = max(1, _CELLS // count)
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _pairwise(
    pred: Array,
    mos: Array,
    groups: object | None = None,
    min_gap: float = 0.0,
    weight: PairWeight = "equal",
) -> Evaluate:
    if weight not in ("equal", "elo"):
        raise ProtocolError(f"pairs are weighted 'equal' or 'elo', got {weight!r}.")
    if not min_gap >= 0:
        raise ProtocolError(f"min_gap must be at least 0, in the units of mos, got {min_gap}.")
    if groups is None and weight == "equal" and min_gap == 0:
        return _unweighted(pred, mos)
    if groups is None:
        return _among_all(pred, mos, min_gap, weight)
    contents = labels(groups, pred.size, "groups")
    alone = int((contents < 0).sum()) if contents.dtype.kind in "if" else 0
    if alone:
        raise ProtocolError(f"groups is negative, which means no group, for {alone} images; leave these out.")
    return _within(pred, mos, codes_of(contents), min_gap, weight)


def _unweighted(pred: Array, mos: Array) -> Evaluate:
    counted = pair_counts(pred, mos)

    def evaluate(counts: Array) -> Array:
        found = counted(counts)
        total = found.pairs - found.equal_y
        return _share((total + found.agreeing - found.opposed) / 2, total)  # what is equal in x counts half

    return evaluate


def _among_all(pred: Array, mos: Array, min_gap: float, weight: PairWeight) -> Evaluate:
    def evaluate(counts: Array) -> Array:
        right, total = np.zeros(len(counts)), np.zeros(len(counts))
        for rows in _blocks(pred.size):
            weights = _weights(mos, rows, min_gap, weight)
            total += (counts[:, rows] * (counts @ weights.T)).sum(axis=1)
            right += (counts[:, rows] * (counts @ (weights * _rightness(pred, rows)).T)).sum(axis=1)
        return _share(right, total)

    return evaluate


def _within(pred: Array, mos: Array, codes: np.ndarray[Any, Any], min_gap: float, weight: PairWeight) -> Evaluate:
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    sums = np.zeros((2, len(members)))
    for number, group in enumerate(members):
        for rows in _blocks(group.size):
            weights = _weights(mos[group], rows, min_gap, weight)
            sums[:, number] += weights.sum(), (weights * _rightness(pred[group], rows)).sum()
    first = np.array([group[0] for group in members])

    def evaluate(counts: Array) -> Array:
        drawn = counts[:, first]
        if not np.array_equal(drawn[:, codes], counts):
            raise ProtocolError("pairs within groups need whole groups drawn: give bootstrap the same groups.")
        total, right = sums @ drawn.T  # each copy of a content is compared with itself alone
        return _share(right, total)

    return evaluate


def _share(right: Array, total: Array) -> Array:
    return np.divide(right, total, out=np.full_like(total, np.nan), where=total > 0)


@by_counts(_pairwise)
def pairwise_accuracy(
    pred: object,
    mos: object,
    groups: object | None = None,
    min_gap: float = 0.0,
    weight: PairWeight = "equal",
) -> float:
    """Share of pairs, unequal in the labels, that predictions order alike, in [0, 1]; equal predictions count half.

    Args:
        pred: Predictions, (n,), higher is better (negate a distance).
        mos: Labels, (n,), higher is better.
        groups: Content of each image, (n,): only images of one content are paired. Without it all are; together
            with a gap or weights that takes time in n^2, and much of it for the bootstrap.
        min_gap: Smallest difference of labels that counts, in their units.
        weight: `equal`, or `elo`: by |p - 1/2| of the labels as Elo ratings, so that pairs on which people
            agree count most.

    Raises:
        ProtocolError: if a side is constant or not finite, or no pair is left.
    """
    x, y = paired(pred, mos, least=2)
    value = float(_pairwise(x, y, groups, min_gap, weight)(np.ones((1, x.size)))[0])
    if np.isnan(value):
        kept = "no group holds two images" if groups is not None else "no two images have labels"
        raise ProtocolError(f"there are no pairs to judge: {kept} that are unequal by at least min_gap={min_gap:g}.")
    return value


def _levels(pred: Array, level: Array, groups: object | None = None) -> Evaluate:
    return _pairwise(pred, -level, groups)


@by_counts(_levels)
def level_accuracy(pred: object, level: object, groups: object | None = None) -> float:
    """Share of pairs of versions that predictions put in the order of damage, in [0, 1]; equal ones count half.

    Args:
        pred: Predictions, (n,), higher is better.
        level: Damage of each version, (n,), higher is worse.
        groups: What makes levels comparable, (n,): one picture under one degradation with one random draw.
            Contents can be resampled all the same: `bootstrap(partial(level_accuracy, groups=groups), pred, level,
            groups=contents)`.

    Raises:
        ProtocolError: if a side is constant or not finite, or no pair is left.
    """
    x, y = paired(pred, level, least=2, second="level")
    return pairwise_accuracy(x, -y, groups)
