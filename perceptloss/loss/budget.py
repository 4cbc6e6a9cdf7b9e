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

__all__ = ["Allowed", "Budget", "budget_problems", "projected", "walk_back"]

_GAIN = 0.35  # of the logarithm of the factor, per measurement and unit of budget left
_LEAST = 0.02
_NOT_YET = 0.25  # of the budget: a start that moves less is no reason to press harder
_NEAR = 0.1  # of a budget
_NEAR_DB = 0.05


Allowed = Mapping[str, float | Mapping[str, float]]
"""Full-reference critic to the change that is allowed against the start, signed, or to `{"worst": score}`."""


def budget_problems(budget: Any) -> list[str]:
    """What is wrong with a budget such as `{psnr: -0.5}` or `{psnr: {worst: 28}}`; empty if nothing is."""
    if not isinstance(budget, Mapping):
        return [f"expected full-reference critics and changes, such as {{psnr: -0.5}}, got {budget!r}"]
    problems = []
    names: dict[str, str] = {}
    for name, allowed in budget.items():
        if not isinstance(name, str):
            problems.append(f"expected the name of a critic, got {name!r}")
            continue
        try:
            card = get_card(name)
        except UnknownCritic as error:
            problems.append(str(error))
            continue
        if (other := names.setdefault(card.name, name)) != name:
            problems.append(f"{other!r} and {name!r} are one critic")
        if not card.needs_reference or card.channels != 3:
            problems.append(f"{name!r} does not measure fidelity: a budget needs a critic with a reference")
        if isinstance(allowed, Mapping):
            if allowed.keys() != {"worst"} or not _is_number(allowed["worst"]):
                problems.append(f"{name!r}: expected {{worst: the worst score that is allowed}}, got {dict(allowed)!r}")
        elif not _is_number(allowed):
            problems.append(f"{name!r}: expected the change that is allowed, or {{worst: score}}, got {allowed!r}")
        elif allowed * _towards_worse(card) <= 0:
            kind = "negative" if card.better == "higher" else "positive"
            problems.append(f"{name!r}: {card.better} is better, so what may be spent is {kind}, got {allowed!r}")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _towards_worse(card: Card) -> int:
    return -1 if card.better == "higher" else 1


class Budget:
    """Keeps the critics of a loss within a budget.

    Args:
        allowed: Full-reference critic to the change that is allowed against the start, in its units, signed,
            `{"psnr": -0.5}`, or to the worst score, whatever the start has, `{"psnr": {"worst": 28}}`.
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

    def __init__(self, allowed: Allowed, most: float = 1.0, room: float = 1.0) -> None:
        problems = budget_problems(allowed)
        if not problems and not allowed:
            problems = ["expected at least one critic, such as {psnr: -0.5}, got none"]
        problems += [
            f"{name} must be a number above 0, got {value!r}"
            for name, value in {"most": most, "room": room}.items()
            if not _is_number(value) or value <= 0
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

    @property
    def text(self) -> str:
        """What is allowed, in words."""
        return ", ".join(
            f"{name} no worse than {allowed['worst']:g}" if isinstance(allowed, Mapping) else f"{name} {allowed:+g}"
            for name, allowed in self.allowed.items()
        )

    @property
    def changes(self) -> dict[str, float]:
        """Critic to the change that is allowed against the start.

        Raises:
            InputError: if the start is no better than the worst that is allowed, or not known yet.
        """
        found = {}
        for name, allowed in self.allowed.items():
            if isinstance(allowed, Mapping):
                if name not in self.start:
                    raise InputError(f"what a budget of {self.text} leaves is not known before `note` has the start.")
                found[name] = allowed["worst"] - self.start[name]
                if found[name] * _towards_worse(get_card(name)) <= 0:
                    raise InputError(
                        f"a budget of {name} no worse than {allowed['worst']:g} leaves nothing to spend, as the start "
                        f"has {self.start[name]:.4g}. Allow more, or start from better weights."
                    )
            else:
                found[name] = allowed
        return found

    @property
    def near(self) -> float:
        """By what share it may be overspent and still counts as held: 0.1, and of decibels at most 0.05.

        Raises:
            InputError: as for `changes`.
        """
        decibels = [abs(change) for name, change in self.changes.items() if get_card(name).name == "psnr"]
        return min([_NEAR, *(_NEAR_DB / change for change in decibels)])

    def spent_of(self, scores: Mapping[str, float], start: Mapping[str, float] | None = None) -> float:
        """Share of the budget that scores have spent; below 0 they are better than the start, NaN if one is NaN.

        Args:
            scores: By critic.
            start: What changes are against; the scores of the start unless given. The worst scores stay what they are.
        """
        shares = []
        for name, change in self.changes.items():
            before = self.start if start is None or isinstance(self.allowed[name], Mapping) else start
            shares.append((scores[name] - before[name]) / change)
        return math.nan if any(map(math.isnan, shares)) else max(shares)

    def note(self, scores: Mapping[str, float]) -> None:
        """Follow a measurement, on the same images as that of the start, which is the first.

        Args:
            scores: Mean scores by critic; if they are not finite, nothing changes.

        Raises:
            InputError: if a score is missing, one of the start is not finite, or the start leaves nothing to spend.
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
            ConfigError: if it is something else, or of a budget of other critics.
        """
        if not isinstance(state, Mapping) or not {"start", "spent", "factor"} <= state.keys():
            raise ConfigError([f"expected start, spent and factor, got {state!r:.80}"], "the state of the budget")
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
