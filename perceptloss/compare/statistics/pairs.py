"""Agreement on pairs: which of two images is better, and which of two versions is damaged more."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from perceptloss.compare.statistics.bootstrap import Statistic
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, codes_of, labels, pair_counts

__all__ = ["level_accuracy", "pairwise_accuracy"]


_pairs = partial(
    Statistic, least=2, undefined="there are no pairs to judge: no group holds two images that are unequal."
)


@_pairs
def pairwise_accuracy(pred: Array, mos: Array, groups: object | None = None) -> Evaluate:
    """Share of pairs, unequal in the labels, that predictions order alike, in [0, 1]; equal predictions count half.

    Args:
        pred: Predictions, (n,), higher is better (negate a distance).
        mos: Labels, (n,), higher is better.
        groups: Content of each image, (n,): only images of one content are paired. Without it all are.

    Raises:
        ProtocolError: if a side is constant or not finite, or no pair is left.
    """
    if groups is None:
        counted = _counted(pred, mos)
        return lambda counts: _share(*counted(counts))
    contents = labels(groups, pred.size, "groups")
    alone = int((contents < 0).sum()) if contents.dtype.kind in "if" else 0
    if alone:
        raise ProtocolError(f"groups is negative, which means no group, for {alone} images; leave these out.")
    return _within(pred, mos, codes_of(contents))


@partial(_pairs, second="level")
def level_accuracy(pred: Array, level: Array, groups: object | None = None) -> Evaluate:
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
    return pairwise_accuracy.prepare(pred, -level, groups)


def _counted(pred: Array, mos: Array) -> Evaluate:
    """Pairs, unequal in the labels, of each resample, and how many of them predictions order alike, (2, R)."""
    counted = pair_counts(pred, mos)

    def evaluate(counts: Array) -> Array:
        found = counted(counts)
        total = found.pairs - found.equal_y
        return np.stack([total, (total + found.agreeing - found.opposed) / 2])  # what is equal in x counts half

    return evaluate


def _within(pred: Array, mos: Array, codes: np.ndarray[Any, Any]) -> Evaluate:
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    sums = np.concatenate([_counted(pred[group], mos[group])(np.ones((1, group.size))) for group in members], axis=1)
    first = np.array([group[0] for group in members])

    def evaluate(counts: Array) -> Array:
        drawn = counts[:, first]
        if not np.array_equal(drawn[:, codes], counts):
            raise ProtocolError("pairs within groups need whole groups drawn: give bootstrap the same groups.")
        return _share(*(sums @ drawn.T))  # each copy of a content is compared with itself alone

    return evaluate


def _share(total: Array, right: Array) -> Array:
    return np.divide(right, total, out=np.full_like(total, np.nan), where=total > 0)
