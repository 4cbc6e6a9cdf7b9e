"""A budget of fidelity: how much critics may cost, stated by the user, and kept.

A Lagrangian multiplier in its logarithm: from measurements on held-out images, the critics' weights follow what is
left of the budget. Where it is spent, what their gradient takes from fidelity is projected away (Yu et al., "Gradient
Surgery for Multi-Task Learning", NeurIPS 2020, of one gradient against the other).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.errors import ConfigError, InputError, UnknownCritic
from perceptloss.registry import get_card

__all__ = ["Budget", "budget_problems", "projected", "walk_back"]

_GAIN = 0.35  # of the logarithm of the factor, per measurement and unit of budget left
_LEAST = 0.02
_NOT_YET = 0.25  # of the budget: a start that moves less is no reason to press harder


def budget_problems(budget: Any) -> list[str]:
    """What is wrong with a budget such as `{psnr: -0.5}`; empty if nothing is."""
    if not isinstance(budget, Mapping):
        return [f"expected full-reference critics and changes, such as {{psnr: -0.5}}, got {budget!r}"]
    problems = []
    for name, change in budget.items():
        if not isinstance(name, str):
            problems.append(f"expected the name of a critic, got {name!r}")
            continue
        try:
            card = get_card(name)
        except UnknownCritic as error:
            problems.append(str(error))
            continue
        sign = -1 if card.better == "higher" else 1
        if not card.needs_reference or card.channels != 3:
            problems.append(f"{name!r} does not measure fidelity: a budget needs a critic with a reference")
        if isinstance(change, bool) or not isinstance(change, (int, float)) or not math.isfinite(change):
            problems.append(f"{name!r}: expected the change that is allowed, got {change!r}")
        elif change * sign <= 0:
            problems.append(
                f"{name!r}: {card.better} is better, so what may be spent is {'negative' if sign < 0 else 'positive'}, "
                f"got {change!r}"
            )
    return problems


class Budget:
    """Keeps the critics of a loss within a budget.

    Args:
        allowed: Full-reference critic to the change that is allowed against the start, in its units, signed:
            `{"psnr": -0.5}`.
        most: Greatest factor of the critics' weights; above 1, a budget that is not spent is offered to them.
        room: How many times the budget may be spent while training goes on. Above 1 it pays where the weights go back
            towards the start at the end: that regains fidelity faster than it loses what critics gave.

    Attributes:
        start: Scores of the restorer that it is held against.
        spent: Share of the budget that is spent, of the critic that is nearest to its end; 1 is all of it.
        factor: Of the critics' weights.

    Raises:
        ConfigError: if the budget is none.
    """

    def __init__(self, allowed: Mapping[str, float], most: float = 1.0, room: float = 1.0) -> None:
        problems = budget_problems(allowed)
        problems += [
            f"{name} must be a number above 0, got {value!r}"
            for name, value in {"most": most, "room": room}.items()
            if not 0 < value < math.inf
        ]
        if problems:
            raise ConfigError(problems, "budget")
        self.allowed, self.most, self.room = dict(allowed), most, room
        self.start: dict[str, float] = {}
        self.spent, self.factor = 0.0, 1.0

    @property
    def cards(self) -> dict[str, Card]:
        """Of what it measures."""
        return {name: get_card(name) for name in self.allowed}

    def spent_of(self, scores: Mapping[str, float]) -> float:
        """Share of the budget that scores have spent against the start; below 0 they are better than it."""
        return max((scores[name] - self.start[name]) / change for name, change in self.allowed.items())

    def note(self, scores: Mapping[str, float]) -> None:
        """Follow a measurement, on the same images as that of the start, which is the first.

        Args:
            scores: Mean scores by critic; if they are not finite, nothing changes.

        Raises:
            InputError: if a score is missing, or one of the start is not finite.
        """
        if missing := [name for name in self.allowed if name not in scores]:
            raise InputError(f"a budget of {', '.join(self.allowed)} needs a score of {', '.join(missing)}.")
        if not self.start:
            start = {name: float(scores[name]) for name in self.allowed}
            if not all(map(math.isfinite, start.values())):
                raise InputError(f"a budget is held against the scores of the start, which are not finite: {start}.")
            self.start = start
            return
        now = self.spent_of(scores)
        if not math.isfinite(now):
            return
        self.spent = now
        spent = self.spent / self.room
        left = max(-2.0, min(1.0 if spent >= _NOT_YET else _NOT_YET, 1 - spent))
        self.factor = min(self.most, max(_LEAST, self.factor * math.exp(_GAIN * left)))

    @property
    def must_project(self) -> bool:
        """Whether conflicts with fidelity are to be projected away."""
        return self.spent > self.room

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"start": self.start, "spent": self.spent, "factor": self.factor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ConfigError: if it is of a budget of other critics.
        """
        if state["start"] and state["start"].keys() != self.allowed.keys():
            names = (", ".join(of) for of in (self.allowed, state["start"]))
            raise ConfigError(["this budget is of {}, that of the checkpoint of {}".format(*names)], "budget")
        self.start, self.spent, self.factor = dict(state["start"]), float(state["spent"]), float(state["factor"])


def projected(gradient: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A gradient of critics without what opposes that of the mean absolute error, sample by sample.

    Args:
        gradient: d loss / d x, (N, C, H, W).
        x: Restored images, same shape.
        y: Ground truth, same shape.
    """
    work = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    fidelity = torch.sign(x.detach() - y).to(work.dtype)
    dot = (work * fidelity).sum((1, 2, 3), keepdim=True)
    size = fidelity.square().sum((1, 2, 3), keepdim=True).clamp_min(1.0)
    return (work - dot.clamp_max(0) / size * fidelity).to(gradient.dtype)


def walk_back(spent_at: Callable[[float], float], tolerance: float = 0.02, rounds: int = 8) -> float:
    """Largest share of the way from the start to the end of a training that keeps within the budget.

    Between a start and what was fine-tuned from it, weights can be interpolated (Wang et al., "Deep Network
    Interpolation for Continuous Imagery Effect Transition", CVPR 2019).

    Args:
        spent_at: Share of the way, 0 to 1, to share of the budget that is spent there.
        tolerance: In units of the budget.
        rounds: Most bisections.

    Returns:
        1 if the end keeps within it.
    """
    low, high = 0.0, 1.0
    if spent_at(1.0) <= 1 + tolerance:
        return 1.0
    for _ in range(rounds):
        middle = (low + high) / 2
        spent = spent_at(middle)
        if abs(spent - 1) <= tolerance:
            return middle
        low, high = (middle, high) if spent < 1 else (low, middle)
    return low
