"""One switch for all critics of a loss: whether they learn beside the restorer, or none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perceptloss.errors import UnknownCritic
from perceptloss.registry import get_card
from perceptloss.runs.options import Loss

__all__ = ["switched"]


def switched(loss: Loss, joint: bool | None) -> Loss:
    """The loss with all its critics that have weights learning, or with none; None leaves it as it is.

    Where none learns, critics of random weights are left out: they would say nothing. What is no term is left to the
    check of all terms.
    """
    if joint is None:
        return loss
    if isinstance(loss.critics, Mapping):
        said = {label: _term(row, label, joint=joint) for label, row in loss.critics.items()}
        critics: Any = {label: row for label, row in said.items() if row is not None}
    else:
        critics = [row for row in (_term(row, None, joint=joint) for row in loss.critics) if row is not None]
    return replace(loss, critics=critics, anchors=loss.anchors if joint else [])


def _term(row: Any, label: Any, *, joint: bool) -> Any:
    """What is said of a critic after the switch; None: it is left out."""
    term = row if isinstance(row, Mapping) else {"weight": row}
    if joint:
        is_watched = not term.get("weight", 1)
        return (
            row
            if is_watched or not _learns(term.get("critic", label))
            else {**term, "joint": term.get("joint") or True}
        )
    if "joint" not in term:
        return row
    is_random = "weights" in term and term["weights"] is None
    return None if is_random else {key: value for key, value in term.items() if key != "joint"}


def _learns(name: Any) -> bool:
    """Whether a critic has weights, so that it could learn."""
    try:
        return bool(get_card(name).weights)
    except UnknownCritic:
        return False
