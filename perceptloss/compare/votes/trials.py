"""What a page of votes asks, in an order and with sides that a seed decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from perceptloss.errors import ConfigError

__all__ = ["BAD", "GOOD", "Options", "Trial", "draw_trials"]

GOOD: Final = -1  # instead of a system: what a catch trial shows that everybody must prefer
BAD: Final = -2
_MOST: Final = 400


@dataclass(frozen=True, kw_only=True)
class Options:
    """How votes are asked for.

    Attributes:
        trials: Comparisons at most; if there are more, they are drawn, each image and pair as often as can be.
        repeats: Comparisons of the first half, at most all of them, that come again in the second with sides changed,
            to see whether a voter is consistent.
        catches: Comparisons of a picture with a ruined copy, to see whether a voter looks.
        has_ties: Whether "no difference" is an answer.
        side: Largest side of the crops that are shown; None for whole images.
        seed: Of order, sides and ruins.
        question: What is asked; empty for the usual one.

    Raises:
        ConfigError: listing what is not allowed.
    """

    trials: int = 40
    repeats: int = 4
    catches: int = 3
    has_ties: bool = False
    side: int | None = 256
    seed: int = 0
    question: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.trials <= _MOST:
            problems.append(f"trials must be from 1 to {_MOST}, got {self.trials}")
        problems += [
            f"{name} must be from 0 to {_MOST}, got {value}"
            for name, value in (("repeats", self.repeats), ("catches", self.catches))
            if not 0 <= value <= _MOST
        ]
        if self.side is not None and self.side < 32:
            problems.append(f"side must be 32 pixels or more, or whole, got {self.side}")
        if self.seed < 0:
            problems.append(f"seed must be at least 0, got {self.seed}")
        if problems:
            raise ConfigError(problems, "the votes")


@dataclass(frozen=True)
class Trial:
    """A question: which of two outputs of an image? Systems by index, or `GOOD` and `BAD`."""

    image: int
    left: int
    right: int

    @property
    def turned(self) -> Trial:
        """With sides changed."""
        return Trial(self.image, self.right, self.left)


def draw_trials(images: int, systems: int, options: Options) -> list[Trial]:
    """Questions about all pairs of systems, or some of them; repeats come in the second half.

    Raises:
        ConfigError: for less than two systems.
    """
    if systems < 2:
        raise ConfigError([f"votes compare two systems or more, got {systems}"], "the votes")
    generator = np.random.default_rng(options.seed)
    pairs = list(combinations(range(systems), 2))
    turns = [generator.permutation(images) for _ in pairs]
    asked = [(int(turns[p][n]), *pairs[p]) for n in range(images) for p in generator.permutation(len(pairs))]
    sides = generator.integers(0, 2, len(asked)).tolist()
    trials = [Trial(i, b, a) if side else Trial(i, a, b) for (i, a, b), side in zip(asked, sides, strict=True)]
    trials = _shuffled(trials[: options.trials], generator)
    half = (len(trials) + 1) // 2
    again = [trial.turned for trial in _shuffled(trials[:half], generator)[: options.repeats]]
    order = trials[:half] + _shuffled(trials[half:] + again, generator)
    for _ in range(options.catches):
        catch = Trial(int(generator.integers(images)), GOOD, BAD)
        turned = catch.turned if generator.integers(2) else catch
        order.insert(int(generator.integers(len(order) + 1)), turned)
    return order


def _shuffled(trials: Sequence[Trial], generator: np.random.Generator) -> list[Trial]:
    return [trials[n] for n in generator.permutation(len(trials))]
