"""The groups of columns in the table of a run: what it trained on, what only watched, and fidelity."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["GROUPS", "Group", "group_of"]

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
