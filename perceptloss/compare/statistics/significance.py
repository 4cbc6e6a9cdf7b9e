"""Whether differences of two systems on the same images can be chance, and how many such questions were asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from perceptloss.compare.statistics.distributions import NORMAL
from perceptloss.compare.statistics.paired import Array, Ties

__all__ = ["EXACT", "Chance", "SignedRank", "hodges_lehmann", "holm", "least_units", "sign_flip", "wilcoxon", "wilson"]

EXACT: Final = 16  # units up to which all patterns of signs are tried
_RANKED: Final = 50  # units up to which the distribution of the rank sum is counted out
_ROUNDING: Final = 1e-12
_CELLS: Final = 500_000


@dataclass(frozen=True)
class Chance:
    """Two-sided p of a test, and whether it is exact or of random patterns."""

    p: float
    is_exact: bool


def sign_flip(differences: Array, *, rounds: int = 10_000, seed: int = 0) -> list[Chance]:
    """Sign-flip permutation test of mean differences (Fisher, 1935).

    If two systems are alike, each difference could as well have had the other sign. Exact up to 16 units that are not
    0; else p = (c + 1) / (rounds + 1), which is never 0 (Phipson and Smyth, 2010).

    Args:
        differences: Sum of the differences of each unit, (U, C).
        rounds: Random patterns, where not all are tried.
        seed: Seed of these; equal seeds flip equally for all C.

    Returns:
        One for each column, two-sided; p is 1 where all differences are 0.
    """
    found: list[Chance | None] = [_exact(column) for column in differences.T]
    open_columns = [n for n, chance in enumerate(found) if chance is None]
    if open_columns:
        chosen = differences[:, open_columns]
        bar = np.abs(chosen.sum(axis=0)) - _ROUNDING * np.abs(chosen).sum(axis=0)
        reached = np.zeros(len(open_columns))
        generator = np.random.default_rng(seed)
        rows = max(1, _CELLS // len(differences))
        for first in range(0, rounds, rows):
            size = (min(rows, rounds - first), len(differences))
            signs = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64) * 2 - 1
            reached += (np.abs(signs @ chosen) >= bar).sum(axis=0)
        for column, count in zip(open_columns, reached.tolist(), strict=True):
            found[column] = Chance((count + 1) / (rounds + 1), False)
    return [chance for chance in found if chance is not None]


def _exact(differences: Array) -> Chance | None:
    """None for too many differences; half of the patterns are the others with all signs turned."""
    values = differences[differences != 0]
    if values.size > EXACT:
        return None
    if not values.size:
        return Chance(1.0, True)
    patterns = np.arange(2 ** (values.size - 1))[:, None] >> np.arange(values.size) & 1
    sums = np.abs((1 - 2 * patterns) @ values)
    bar = abs(values.sum()) - _ROUNDING * np.abs(values).sum()
    return Chance(float((sums >= bar).mean()), True)


def least_units(alpha: float) -> int:
    """Units below which even differences that all have one sign give a sign-flip p above `alpha`."""
    count = 1
    while 2.0 ** (1 - count) > alpha:
        count += 1
    return count


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test.

    Attributes:
        statistic: Rank sum of the positive differences.
        p: Two-sided; 1 where all differences are 0.
        is_exact: Whether the distribution was counted out, given zeros and ties, or is taken as normal.
        biserial: Matched-pairs rank-biserial correlation: the difference of the two rank sums over their sum, in
            [-1, 1]; 0 where all differences are 0.
    """

    statistic: float
    p: float
    is_exact: bool
    biserial: float


def wilcoxon(differences: Array) -> SignedRank:
    """Signed-rank test, zeros ranked and then dropped (Pratt, JASA 54, 1959), of (U,) differences.

    As `scipy.stats.wilcoxon(zero_method="pratt", correction=False)`; up to 50 units exact also with ties and zeros.
    """
    ranks = Ties.of(np.abs(differences)).ranks(np.ones((1, differences.size)))[0]
    ranks, is_positive = ranks[differences != 0], differences[differences != 0] > 0
    total, statistic = float(ranks.sum()), float(ranks[is_positive].sum())
    if not ranks.size:
        return SignedRank(0.0, 1.0, True, 0.0)
    biserial = (2 * statistic - total) / total
    if differences.size <= _RANKED:
        return SignedRank(statistic, _counted_out(ranks, statistic), True, biserial)
    z = (statistic - total / 2) / np.sqrt((ranks**2).sum() / 4)
    return SignedRank(statistic, 2 * NORMAL.cdf(-abs(float(z))), False, biserial)


def _counted_out(ranks: Array, statistic: float) -> float:
    """Share of the patterns of signs that are as far out, twice that of the smaller side."""
    doubled = np.rint(2 * ranks).astype(np.intp)  # mean ranks end in .5 at most
    shares = np.zeros(int(doubled.sum()) + 1)
    shares[0] = 1.0
    for rank in doubled.tolist():
        shifted = np.zeros_like(shares)
        shifted[rank:] = shares[: len(shares) - rank]
        shares = (shares + shifted) / 2
    place = round(2 * statistic)
    return float(min(1.0, 2 * min(shares[: place + 1].sum(), shares[place:].sum())))


def hodges_lehmann(differences: Array) -> float:
    """Median of the means of all pairs of (U,) differences, each with itself too: the shift that fits Wilcoxon."""
    rows, columns = np.triu_indices(differences.size)
    return float(np.median((differences[rows] + differences[columns]) / 2))


def holm(p: Array) -> Array:
    """P-values for a family of tests, (m,), after Holm (1979): compared with alpha, they err in one or more of the
    tests with a probability of at most alpha.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def wilson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of `count` trials (Wilson, JASA 22, 1927), in [0, 1]."""
    z = NORMAL.inv_cdf((1 + level) / 2)
    size = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / size
    half = z / size * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
