"""Tail probabilities and quantiles of Student's t, chi-squared and the range of normal numbers, without scipy.

For whole degrees of freedom all have finite sums (Abramowitz and Stegun, 26.4 and 26.7) or one smooth integral.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np

__all__ = ["NORMAL", "chi_squared_tail", "range_quantile", "student_quantile", "student_tail"]

NORMAL: Final = NormalDist()
_STEPS: Final = 200  # halvings, more than a double has digits


def student_tail(t: float, freedom: int) -> float:
    """Probability that Student's t of `freedom` degrees exceeds t."""
    angle = math.atan(t / math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    first = 1 + freedom % 2
    places = np.arange(first, freedom - 1, 2)
    terms = np.cumprod(np.concatenate([[1.0], places / (places + 1) * squared]))
    if freedom % 2:
        total = 0.0 if freedom == 1 else float(terms.sum()) * math.cos(angle)
        within = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        within = math.sin(angle) * float(terms.sum())
    return (1 - within) / 2


def student_quantile(probability: float, freedom: int) -> float:
    """The number that Student's t stays below with a probability in (0, 1)."""
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    return _root(lambda t: 1 - student_tail(t, freedom), probability)


def chi_squared_tail(value: float, freedom: int) -> float:
    """Probability that chi-squared of `freedom` degrees exceeds a value of at least 0."""
    half, offset = value / 2, freedom % 2 / 2
    if half <= 0:
        return 1.0
    places = (n + offset for n in range(freedom // 2))
    terms = [math.exp(place * math.log(half) - half - math.lgamma(place + 1)) for place in places]
    return min(1.0, math.fsum(terms) + (math.erfc(math.sqrt(half)) if offset else 0.0))


@lru_cache
def range_quantile(probability: float, count: int) -> float:
    """The number that the range of `count` independent standard normal numbers stays below with a probability."""
    z = np.linspace(-8.5, 8.5, 1701)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    normal = np.vectorize(NORMAL.cdf)

    def below(width: float) -> float:
        inside = normal(z) - normal(z - width)
        return float(count * (density * inside ** (count - 1)).sum() * (z[1] - z[0]))

    return _root(below, probability)


def _root(increasing: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    while increasing(high) < target and high < 1e12:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return high
