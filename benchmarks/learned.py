"""What became of critics after their lessons: the rows of the table, and what they are to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perceptloss.output.tables import markdown

__all__ = ["BLIND", "IN_ORDER", "SEEING", "Row", "render"]

SEEING: Final = 0.85
"""SRCC that a critic must reach that sees the reference."""
BLIND: Final = 0.6
"""SRCC that one must reach that does not."""
IN_ORDER: Final = 0.9
"""Share of pairs of levels of one damage that must be in order."""


@dataclass(frozen=True)
class Row:
    """What became of a critic.

    Attributes:
        critic: Name.
        sees: Whether it sees the reference.
        learned: Numbers that learned.
        minutes: Of the training; None where another one made the weights.
        images: In the exam.
        before: SRCC of the untaught critic.
        srcc: SRCC with the consensus, on photographs and families of damage that it never saw.
        levels: Share of pairs of levels of one damage in order.
        kinds: SRCC, for kinds of damage that it never saw, though others of their families.
        kinds_levels: Share of pairs of levels in order, likewise.
    """

    critic: str
    sees: bool
    learned: int
    minutes: float | None
    images: int
    before: float
    srcc: float
    levels: float
    kinds: float
    kinds_levels: float

    @property
    def aim(self) -> float:
        """SRCC to reach."""
        return SEEING if self.sees else BLIND

    @property
    def is_met(self) -> bool:
        """Whether both aims are."""
        return self.srcc >= self.aim and self.levels >= IN_ORDER


def render(rows: Sequence[Row]) -> str:
    """The table, as markdown."""
    head = ["critic", "sees the reference", "numbers learned", "minutes", "images", "SRCC untaught", "SRCC taught"]
    head += ["levels in order", "aim", "met", "other kinds: SRCC", "levels"]
    lines = [
        [
            f"`{row.critic}`",
            _said(is_so=row.sees),
            f"{row.learned:,}",
            "as above" if row.minutes is None else f"{row.minutes:.1f}",
            str(row.images),
            f"{row.before:.2f}",
            f"{row.srcc:.3f}",
            f"{row.levels:.3f}",
            f"{row.aim:.2f}",
            _said(is_so=row.is_met),
            f"{row.kinds:.3f}",
            f"{row.kinds_levels:.3f}",
        ]
        for row in rows
    ]
    return markdown(head, lines)


def _said(*, is_so: bool) -> str:
    return "yes" if is_so else "no"
