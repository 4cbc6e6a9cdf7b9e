"""Agreement of predictions with people's labels: rank and linear correlation.

Predictions and labels are rows of numbers about the same images, (n,) with n >= 3. Correlations keep their sign; only
fits remove it. A side that is constant or not finite is a `ProtocolError`, never 0 or NaN.
"""

from __future__ import annotations

from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np

from perceptloss.compare.statistics.bootstrap import Statistic
from perceptloss.compare.statistics.fits import fitted
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, Ties, pair_counts, pearson

__all__ = ["Fit", "krcc", "plcc", "srcc"]

Fit: TypeAlias = Literal["none", "logistic4"]
_FLAT: Final = 1e-9  # standard deviation of a fitted curve over that of the labels
_correlation = partial(Statistic, undefined="pred or mos spans more than float64 can square, or less; rescale it.")


@_correlation
def srcc(pred: Array, mos: Array) -> Evaluate:
    """Spearman's rank correlation, in [-1, 1]; equal numbers share their mean rank, as in `scipy.stats.spearmanr`."""
    x, y = Ties.of(pred), Ties.of(mos)
    return lambda counts: pearson(x.ranks(counts), y.ranks(counts), counts)


@_correlation
def krcc(pred: Array, mos: Array) -> Evaluate:
    """Kendall's rank correlation tau-b, in [-1, 1], as in `scipy.stats.kendalltau`."""
    counted = pair_counts(pred, mos)

    def evaluate(counts: Array) -> Array:
        found = counted(counts)
        size = (found.pairs - found.equal_x) * (found.pairs - found.equal_y)
        tau: Array = (found.agreeing - found.opposed) / np.sqrt(np.where(size > 0, size, np.nan))
        return tau

    return evaluate


@_correlation
def plcc(pred: Array, mos: Array, fit: Fit = "none") -> Evaluate:
    """Pearson's linear correlation, in [-1, 1]; after a fit in [0, 1].

    Args:
        pred: Predictions, (n,).
        mos: Labels, (n,).
        fit: `none`, or `logistic4`: predictions first go through VQEG's logistic curve. Figures with and without
            a fit cannot be compared; name it beside the figure.

    Raises:
        ProtocolError: also if there are too few images for the fit.
    """
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
