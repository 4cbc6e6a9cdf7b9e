"""Percentile intervals of a statistic by resampling images, or whole contents, with replacement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, Final

import numpy as np

from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, codes_of, labels, paired

__all__ = ["Interval", "Statistic", "bootstrap", "draws", "evaluator", "resamples"]

_CELLS: Final = 500_000  # counts that are held at once; the logistic fits hold about fifteen numbers for each
_TOLERATED: Final = 0.1  # share of resamples that may be undefined
_MINUS: Final = "−"


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        value: The statistic of all images.
        low: Lower end.
        high: Upper end.
        undefined: Resamples in which it is not defined, such as a constant side; the ends are those of the others.
    """

    value: float
    low: float
    high: float
    undefined: int = 0

    def __str__(self) -> str:
        """Such as `0.812 [0.790, 0.833]`, to two digits of the interval's width; three decimals or more below 10."""
        width = self.high - self.low
        digits = 1 - math.floor(math.log10(width)) if width > 0 else 4
        digits = min(6, max(digits, 3 if abs(self.value) < 10 else 0))
        texts = (f"{number:.{digits}f}".replace("-", _MINUS) for number in (self.value, self.low, self.high))
        return "{} [{}, {}]".format(*texts)


class Statistic:
    """A figure of predictions and labels, (n,) each, that knows how it is computed for all resamples at once.

    Args:
        prepare: Takes checked predictions, labels and the options, and gives a function of counts.
        undefined: What is wrong where the figure of all images is not a number.
        least: Smallest number of images.
        second: What the labels are called in messages.
    """

    def __init__(
        self, prepare: Callable[..., Evaluate], *, undefined: str, least: int = 3, second: str = "mos"
    ) -> None:
        update_wrapper(self, prepare)
        self.prepare, self._least, self._second, self._undefined = prepare, least, second, undefined

    def __call__(self, pred: object, mos: object, *args: Any, **options: Any) -> float:
        """The figure of all images.

        Raises:
            ProtocolError: if a side is constant or not finite, or the figure is not defined.
        """
        x, y = paired(pred, mos, self._least, self._second)
        value = float(self.prepare(x, y, *args, **options)(np.ones((1, x.size)))[0])
        if not math.isfinite(value):
            raise ProtocolError(self._undefined)
        return value


def evaluator(statistic: Callable[..., float], pred: Array, mos: Array) -> Evaluate:
    """The statistic as a function of counts: one array operation where it knows how, else one call per resample."""
    inner = statistic.func if isinstance(statistic, partial) and not statistic.args else statistic
    if isinstance(inner, Statistic):
        return inner.prepare(pred, mos, **(statistic.keywords if isinstance(statistic, partial) else {}))
    return lambda counts: np.array([_attempt(statistic, pred, mos, row) for row in counts.astype(np.int64)])


def _attempt(statistic: Callable[..., float], pred: Array, mos: Array, counts: np.ndarray[Any, Any]) -> float:
    try:
        return float(statistic(np.repeat(pred, counts), np.repeat(mos, counts)))
    except ProtocolError:
        return math.nan  # counted in Interval.undefined


def bootstrap(
    statistic: Callable[..., float],
    pred: object,
    mos: object,
    *,
    groups: object | None = None,
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A statistic of predictions and labels with its percentile interval.

    Args:
        statistic: A function of the protocol, `functools.partial` of one for its options, or any function of
            (pred, mos); the protocol's own run for all resamples at once.
        pred: Predictions, (n,).
        mos: Labels, (n,).
        groups: Content of each image, (n,): whole contents are drawn, because versions of one are no
            independent evidence. Without it, images are drawn.
        rounds: Number of resamples.
        seed: Seed of the draws; equal seeds draw equally for every statistic and critic.
        level: Probability that the interval covers.

    Raises:
        ProtocolError: if the statistic is not defined on all images or on more than a tenth of the resamples.
    """
    x, y = paired(pred, mos)
    if not (rounds >= 1 and 0 < level < 1):
        raise ProtocolError(f"expected rounds of at least 1 and a level between 0 and 1, got {rounds} and {level}.")
    evaluate = evaluator(statistic, x, y)
    value = float(evaluate(np.ones((1, x.size)))[0])
    if math.isnan(value):
        raise ProtocolError("not defined on these images, because a side is constant or no pair is left.")
    drawn = np.concatenate([evaluate(counts) for counts in resamples(x.size, groups, rounds, seed)])
    found = drawn[~np.isnan(drawn)]
    undefined = drawn.size - found.size
    if undefined > _TOLERATED * drawn.size:
        raise ProtocolError(
            f"a side is constant, or no pair is left, in {undefined} of {drawn.size} resamples; there are too few "
            "images, contents or distinct values for an interval."
        )
    low, high = np.quantile(found, ((1 - level) / 2, (1 + level) / 2))
    return Interval(value, float(low), float(high), undefined)


def resamples(count: int, groups: object | None, rounds: int, seed: int) -> Iterator[Array]:
    """Counts of images in all resamples, a few rows at a time, (rows, count).

    Args:
        count: Number of images.
        groups: Content of each image, (count,), of which whole ones are drawn; None draws images.
        rounds: Number of resamples.
        seed: Seed of the draws.

    Raises:
        ProtocolError: if there is one group only.
    """
    codes = np.arange(count) if groups is None else codes_of(labels(groups, count, "groups"))
    units = int(codes.max()) + 1
    if units < 2:
        raise ProtocolError("groups holds a single content; an interval over contents needs two or more.")
    for counts in draws(units, rounds, seed, count):
        yield counts[:, codes]


def draws(units: int, rounds: int, seed: int, width: int | None = None) -> Iterator[Array]:
    """Resamples as counts, how often each unit was drawn, a few rows at a time, (rows, units).

    Args:
        units: Number of units, each time as many are drawn.
        rounds: Number of resamples.
        seed: Seed of the draws.
        width: Numbers that a row will be made into, which decides how many rows come at a time.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // (width or units))
    for first in range(0, rounds, rows):
        size = min(rows, rounds - first)
        drawn = generator.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=size * units).reshape(size, units).astype(np.float64)
