"""Numbers as tables show them, and tables that stand under the one of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perceptloss.compare.statistics.strengths import Strengths
from perceptloss.compare.statistics.units import Bounds

__all__ = [
    "Section",
    "compact",
    "decimals",
    "half_width",
    "number",
    "p_text",
    "signed",
    "signed_number",
    "strength_section",
]

_MINUS: Final = "−"


@dataclass(frozen=True)
class Section:
    """A further table.

    Attributes:
        title: What it shows.
        header: Of its columns.
        rows: Of cells.
        notes: What has to be said of it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def decimals(values: Sequence[float]) -> int:
    """Digits after the point such that the largest value shows three or four that matter."""
    largest = max(map(abs, values), default=0)
    magnitude = math.floor(math.log10(largest)) if largest else 0
    return min(8, max(4, 2 - magnitude) if magnitude < 0 else max(1, 3 - magnitude))


def number(value: float | None, column: Sequence[float]) -> str:
    """A value with the digits that its column needs."""
    return "n/a" if value is None else f"{value:.{decimals(column)}f}".replace("-", _MINUS)


def signed_number(value: float, digits: int) -> str:
    """With its sign; in scientific form where the digits would hide it."""
    shown = f"{value:+.{digits}f}"
    if value and not shown.strip("+-0."):
        shown = f"{value:+.0e}"
    return ("0" if not value else shown).replace("-", _MINUS)


def half_width(value: float, bounds: Bounds | None, digits: int) -> str:
    """How far the interval around a value reaches, at its farther end, such as `±0.003`; empty without one."""
    if bounds is None or bounds.low is None or bounds.high is None:
        return ""
    reach = max(bounds.high - value, value - bounds.low)
    shown = f"{reach:.{digits}f}"
    return (
        f"±{reach:.0e}".replace("-", _MINUS) if reach > 0 and not shown.strip("0.") else f"±{shown if reach > 0 else 0}"
    )


def signed(value: float, bounds: Bounds | None, column: Sequence[float]) -> str:
    """A difference and its interval, such as `+0.012 ±0.003`."""
    digits = decimals(column)
    return f"{signed_number(value, digits)} {half_width(value, bounds, digits)}".strip()


def compact(value: float) -> str:
    """Two digits that matter."""
    return f"{value:.2g}".replace("-", _MINUS)


def p_text(p: float | None) -> str:
    """Such as `p = 0.012`, or `p < 0.001`."""
    if p is None:
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def strength_section(title: str, systems: Sequence[str], found: Strengths, about: str) -> Section:
    """Table of Bradley-Terry strengths; `about` says whose votes they are of."""
    rows = []
    for n, name in enumerate(systems):
        ends = f"[{found.low[n]:.2f}, {found.high[n]:.2f}]" if found.low else "n/a"
        rows.append((name, f"{round(found.values[n], 2) + 0.0:.2f}".replace("-", _MINUS), ends.replace("-", _MINUS)))
    notes = [f"who is ahead by s wins with a chance of 1 / (1 + exp(−s)); {about}"]
    if found.is_separated:
        notes.append(
            "some never lose to the others: how far they are ahead is the prior's, and no interval says how sure"
        )
    if len(found.parts) > 1:
        sets = "; ".join(", ".join(systems[n] for n in part) for part in found.parts)
        notes.append(f"no comparison links these sets, whose strengths cannot be compared: {sets}")
    return Section(title, ("system", "strength", "interval"), tuple(rows), tuple(notes))
