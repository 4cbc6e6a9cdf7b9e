"""Whether a difference is small enough not to matter, and how large it must be to be seen."""

from __future__ import annotations

from perceptloss.compare.statistics.distributions import student_quantile, student_tail
from perceptloss.compare.statistics.paired import ProtocolError

__all__ = ["detectable", "tost"]


def tost(mean: float, error: float, units: int, margin: float) -> float:
    """P that two systems differ by `margin` or more: two one-sided t-tests (Schuirmann, 1987).

    The larger of both; below 0.05 the systems are equivalent within the margin, which is to be stated beforehand.

    Args:
        mean: Mean difference.
        error: Its standard error.
        units: Images or groups that it is of.
        margin: Difference that does not matter, either way.

    Raises:
        ProtocolError: for a single unit, or a margin that is not above 0.
    """
    if units < 2:
        raise ProtocolError(f"an equivalence test needs two images or groups, got {units}.")
    if not margin > 0:
        raise ProtocolError(f"expected a margin above 0, got {margin}.")
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return student_tail((margin - abs(mean)) / error, units - 1)


def detectable(error: float, units: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that a test at `alpha`, two-sided, finds with a probability of `power`.

    By the usual formula with Student's t, from the standard error of the differences at hand.

    Raises:
        ProtocolError: for a single unit.
    """
    if units < 2:
        raise ProtocolError(f"what can be detected follows from the spread of two images or groups, got {units}.")
    return (student_quantile(1 - alpha / 2, units - 1) + student_quantile(power, units - 1)) * error
