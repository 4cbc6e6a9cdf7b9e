"""What is drawn again: images, or groups of them, with bootstrap intervals of means.

Frames of a clip or crops of a scene are no independent evidence, so that whole groups are drawn, and the mean is that
of all images in the groups drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.bootstrap import draws
from perceptloss.compare.statistics.distributions import NORMAL, student_quantile
from perceptloss.compare.statistics.paired import Array, codes_of

__all__ = ["Bounds", "Units", "bounds"]

_FEW: Final = 20  # units below which the correction of BCa is itself mostly noise
_ROUNDING: Final = 1e-12
_TINY: Final = 1e-300


@dataclass(frozen=True)
class Bounds:
    """An interval.

    Attributes:
        low: Lower end; None where there is no interval.
        high: Upper end; likewise.
        method: `bca`; `percentile`, expanded, with fewer than 20 units or where BCa is not defined; `equal` where all
            units have the same number, so that nothing varies; `none` for a single unit.
    """

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Units:
    """Numbers of images, added up by unit.

    Attributes:
        sums: (U, C), for C rows of numbers about the same images.
        sizes: Images of each unit, (U,).
    """

    sums: Array
    sizes: Array

    @classmethod
    def of(cls, values: Array, groups: NDArray[Any] | None = None) -> Units:
        """Units of numbers, (n, C), and a label of each image, (n,); without labels each image is a unit."""
        if groups is None:
            return cls(values, np.ones(len(values)))
        codes = codes_of(groups)
        sums = np.zeros((int(codes.max()) + 1, values.shape[1]))
        np.add.at(sums, codes, values)
        return cls(sums, np.bincount(codes).astype(np.float64))

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.sizes)

    @cached_property
    def mean(self) -> Array:
        """Mean over images, (C,)."""
        mean: Array = self.sums.sum(axis=0) / self.sizes.sum()
        return mean

    @property
    def means(self) -> Array:
        """Mean of each unit, (U, C)."""
        return self.sums / self.sizes[:, None]

    @cached_property
    def error(self) -> Array:
        """Standard error of the mean, (C,), that of a ratio where units differ in size; NaN for a single unit."""
        if self.count < 2:
            return np.full(self.sums.shape[1], np.nan)
        influence = (self.sums - self.mean * self.sizes[:, None]) / self.sizes.mean()
        size = np.maximum(np.abs(influence).max(axis=0), _TINY)  # squares of any size stay in float64
        error: Array = size * np.sqrt(((influence / size) ** 2).sum(axis=0) / (self.count - 1) / self.count)
        return error

    @cached_property
    def is_equal(self) -> NDArray[np.bool_]:
        """Whether all units have the same mean but for rounding, (C,)."""
        equal: NDArray[np.bool_] = np.ptp(self.means, axis=0) <= _ROUNDING * np.abs(self.means).max(axis=0)
        return equal

    def drawn(self, rounds: int, seed: int) -> Array:
        """Means of resamples, (rounds, C); equal seeds draw equally for equal numbers of units."""
        parts = (counts @ self.sums / (counts @ self.sizes)[:, None] for counts in draws(self.count, rounds, seed))
        return np.concatenate(list(parts))


def bounds(units: Units, *, rounds: int = 10_000, seed: int = 0, level: float = 0.95) -> list[Bounds]:
    """Bootstrap interval of each mean, (C,): bias-corrected and accelerated (Efron, JASA 82, 1987).

    Args:
        units: What is drawn.
        rounds: Number of resamples.
        seed: Seed of the draws.
        level: Probability that an interval covers.
    """
    columns = range(units.sums.shape[1])
    if units.count < 2:
        return [Bounds(None, None, "none") for _ in columns]
    drawn = units.drawn(rounds, seed)
    found = []
    for column in columns:
        mean = float(units.mean[column])
        if units.is_equal[column]:
            found.append(Bounds(mean, mean, "equal"))
            continue
        ends, method = _expanded(level, units.count), "percentile"
        share = float(((drawn[:, column] < mean).mean() + (drawn[:, column] <= mean).mean()) / 2)
        if units.count >= _FEW and 0 < share < 1:
            ends, method = (
                _corrected(np.array([(1 - level) / 2, (1 + level) / 2]), share, _acceleration(units, column)),
                "bca",
            )
        low, high = np.quantile(drawn[:, column], ends)
        found.append(Bounds(float(low), float(high), method))
    return found


def _expanded(level: float, count: int) -> Array:
    """Ends of a percentile interval as wide as Student's t would have it (Hesterberg, American Statistician 69, 2015).

    Plain percentiles of five normal numbers cover in 84 of 100 cases instead of 95.
    """
    tail = NORMAL.cdf(-student_quantile((1 + level) / 2, count - 1) * math.sqrt(count / (count - 1)))
    return np.array([tail, 1 - tail])


def _acceleration(units: Units, column: int) -> float:
    """From the means without each unit in turn."""
    sums, sizes = units.sums[:, column], units.sizes
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    pull = without.mean() - without
    pull = pull / np.abs(pull).max()
    return float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))


def _corrected(ends: Array, share: float, acceleration: float) -> Array:
    bias = NORMAL.inv_cdf(share)
    shifted = [bias + NORMAL.inv_cdf(end) for end in ends.tolist()]
    return np.array([NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted])
