"""Thresholds on mean scores, and on those of presets, that make a run fail, for continuous integration."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
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
        critic: Name of the critic, as asked for (all of that name where weights differ), or of a preset.
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
        critics: Names that may be used, also of presets.
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
            problems.append(f"{text!r}: {critic!r} is not a critic or preset of this run{near(critic, critics)}")
        if is_difference and not has_baseline:
            problems.append(f"{text!r}: a signed number is a difference to the baseline, but there is one system only")
    if problems:
        raise ConfigError(problems, "--fail-if")
    return found


def check_thresholds(results: Results, thresholds: Sequence[Threshold]) -> list[str]:
    """A sentence for every system that meets a condition; a mean that does not exist meets all."""
    failures = []
    for threshold in thresholds:
        what = "difference to the baseline" if threshold.is_difference else "mean"
        for label, name, mean, difference in _figures(results, threshold.critic):
            if threshold.is_difference and name == results.baseline:
                continue
            value = difference if threshold.is_difference else mean
            if value is None:
                failures.append(f"{name}: {label} has no {what} ({threshold.text})")
            elif _COMPARE[threshold.sign](value, threshold.limit):
                failures.append(f"{name}: {what} of {label} is {value:.6g} ({threshold.text})")
    return failures


def _figures(results: Results, wanted: str) -> Iterator[tuple[str, str, float | None, float | None]]:
    """Label, system, mean and difference to the baseline, of all that is called so."""
    for place, column in enumerate(results.critics):
        if column.label.split("@")[0] == wanted:
            for name, standing in zip(results.systems, results.summary().standings, strict=True):
                yield column.label, name, standing.cells[place].mean, standing.cells[place].difference
    for place, preset in enumerate(results.analysis.presets):
        if preset.name == wanted:
            found = results.inference.presets[place]
            for name, value, gain in zip(results.systems, found.values, found.differences, strict=True):
                yield preset.name, name, value, gain
