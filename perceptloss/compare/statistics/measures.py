"""Agreement of predictions with people's labels: rank and linear correlation, and error after a fitted curve.

Predictions and labels are rows of numbers about the same images. Correlations keep their sign; only `main_score` and
fits remove it. A side that is constant or not finite is a `ProtocolError`, never 0 or NaN.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.bootstrap import by_counts
from perceptloss.compare.statistics.fits import Form, fitted
from perceptloss.compare.statistics.paired import (
    Array,
    Evaluate,
    ProtocolError,
    Ties,
    labels,
    pair_counts,
    paired,
    pearson,
    vector,
)

__all__ = [
    "Fit",
    "banded_srcc",
    "banded_srcc_by_counts",
    "krcc",
    "main_score",
    "plcc",
    "quality_bands",
    "rmse",
    "srcc",
    "srcc_by_label",
]

Fit: TypeAlias = Literal["none"] | Form
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
    curves, least = fitted(pred, mos, fit), _FLAT * float(mos.std())

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
        fit: `none`, or the curve through which predictions go first: `logistic4`, `logistic5`, `poly3`. Figures of
            different fits cannot be compared; name it beside the figure.

    Raises:
        ProtocolError: if a side is constant or not finite, or there are too few images for the fit.
    """
    x, y = paired(pred, mos)
    return _value(_plcc(x, y, fit), x.size)


def _rmse(pred: Array, mos: Array, fit: Fit = "logistic4") -> Evaluate:
    curves = None if fit == "none" else fitted(pred, mos, fit)

    def evaluate(counts: Array) -> Array:
        expected = pred if curves is None else curves(counts)
        error: Array = np.sqrt((counts * (expected - mos) ** 2).sum(axis=1) / counts.sum(axis=1))
        return error

    return evaluate


@by_counts(_rmse)
def rmse(pred: object, mos: object, fit: Fit = "logistic4") -> float:
    """Root of the mean squared error in the units of the labels, after a fit.

    Args:
        pred: Predictions, (n,), n >= 3.
        mos: Labels, (n,).
        fit: As for `plcc`; `none` only makes sense for predictions on the labels' scale.

    Raises:
        ProtocolError: as for `plcc`.
    """
    x, y = paired(pred, mos)
    return _value(_rmse(x, y, fit), x.size)


def _main_score(pred: Array, mos: Array, fit: Fit = "none") -> Evaluate:
    rank, linear = _srcc(pred, mos), _plcc(pred, mos, fit)
    return lambda counts: np.abs(rank(counts)) + np.abs(linear(counts))


@by_counts(_main_score)
def main_score(pred: object, mos: object, fit: Fit = "none") -> float:
    """The NTIRE challenges' |SRCC| + |PLCC|, in [0, 2]; direction does not matter.

    Args:
        pred: Predictions, (n,), n >= 3.
        mos: Labels, (n,).
        fit: As for `plcc`; some published figures use `poly3`.

    Raises:
        ProtocolError: as for `plcc`.
    """
    x, y = paired(pred, mos)
    return _value(_main_score(x, y, fit), x.size)


def _part(pred: Array, mos: Array, chosen: NDArray[np.bool_], name: str) -> Evaluate:
    """SRCC of some of the images as a function of the counts of all."""
    try:
        x, y = paired(pred[chosen], mos[chosen])
    except ProtocolError as error:
        raise ProtocolError(f"{name}: {error}") from None
    evaluate = _srcc(x, y)
    return lambda counts: evaluate(counts[:, chosen])


def quality_bands(mos: object, bands: int = 4) -> NDArray[np.intp]:
    """Band of each label, (n,), 0 the lowest quality; equal labels share a band.

    Raises:
        ProtocolError: for less than one band, or labels that are not finite.
    """
    y = vector(mos, "mos")
    if bands < 1:
        raise ProtocolError(f"expected one band or more, got {bands}.")
    inner = np.quantile(y, np.arange(1, bands) / bands)
    return np.searchsorted(inner, y, side="left")


def banded_srcc_by_counts(pred: Array, mos: Array, bands: int = 4) -> list[Evaluate]:
    """`banded_srcc` of resamples; the bands stay those of all images.

    Raises:
        ProtocolError: naming a band in which a side is constant or that is too small.
    """
    band = quality_bands(mos, bands)
    return [_part(pred, mos, band == number, f"band {number + 1} of {bands}") for number in range(bands)]


def banded_srcc(pred: object, mos: object, bands: int = 4) -> tuple[float, ...]:
    """SRCC within bands of equal size of the labels, lowest quality first.

    A critic that orders all qualities may order nothing among good images, where restoration works.

    Args:
        pred: Predictions, (n,).
        mos: Labels, (n,); higher is better, or the bands come in the other order.
        bands: Number of bands; 4 gives quartiles.

    Raises:
        ProtocolError: naming a band in which a side is constant or that is too small.
    """
    x, y = paired(pred, mos)
    return tuple(_value(evaluate, x.size) for evaluate in banded_srcc_by_counts(x, y, bands))


def srcc_by_label(pred: Array, mos: Array, values: object) -> dict[str, Evaluate]:
    """SRCC of resamples within each kind of images, such as families of distortions, in the kinds' order.

    Raises:
        ProtocolError: naming a kind in which a side is constant or that is too small.
    """
    kinds = labels(values, pred.size, "families")
    return {str(kind): _part(pred, mos, kinds == kind, f"family {kind}") for kind in np.unique(kinds)}
