"""Agreement of predictions with people's labels: rank and linear correlation.

Predictions and labels are rows of numbers about the same images. Correlations keep their sign; only fits remove it.
A side that is constant or not finite is a `ProtocolError`, never 0 or NaN.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import numpy as np

from perceptloss.compare.statistics.bootstrap import by_counts
from perceptloss.compare.statistics.fits import fitted
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, Ties, pair_counts, paired, pearson

__all__ = ["Fit", "krcc", "plcc", "srcc"]

Fit: TypeAlias = Literal["none", "logistic4"]
_FLAT: Final = 1e-9  # standard deviation of a fitted curve over that of the labels


def _value(evaluate: Evaluate, count: int) -> float:
    value = float(evaluate(np.ones((1, count)))[0])
    if not math.isfinite(value):
        raise ProtocolError("pred or mos spans more than float64 can square, or less; rescale it.")
    return value


def _srcc(pred: Array, mos: Array) -> Evaluate:
    x, y = Ties.of(pred), Ties.of(mos)
    return lambda counts: pearson(x.ranks(counts), y.ranks(counts), counts)


@by_counts(_srcc)
def srcc(pred: object, mos: object) -> float:
    """Spearman's rank correlation, in [-1, 1]; equal numbers share their mean rank, as in `scipy.stats.spearmanr`.

    Args:
        pred: Predictions, (n,), n >= 3.
        mos: Labels, (n,).

    Raises:
        ProtocolError: if a side is constant or not finite.
    """
    x, y = paired(pred, mos)
    return _value(_srcc(x, y), x.size)


def _krcc(pred: Array, mos: Array) -> Evaluate:
    counted = pair_counts(pred, mos)

    def evaluate(counts: Array) -> Array:
        found = counted(counts)
        size = (found.pairs - found.equal_x) * (found.pairs - found.equal_y)
        tau: Array = (found.agreeing - found.opposed) / np.sqrt(np.where(size > 0, size, np.nan))
        return tau

    return evaluate


@by_counts(_krcc)
def krcc(pred: object, mos: object) -> float:
    """Kendall's rank correlation tau-b, in [-1, 1], as in `scipy.stats.kendalltau`.

    Args:
        pred: Predictions, (n,), n >= 3.
        mos: Labels, (n,).

    Raises:
        ProtocolError: if a side is constant or not finite.
    """
    x, y = paired(pred, mos)
    return _value(_krcc(x, y), x.size)


def _plcc(pred: Array, mos: Array, fit: Fit = "none") -> Evaluate:
    if fit == "none":
        return lambda counts: pearson(pred, mos, counts)
    if fit != "logistic4":
        raise ProtocolError(f"unknown fit {fit!r}; expected none or logistic4.")
    curves, least = fitted(pred, mos), _FLAT * float(mos.std())

    def evaluate(counts: Array) -> Array:
        raw = pearson(pred, mos, counts)
        found = pearson(curves(counts), mos, counts, least)
        # a flat curve explains nothing: least squares' limit is 0. A flat prediction stays undefined
        return np.where(np.isnan(found) & ~np.isnan(raw), 0.0, found)

    return evaluate


@by_counts(_plcc)
def plcc(pred: object, mos: object, fit: Fit = "none") -> float:
    """Pearson's linear correlation, in [-1, 1]; after a fit in [0, 1].

    Args:
        pred: Predictions, (n,), n >= 3.
        mos: Labels, (n,).
        fit: `none`, or `logistic4`: predictions first go through VQEG's logistic curve. Figures with and without
            a fit cannot be compared; name it beside the figure.

    Raises:
        ProtocolError: if a side is constant or not finite, or there are too few images for the fit.
    """
    x, y = paired(pred, mos)
    return _value(_plcc(x, y, fit), x.size)
