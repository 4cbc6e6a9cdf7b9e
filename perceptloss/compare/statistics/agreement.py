"""Agreement with people whose opinions have intervals, and whether one critic agrees better than another."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from perceptloss.compare.statistics.bootstrap import Statistic
from perceptloss.compare.statistics.distributions import NORMAL
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, labels

__all__ = ["constrained_concordance", "meng"]

_CERTAIN = 1 - 1e-12


@partial(Statistic, least=2, undefined="there are no pairs to judge: the intervals of all labels overlap.")
def constrained_concordance(pred: Array, mos: Array, half: Array) -> Evaluate:
    """Constrained concordance index: share of pairs whose labels are apart that predictions order alike, in [0, 1].

    Pairs whose intervals overlap are left out, because people do not order them either; equal predictions count half.
    Source: Ragano, Skoglund and Hines, Beyond Correlation, arXiv 2411.05794.

    Args:
        pred: Predictions, (n,), higher is better.
        mos: Labels, (n,), higher is better.
        half: Half the width of the interval of each label, (n,).

    Raises:
        ProtocolError: if a side is constant or not finite, or no pair is left.
    """
    reach = labels(half, pred.size, "half").astype(np.float64)
    if not (np.isfinite(reach).all() and (reach >= 0).all()):
        raise ProtocolError("half the width of an interval must be finite and at least 0.")
    apart = (mos - reach)[:, None] > (mos + reach)  # the row is better than the column
    right = apart * (1 + np.sign(pred[:, None] - pred)) / 2

    def evaluate(counts: Array) -> Array:
        total, agreed = (((counts @ pairs) * counts).sum(axis=1) for pairs in (apart.astype(np.float64), right))
        return np.divide(agreed, total, out=np.full_like(total, np.nan), where=total > 0)

    return evaluate


def meng(first: float, second: float, between: float, count: int) -> tuple[float, float]:
    """Z and two-sided p of the difference of two correlations with the same labels.

    Source: Meng, Rosenthal and Rubin, Psychological Bulletin 111, 1992.

    Args:
        first: Correlation of one critic with the labels, in [-1, 1].
        second: That of another.
        between: Correlation of the two critics.
        count: Number of images, which are taken as independent.

    Raises:
        ProtocolError: for fewer than four images, or a correlation outside [-1, 1].
    """
    if count < 4:
        raise ProtocolError(f"comparing two correlations needs four images or more, got {count}.")
    if not all(abs(value) <= 1 + 1e-9 for value in (first, second, between)):
        raise ProtocolError(f"correlations lie in [-1, 1], got {first}, {second} and {between}.")
    if first == second:
        return 0.0, 1.0
    a, b = (max(-_CERTAIN, min(_CERTAIN, value)) for value in (first, second))
    squared = (a**2 + b**2) / 2
    share = min(1.0, (1 - between) / (2 * (1 - squared)))
    spread = 2 * (1 - between) * (1 - share * squared) / (1 - squared)
    if spread <= 0:
        return math.copysign(math.inf, a - b), 0.0
    z = (math.atanh(a) - math.atanh(b)) * math.sqrt((count - 3) / spread)
    return z, 2 * NORMAL.cdf(-abs(z))
