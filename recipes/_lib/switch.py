"""One switch for all critics of a loss: whether they learn beside the restorer, or none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perceptloss import create_critic
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
    act = _learning if joint else _frozen
    critics: Any
    if isinstance(loss.critics, Mapping):
        critics = {label: act(row, label) for label, row in loss.critics.items() if joint or not _says_nothing(row)}
    else:
        critics = [act(row, None) for row in loss.critics if joint or not _says_nothing(row)]
    return replace(loss, critics=critics, anchors=loss.anchors if joint else [])


def _learning(row: Any, label: Any) -> Any:
    """What is said of a critic that learns where it can; one that is only watched does not."""
    term = row if isinstance(row, Mapping) else {"weight": row}
    if not term.get("weight", 1) or term.get("joint") or not _learns(term.get("critic", label)):
        return row
    return {**term, "joint": True}


def _frozen(row: Any, label: Any) -> Any:
    """What is said of a critic that does not learn."""
    return {key: value for key, value in row.items() if key != "joint"} if isinstance(row, Mapping) else row


def _says_nothing(row: Any) -> bool:
    """Whether a critic begins with random weights, which only learning made worth something."""
    return isinstance(row, Mapping) and "joint" in row and "weights" in row and row["weights"] is None


def _learns(name: Any) -> bool:
    """Whether a critic has weights that can learn: statistics of images are none."""
    try:
        has_weights = isinstance(name, str) and bool(get_card(name).weights)
    except UnknownCritic:
        return False
    return has_weights and any(True for _ in create_critic(name, weights=None).parameters())
