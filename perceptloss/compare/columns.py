"""The columns of a table, and their groups in that of a run: what it trained on, what only watched, and fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

__all__ = ["GROUPS", "Column", "Group", "group_of"]

Group = Literal["trained FR", "trained NR", "untrained FR", "untrained NR", "fidelity"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
"""In the order of a table."""

_FIDELITY: Final = frozenset({"psnr"})  # says how near the pixels are, not how they look


def group_of(name: str, kind: str, *, is_trained: bool) -> Group:
    """The group of a critic's column.

    Args:
        name: Of its card.
        kind: Of its card; the view of a stereo pair makes no difference.
        is_trained: Whether the run optimised it. A fidelity that is trained on stands with the trained.
    """
    if name in _FIDELITY and not is_trained:
        return "fidelity"
    if kind.endswith("fr"):
        return "trained FR" if is_trained else "untrained FR"
    return "trained NR" if is_trained else "untrained NR"


@dataclass(frozen=True)
class Column:
    """A critic of a table.

    Attributes:
        label: Unique in the results; the critic's name unless that is there twice.
        signature: Every choice that changes its scores.
        card: The critic's card as plain JSON types.
        role: `train` or `judge` where a run declares it; one trained on is no evidence, and counts for no rank.
    """

    label: str
    signature: str
    card: Mapping[str, Any]
    role: str | None = None

    @property
    def is_higher_better(self) -> bool:
        """Direction of its scores."""
        return bool(self.card["better"] == "higher")

    @property
    def header(self) -> str:
        """Label and arrow of direction; a dagger where the critic was trained on."""
        return f"{self.label} {'↑' if self.is_higher_better else '↓'}{'' if self.is_evidence else '†'}"

    @property
    def is_evidence(self) -> bool:
        """Whether it was not trained on, as far as is known."""
        return self.role != "train"

    @property
    def group(self) -> Group | None:
        """Of columns that it stands in; None where no run declares a role."""
        if self.role is None:
            return None
        return group_of(self.card["name"], self.card["kind"], is_trained=self.role == "train")

    @property
    def place(self) -> int:
        """Of its group in the table; before all where no run declares a role."""
        return -1 if self.group is None else GROUPS.index(self.group)
