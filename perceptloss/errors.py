"""Every exception this package raises on purpose; all derive from `PerceptlossError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from perceptloss.output.names import visible


class PerceptlossError(Exception):
    """Base of all errors raised on purpose by perceptloss."""


class InputError(PerceptlossError, ValueError):
    """An image tensor or an argument is not what the critic accepts."""


class ConfigError(PerceptlossError, ValueError):
    """A loss mapping, recipe or command line is wrong; lists every problem at once."""

    def __init__(self, problems: Iterable[str], where: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.where = where
        count = len(self.problems)
        super().__init__(
            f"{count} problem{'s' if count != 1 else ''} in {visible(where)}:\n{points(self.problems, count)}"
        )

    def __reduce__(self) -> tuple[type, tuple[tuple[str, ...], str]]:
        return type(self), (self.problems, self.where)


class UnknownCritic(PerceptlossError, KeyError):
    """No critic is registered under this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class WeightsError(PerceptlossError):
    """A weight file is missing, damaged, hostile, or does not fit the critic."""


class MissingWeights(WeightsError):
    """A weight file could not be found or fetched."""


class GradientError(PerceptlossError, RuntimeError):
    """A gradient was asked for that the chosen grad mode cannot give, or none arrives."""


class NonFiniteLoss(PerceptlossError, ArithmeticError):
    """A term gave NaN or infinity and the loss was told to stop on that."""


class DeceivedCritics(PerceptlossError, RuntimeError):
    """A training was told to stop at an alarm, and one rang."""


class PairingError(PerceptlossError, ValueError):
    """Two sets of images cannot be matched one to one; lists every problem at once."""


def some(names: Iterable[str], count: int = 5) -> str:
    """The first names in a row, and how many more there are."""
    listed = list(map(visible, names))
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")


def points(problems: Iterable[str], count: int = 8) -> str:
    """The first problems, a line for each, or more that are set in, and how many more there are."""
    listed = [visible(problem, keep="\n").replace("\n", "\n    ") for problem in problems]
    more = [f"  ... and {len(listed) - count} more"] if len(listed) > count else []
    return "\n".join([*(f"  - {problem}" for problem in listed[:count]), *more])


def near(name: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as `; did you mean 'ssim'?`, or an empty string."""
    spelt = {str(k).lower(): str(k) for k in known}
    close = [spelt[k] for k in difflib.get_close_matches(str(name).lower(), spelt, n=count, cutoff=0.5)]
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
