"""The terms of a loss: one schema and one validator for Python, YAML and the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, Direction, Shape
from perceptloss.critic import Critic, Overshoot, Precision
from perceptloss.errors import ConfigError, UnknownCritic, near
from perceptloss.registry import DEFAULT, create_critic, get_card, set_precision

__all__ = ["GradMode", "OnNonFinite", "Term", "TermSpec", "build_terms", "option_problems", "parse_terms", "shaped"]

GradMode = Literal["autograd", "checkpoint", "fused"]
OnNonFinite = Literal["skip", "raise"]

_KEYS = ("critic", "weight", "name", "shape", "tolerance", "start", "ramp", "crop", "precision", "weights", "better")


@dataclass(frozen=True, kw_only=True)
class TermSpec:
    """One validated term, before its critic is built.

    Attributes:
        critic: Registered name, or a critic that exists already.
        weight: Positive factor of the term's loss.
        label: Unique name under which it is reported.
        shape: How the score becomes a loss; the card's default unless given.
        tolerance: Score difference that `hinge` forgives.
        start: First step at which the term counts.
        ramp: Steps over which its weight grows linearly to full.
        crop: Side of the random square it looks at, None for the whole image.
        precision: Of the critic's trunk.
        weights: As for `create_critic`.
        better: As for `create_critic`.
    """

    critic: str | Critic
    weight: float
    label: str
    card: Card
    shape: Shape
    tolerance: float = 0.0
    start: int = 0
    ramp: int = 0
    crop: int | None = None
    precision: Precision = "fp32"
    weights: Any = DEFAULT
    better: Direction | None = None


@dataclass(frozen=True)
class Term:
    """A term with its critic built."""

    spec: TermSpec
    critic: Critic

    @property
    def label(self) -> str:
        """Unique name under which the term is reported."""
        return self.spec.label

    def weight_at(self, step: int) -> float:
        """Weight at a training step: 0 before `start`, then linear over `ramp` steps, then full."""
        spec = self.spec
        if step < spec.start:
            return 0.0
        return spec.weight * min(1.0, (step - spec.start + 1) / spec.ramp) if spec.ramp else spec.weight

    @property
    def is_relative(self) -> bool:
        """Whether its loss compares the score with that of the reference."""
        return self.spec.shape in ("hinge", "softplus")


def shaped(spec: TermSpec, score: Tensor, anchor: Tensor | float) -> Tensor:
    """Turn scores (N,) into losses (N,), lower is better, without reducing.

    Args:
        spec: The term.
        score: Natural scores.
        anchor: Score of the references, for the relative shapes.
    """
    card = spec.card
    low, high = card.bounds
    sign = 1.0 if card.better == "higher" else -1.0
    if spec.shape == "distance":
        return score
    if spec.shape == "deficit":
        return (high - score if sign > 0 else score - low) / (high - low)
    if spec.shape == "sigmoid":
        return (-sign * score).sigmoid()
    deficit = sign * (anchor - score)
    return F.softplus(deficit) if spec.shape == "softplus" else F.relu(deficit - spec.tolerance)


def parse_terms(critics: Any, where: str = "critics") -> list[TermSpec]:
    """Validate the terms of a loss.

    Args:
        critics: `{name: weight}`, `{name: {term keys}}`, or a list of mappings that hold `critic`.
        where: What to call the mapping in messages.

    Raises:
        ConfigError: with every problem at once.
    """
    problems: list[str] = []
    specs: list[TermSpec] = []
    for place, raw in _rows(critics, where, problems):
        found: list[str] = []
        spec = _parse_term(raw, found)
        problems += [f"{place}: {p}" for p in found]
        if spec is not None:
            specs.append(spec)
    labels = [spec.label for spec in specs]
    for label in sorted({name for name in labels if labels.count(name) > 1}):
        problems.append(f"{where}: {labels.count(label)} terms are called {label!r}; give each its own 'name'")
    for critic in {id(spec.critic): spec.critic for spec in specs if isinstance(spec.critic, Critic)}.values():
        precisions = sorted({spec.precision for spec in specs if spec.critic is critic})
        if len(precisions) > 1:
            problems.append(f"{where}: {critic.card.name!r} is one critic object in several precisions: {precisions}")
    if problems:
        raise ConfigError(problems, where)
    return specs


def _rows(critics: Any, where: str, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = []
    if isinstance(critics, Mapping):
        for name, value in critics.items():
            fields = dict(value) if isinstance(value, Mapping) else {"weight": value}
            if fields.setdefault("critic", name) != name:
                fields.setdefault("name", name)
            rows.append((f"{where}.{name}", fields))
    elif isinstance(critics, Sequence) and not isinstance(critics, str):
        for i, value in enumerate(critics):
            if isinstance(value, Mapping):
                rows.append((f"{where}[{i}]", dict(value)))
            else:
                problems.append(f"{where}[{i}]: expected a mapping like {{critic: ssim, weight: 1.0}}, got {value!r}")
    else:
        problems.append(f"{where}: expected a mapping or a list of terms, got {type(critics).__name__}")
    if not rows and not problems:
        problems.append(f"{where}: no term given")
    return rows


def _parse_term(raw: dict[str, Any], problems: list[str]) -> TermSpec | None:
    for key in raw:
        if key not in _KEYS:
            problems.append(f"unknown key {key!r}{near(key, _KEYS)} Known: {', '.join(_KEYS)}")
    critic = raw.get("critic")
    if isinstance(critic, Critic):
        card = critic.card
    elif isinstance(critic, str):
        try:
            card = get_card(critic)
        except UnknownCritic as error:
            problems.append(str(error))
            return None
    else:
        problems.append(f"'critic' must be a name or a Critic, got {critic!r}")
        return None
    label = raw.get("name", card.name)
    if not isinstance(label, str) or not label:
        problems.append(f"'name' must be a non-empty string, got {label!r}")
    values: dict[str, Any] = {
        "weight": _number(raw, "weight", problems, required=True, positive=True),
        "tolerance": _number(raw, "tolerance", problems) or 0.0,
        "start": _count(raw, "start", problems) or 0,
        "ramp": _count(raw, "ramp", problems) or 0,
        "crop": _count(raw, "crop", problems),
    }
    if "better" in raw:
        card = _turned(card, raw["better"], problems)
    shape, precision = raw.get("shape", card.shape), raw.get("precision", getattr(critic, "precision", "fp32"))
    _check_against_card(card, shape, precision, values, problems)
    if isinstance(critic, Critic) and "weights" in raw:
        problems.append("'weights' goes with a critic's name, but this critic is built already")
    if isinstance(critic, Critic) and "better" in raw:
        problems.append("'better' goes with a critic's name; this critic is built already, call its turn()")
    if problems:
        return None
    values |= {"weights": raw.get("weights", DEFAULT), "better": raw.get("better")}
    return TermSpec(critic=critic, label=label, card=card, shape=shape, precision=precision, **values)


def _turned(card: Card, better: Any, problems: list[str]) -> Card:
    if better not in get_args(Direction):
        problems.append(f"'better' must be 'higher' or 'lower', got {better!r}")
        return card
    try:
        return replace(card, better=better)
    except ValueError as error:
        problems.append(str(error))
        return card


def _check_against_card(card: Card, shape: Any, precision: Any, values: dict[str, Any], problems: list[str]) -> None:
    if shape not in get_args(Shape):
        problems.append(f"unknown shape {shape!r}{near(shape, get_args(Shape))} Known: {', '.join(get_args(Shape))}")
    elif shape == "distance" and card.better != "lower":
        problems.append(f"shape 'distance' minimises the score, but higher is better for {card.name!r}; use 'deficit'")
    elif shape == "deficit" and not all(map(math.isfinite, card.bounds)):
        problems.append(f"shape 'deficit' needs finite bounds, but {card.name!r} has {card.bounds}; use 'hinge'")
    if values["tolerance"] and shape != "hinge":
        problems.append(f"'tolerance' goes with shape 'hinge', got shape {shape!r}")
    if precision not in get_args(Precision):
        problems.append(f"unknown precision {precision!r}; known: {', '.join(get_args(Precision))}")
    elif precision != "fp32" and not card.low_precision:
        problems.append(f"critic {card.name!r} runs in fp32 only, got precision {precision!r}")
    crop = values["crop"]
    if crop is not None and (crop < card.min_size or crop % card.multiple_of):
        needs = f"at least {card.min_size} and a multiple of {card.multiple_of}"
        problems.append(f"crop {crop} does not suit {card.name!r}, which needs {needs}")


def _number(
    raw: dict[str, Any], key: str, problems: list[str], *, required: bool = False, positive: bool = False
) -> float | None:
    if key not in raw:
        if required:
            problems.append(f"'{key}' is missing")
        return None
    value = raw[key]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (positive and value == 0):
        hint = " (direction is on the card, a weight is never negative)" if is_number and value < 0 else ""
        problems.append(f"'{key}' must be a {'positive ' if positive else 'non-negative '}number, got {value!r}{hint}")
        return None
    return float(value)


def _count(raw: dict[str, Any], key: str, problems: list[str]) -> int | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        problems.append(f"'{key}' must be a whole number of at least 0, got {value!r}")
        return None
    return value


def build_terms(specs: Sequence[TermSpec]) -> list[Term]:
    """Build the critics; those that name the same trunk with the same weights share one."""
    terms: list[Term] = []
    for spec in specs:
        if isinstance(spec.critic, Critic):
            critic = spec.critic
            set_precision(critic, spec.precision)
        else:
            critic = create_critic(spec.critic, spec.weights, precision=spec.precision, better=spec.better)
            spec = replace(spec, card=critic.card)  # its weight file may say another direction
            if spec.shape == "distance" and critic.card.better == "higher":
                problem = (
                    f"{spec.label}: shape 'distance' minimises the score, but its weights say that higher is better"
                )
                raise ConfigError([problem], "critics")
        terms.append(Term(spec, critic))
    return terms


def option_problems(**options: Any) -> list[str]:
    """Everything wrong with the options of `CriticLoss` other than its terms."""
    problems = []
    for key, kind in (("grad", GradMode), ("overshoot", Overshoot), ("on_nonfinite", OnNonFinite)):
        if options[key] not in get_args(kind):
            problems.append(f"{key} must be one of {', '.join(get_args(kind))}, got {options[key]!r}")
    micro, share, seed = options["micro_batch"], options["share_every"], options["seed"]
    if micro is not None and (not isinstance(micro, int) or isinstance(micro, bool) or micro < 1):
        problems.append(f"micro_batch must be a whole number of at least 1, or None for the whole batch, got {micro!r}")
    if not isinstance(share, int) or isinstance(share, bool) or share < 0:
        problems.append(f"share_every must be a whole number of at least 0, got {share!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        problems.append(f"seed must be a whole number, got {seed!r}")
    span = options["input_range"]
    if not isinstance(span, Sequence) or isinstance(span, str) or tuple(span) not in ((0, 1), (-1, 1)):
        problems.append(f"input_range must be (0, 1) or (-1, 1), got {span!r}")
    if not isinstance(options["lean"], bool):
        problems.append(f"lean must be true or false, got {options['lean']!r}")
    elif options["lean"] and options["grad"] == "checkpoint":
        problems.append("lean goes with grad='fused' or 'autograd', not with 'checkpoint', which keeps no activations")
    return problems
