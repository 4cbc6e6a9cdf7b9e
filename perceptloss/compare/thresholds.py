"""Thresholds on mean scores that make a run fail, for continuous integration."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from perceptloss.compare.results import Results
from perceptloss.errors import ConfigError, near

__all__ = ["Threshold", "check_thresholds", "parse_thresholds"]

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM: Final = re.compile(
    r"\s*(?P<critic>[^\s<>=]+)\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[+-]?[0-9.]+(?:[eE][+-]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Threshold:
    """A condition, as given in `text`, under which a run fails.

    Attributes:
        critic: Name of the critic, as asked for; all of that name where weights differ.
        limit: For the mean score, or, where it was given a sign (`+0.005`), for its difference to the baseline.
    """

    text: str
    critic: str
    sign: str
    limit: float
    is_difference: bool


def parse_thresholds(texts: Sequence[str], critics: Sequence[str], *, has_baseline: bool) -> list[Threshold]:
    """Thresholds from texts such as `lpips-vgg > 0.2` or `lpips-vgg > +0.005`.

    Args:
        texts: The conditions.
        critics: Names that may be used.
        has_baseline: Whether there is a system to compare with.

    Raises:
        ConfigError: listing every condition that cannot be read or checked.
    """
    found, problems = [], []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            problems.append(f"{text!r}: expected CRITIC > NUMBER (or >=, <, <=); a signed number is a difference")
            continue
        critic, limit = match["critic"], match["limit"]
        is_difference = limit[0] in "+-"
        try:
            found.append(Threshold(text.strip(), critic, match["sign"], float(limit), is_difference))
        except ValueError:
            problems.append(f"{text!r}: {limit!r} is not a number")
        if critic not in critics:
            problems.append(f"{text!r}: {critic!r} is not one of the critics of this run{near(critic, critics)}")
        if is_difference and not has_baseline:
            problems.append(f"{text!r}: a signed number is a difference to the baseline, but there is one system only")
    if problems:
        raise ConfigError(problems, "--fail-if")
    return found


def check_thresholds(results: Results, thresholds: Sequence[Threshold]) -> list[str]:
    """A sentence for every system that meets a condition; a mean that does not exist meets all."""
    standings = list(zip(results.systems, results.summary().standings, strict=True))
    failures = []
    for threshold in thresholds:
        what = "difference to the baseline" if threshold.is_difference else "mean"
        for place, column in enumerate(results.critics):
            if column.label.split("@")[0] != threshold.critic:
                continue
            for name, standing in standings:
                if threshold.is_difference and name == results.baseline:
                    continue
                cell = standing.cells[place]
                value = cell.difference if threshold.is_difference else cell.mean
                if value is None:
                    failures.append(f"{name}: {column.label} has no {what} ({threshold.text})")
                elif _COMPARE[threshold.sign](value, threshold.limit):
                    failures.append(f"{name}: {what} of {column.label} is {value:.6g} ({threshold.text})")
    return failures
