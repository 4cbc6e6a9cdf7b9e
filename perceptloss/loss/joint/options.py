"""What the `joint` of a term may say, and what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from perceptloss.card import Card
from perceptloss.errors import near

__all__ = ["DAMAGES", "Damage", "Joint", "JointOptions", "joint_problems", "read_joint"]

Damage = Literal["blur", "noise", "grid", "steps"]
"""What makes an output worse: a blur, white noise, a pattern of period 2 or 4, or too few grey levels."""
DAMAGES: tuple[Damage, ...] = get_args(Damage)
Learns = Literal["all", "head"]


class JointOptions(TypedDict, total=False):
    """How a critic learns beside the restorer, as it is written; what is left out is as in `Joint`."""

    learns: Learns
    lr: float
    lr_end: float
    steps: int
    every: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    ema: float
    margin: float
    mix: bool
    swap: float
    damage: tuple[Damage, ...]
    replay: float
    buffer: int
    penalty: float
    penalty_every: int
    stay: float
    anchor: float
    checkpoint: bool


@dataclass(frozen=True, kw_only=True)
class Joint:
    """How a critic learns beside the restorer.

    Attributes:
        learns: `all`, or only the `head` behind a trunk, which stays shared with the frozen critics of the loss.
        lr: Learning rate of AdamW.
        lr_end: Learning rate after `steps`, reached along a cosine; refused without `steps`.
        steps: Length of its schedule in steps of the training; 0: a constant rate.
        every: Steps of the restorer for one of the critic.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        clip: Largest norm of its gradient; 0: no clipping.
        ema: Decay of the average of its weights that is delivered; 0: none.
        margin: Difference of quality asked for, per unit of mean absolute difference of the images.
        mix: Whether a mix of output and reference is a rung of the ladder.
        swap: Weight of finding regions of the reference that were replaced by output, for critics with maps.
        damage: What makes the lowest rung of the output, one kind a step; empty: none.
        replay: Share of the outputs that are exchanged for earlier ones.
        buffer: Earlier outputs kept of each place of the batch.
        penalty: Weight of the squared l1 norm of its input gradient at outputs and references.
        penalty_every: Its steps for one that is penalised, with that many times the weight.
        stay: Weight of the mean squared distance of its weights from where they started.
        anchor: Weight of the labelled images that it is given.
        checkpoint: Whether its step runs rung by rung and recomputes activations in the backward.
    """

    learns: Learns = "all"
    lr: float = 2e-4
    lr_end: float = 0.0
    steps: int = 0
    every: int = 1
    betas: tuple[float, float] = (0.5, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.0
    margin: float = 10.0
    mix: bool = True
    swap: float = 0.0
    damage: tuple[Damage, ...] = DAMAGES
    replay: float = 0.0
    buffer: int = 16
    penalty: float = 0.0
    penalty_every: int = 8
    stay: float = 0.0
    anchor: float = 1.0
    checkpoint: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate at a step of the training."""
        if not self.steps:
            return self.lr
        done = min(1.0, step / self.steps)
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * done)) / 2


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(_is_number(v) and 0 <= v < 1 for v in value)


def _are_damages(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(kind in DAMAGES for kind in value)


_RULES: dict[str, tuple[str, Any]] = {
    "learns": (f"one of {', '.join(get_args(Learns))}", lambda v: v in get_args(Learns)),
    "lr": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "every": ("a whole number of at least 1", lambda v: _is_whole(v) and v >= 1),
    "penalty_every": ("a whole number of at least 1", lambda v: _is_whole(v) and v >= 1),
    "buffer": ("a whole number of at least 1", lambda v: _is_whole(v) and v >= 1),
    "steps": ("a whole number of at least 0", lambda v: _is_whole(v) and v >= 0),
    "betas": ("two numbers from 0 to below 1", _is_pair),
    "ema": ("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "replay": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "damage": (f"a list of {', '.join(DAMAGES)}", _are_damages),
    **dict.fromkeys(("mix", "checkpoint"), ("true or false", lambda v: isinstance(v, bool))),
    **dict.fromkeys(
        ("lr_end", "weight_decay", "clip", "margin", "swap", "penalty", "stay", "anchor"),
        ("a number of at least 0", lambda v: _is_number(v) and v >= 0),
    ),
}


def joint_problems(raw: Any, card: Card, monitor: bool) -> list[str]:
    """What is wrong with the `joint` of a term; empty if nothing is."""
    if raw is False or raw is None:
        return []
    if raw is not True and not isinstance(raw, Mapping):
        return [f"'joint' must be true, false or a mapping of its options, got {raw!r}"]
    given = {} if raw is True else raw
    known = ", ".join(_RULES)
    problems = [f"joint: unknown key {key!r}{near(key, _RULES)} Known: {known}" for key in given if key not in _RULES]
    problems += [
        f"joint.{key} must be {need}, got {given[key]!r}"
        for key, (need, is_right) in _RULES.items()
        if key in given and not is_right(given[key])
    ]
    if given.get("lr_end") and not given.get("steps"):
        problems.append("joint.lr_end is reached after joint.steps, which is missing: without it the rate is constant")
    if monitor:
        problems.append("a term that only watches cannot be joint: nothing would learn from what it learns")
    if not card.weights:
        problems.append(f"'joint' needs a critic that learns, and {card.name!r} is a formula")
    return problems


def read_joint(raw: Any) -> Joint | None:
    """The options of a `joint` without problems; None if the critic is frozen."""
    if not raw and not isinstance(raw, Mapping):
        return None
    given = {} if raw is True else dict(raw)
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Joint(**options)
