"""One ranking of several systems: Friedman's test and the critical difference of mean ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from perceptloss.compare.statistics.distributions import chi_squared_tail, range_quantile
from perceptloss.compare.statistics.paired import Array, ProtocolError

__all__ = ["Friedman", "friedman", "ranked"]


def ranked(oriented: Array) -> Array:
    """Rank of each system in its row, 1 for the highest, equal ones share their mean; (..., k) to (..., k)."""
    own, others = oriented[..., :, None], oriented[..., None, :]
    ranks: Array = (others > own).sum(axis=-1) + ((others == own).sum(axis=-1) + 1) / 2
    return ranks


@dataclass(frozen=True)
class Friedman:
    """Whether any of k systems is ranked otherwise than the rest.

    Attributes:
        statistic: Chi-squared of k - 1 degrees of freedom if all are alike.
        p: Probability of one as large.
        critical_difference: Mean ranks that are further apart differ at `alpha`, all pairs at once (Nemenyi).
        mean_ranks: (k,).
    """

    statistic: float
    p: float
    critical_difference: float
    mean_ranks: tuple[float, ...]


def friedman(ranks: Array, alpha: float = 0.05) -> Friedman:
    """Friedman's test (1937), with ties, and the critical difference (Nemenyi 1963; Demsar, JMLR 7, 2006).

    Args:
        ranks: A row of ranks for each block, (n, k). Rows may be means of several rankings, such as those of several
            critics of one image: rows are exchanged within themselves, and their own spread is what counts.
        alpha: Level of the critical difference.

    Raises:
        ProtocolError: for less than two blocks or systems.
    """
    count, systems = ranks.shape
    if count < 2 or systems < 2:
        raise ProtocolError(f"Friedman's test needs two blocks and two systems, got {count} and {systems}.")
    means = ranks.mean(axis=0)
    spread = float(((ranks - ranks.mean(axis=1, keepdims=True)) ** 2).sum() / (count * (systems - 1)))
    if spread == 0:
        return Friedman(0.0, 1.0, 0.0, tuple(means.tolist()))
    statistic = count * float(((means - means.mean()) ** 2).sum()) / spread
    gap = range_quantile(1 - alpha, systems) * math.sqrt(spread / count)
    return Friedman(statistic, chi_squared_tail(statistic, systems - 1), gap, tuple(np.asarray(means).tolist()))
