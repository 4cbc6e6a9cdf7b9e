"""Axes of drawings: numbers to places, and the round numbers that are written beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from perceptloss.compare.shown import decimals

__all__ = ["Axis", "Tick", "path_of", "place"]


@dataclass(frozen=True)
class Tick:
    """A round number: its text, and where it stands."""

    text: str
    place: float


@dataclass(frozen=True)
class Axis:
    """Numbers from `low` to `high` at places from `start` to `end`, which may be smaller."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, margin: float = 0.08) -> Axis:
        """An axis that holds all values, with a margin at both ends; of width 1 where all are equal."""
        there = list(values)
        low, high = min(there), max(there)
        room = (high - low) * margin or max(abs(low) * margin, 0.5)
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        return place(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start))

    @property
    def ticks(self) -> list[Tick]:
        """About five round numbers."""
        rough = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough)
        numbers = [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
        digits = digits if digits <= 8 else decimals(numbers)
        return [Tick(f"{n:.{digits}f}".replace("-", "−"), self(n)) for n in numbers]


def place(value: float) -> float:
    """A coordinate with as many digits as can be seen."""
    return round(value, 1)


def path_of(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """The `d` of an SVG path through points."""
    text = "L".join(f"{place(x):g} {place(y):g}" for x, y in points)
    return f"M{text}{'Z' if closed else ''}"
