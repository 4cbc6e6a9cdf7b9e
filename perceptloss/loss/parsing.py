"""Reading the terms of a loss: one schema for Python, YAML and the command line, every problem at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard, get_args

from perceptloss.card import Card, Direction, Shape
from perceptloss.critic import Critic, Overshoot, Precision
from perceptloss.errors import ConfigError, UnknownCritic, near
from perceptloss.loss.domains import Domain, warn_outside
from perceptloss.loss.guards import warn_unguarded
from perceptloss.loss.joint.options import joint_problems, read_joint
from perceptloss.loss.terms import GradMode, Grey, OnNonFinite, TermOptions, Terms, TermSpec
from perceptloss.networks.tiles import side_for, smallest_tile
from perceptloss.registry import find_entry, get_card, option_problems

__all__ = ["parse_loss", "parse_terms"]

_KEYS = tuple(TermOptions.__annotations__)


def parse_terms(critics: Any, where: str = "critics", grey: Grey = "refuse") -> list[TermSpec]:
    """Validate the terms of a loss; there may be none.

    Args:
        critics: Anything; what is right is `Terms`.
        where: What to call the mapping in messages.
        grey: What happens to images of one channel where a term does not say.

    Raises:
        ConfigError: with every problem at once.
    """
    problems: list[str] = []
    specs: list[TermSpec] = []
    for place, raw in _rows(critics, where, problems):
        found: list[str] = []
        spec = _parse_term({"grey": grey, **raw}, found)
        problems += [f"{place}: {p}" for p in found]
        if spec is not None:
            specs.append(spec)
    for label, count in Counter(spec.label for spec in specs).items():
        if count > 1:
            problems.append(f"{where}: {count} terms are called {label!r}; give each its own 'name'")
    shares = [spec.share for spec in specs if spec.share is not None]
    if sum(shares) >= 1:
        rest = "they must leave something below 1 to the L1 loss"
        problems.append(f"{where}: the shares add up to {sum(shares):g}; {rest}")
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
    return rows


def _parse_term(raw: dict[str, Any], problems: list[str]) -> TermSpec | None:
    known = f"Known: {', '.join(_KEYS)}"
    problems += [f"unknown key {key!r}{near(key, _KEYS)} {known}" for key in raw if key not in _KEYS]
    critic = raw.get("critic")
    if isinstance(critic, Critic):
        card = critic.card
        if "weights" in raw:
            problems.append("'weights' goes with a critic's name, but this critic is built already")
        if "options" in raw:
            problems.append("'options' goes with a critic's name, but this critic is built already")
        if "better" in raw:
            problems.append("'better' goes with a critic's name; this critic is built already, call its turn()")
    elif isinstance(critic, str):
        try:
            card = get_card(critic)
        except UnknownCritic as error:
            problems.append(str(error))
            return None
        critic = card.name  # the registered one, if it was called otherwise
        if isinstance(raw.get("options"), Mapping):
            problems += option_problems(find_entry(critic), raw["options"])
    else:
        problems.append(f"'critic' must be a name or a Critic, got {critic!r}")
        return None
    given = {key: value for key, value in raw.items() if value is not None or key not in ("start", "ramp", "crop")}
    if given.get("monitor") is True:
        given.setdefault("weight", 0.0)
    problems += [f"{key!r} {wrong}" for key, wrong in _wrong(given, _TERM_RULES)]
    problems += _weight_problems(given)
    problems += joint_problems(given.get("joint"), card, given.get("monitor") is True or given.get("weight") == 0)
    if given.get("better") in get_args(Direction):
        try:
            card = replace(card, better=given["better"])
        except ValueError as error:
            problems.append(str(error))
    facts = {"name": card.name, "shape": card.shape, "precision": getattr(critic, "precision", "fp32"), **given}
    _check_against_card(card, facts, problems)
    if problems:
        return None
    facts.setdefault("weight", 1.0)  # of a share: what its schedule says, times what the share needs
    facts["monitor"] = bool(facts.get("monitor")) or facts["weight"] == 0
    facts["joint"] = read_joint(facts.get("joint"))
    label = facts.pop("name")
    return TermSpec(**{**facts, "critic": critic, "card": card, "label": label})


def _weight_problems(given: Mapping[str, Any]) -> list[str]:
    if "share" not in given:
        return [] if "weight" in given else ["'weight' is missing (or 'share', its part of the gradient)"]
    if given.get("monitor") is True:
        return ["a term that only watches has no 'share'"]
    return ["'weight' and 'share' exclude each other: the weight follows from the share"] if "weight" in given else []


def _check_against_card(card: Card, facts: Mapping[str, Any], problems: list[str]) -> None:
    shape, precision, crop = facts["shape"], facts["precision"], facts.get("crop")
    if shape not in get_args(Shape):
        problems.append(f"unknown shape {shape!r}{near(shape, get_args(Shape))} Known: {', '.join(get_args(Shape))}")
    elif shape == "distance" and card.better != "lower":
        problems.append(f"shape 'distance' minimises the score, but higher is better for {card.name!r}; use 'deficit'")
    elif shape == "deficit" and not all(map(math.isfinite, card.bounds)):
        problems.append(f"shape 'deficit' needs finite bounds, but {card.name!r} has {card.bounds}; use 'hinge'")
    if facts.get("grey") == "replicate" and card.channels != 3:
        problems.append(f"grey: replicate makes three channels, but {card.name!r} judges images of {card.channels}")
    if facts.get("tolerance") and shape != "hinge":
        problems.append(f"'tolerance' goes with shape 'hinge', got shape {shape!r}")
    if precision not in get_args(Precision):
        problems.append(f"unknown precision {precision!r}; known: {', '.join(get_args(Precision))}")
    elif precision != "fp32" and not card.low_precision:
        problems.append(f"critic {card.name!r} runs in fp32 only, got precision {precision!r}")
    if _is_whole(crop, 0) and (crop < card.min_size or crop % card.multiple_of):
        needs = f"at least {card.min_size} and a multiple of {card.multiple_of}"
        problems.append(f"crop {crop} does not suit {card.name!r}, which needs {needs}")


def _is_whole(value: Any, least: float = -math.inf) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_Rule = tuple[str, Callable[[Any], bool]]  # what a value must be, and whether it is
_COUNT: _Rule = ("a whole number of at least 0", partial(_is_whole, least=0))


def _one_of(kind: Any) -> _Rule:
    return f"one of {', '.join(get_args(kind))}", get_args(kind).__contains__


_TERM_RULES: dict[str, _Rule] = {
    "weight": ("a positive number, or 0 to only watch", lambda value: _is_number(value) and value >= 0),
    "share": ("a number above 0 and below 1", lambda value: _is_number(value) and 0 < value < 1),
    "monitor": ("true or false", lambda value: isinstance(value, bool)),
    "grey": _one_of(Grey),
    "name": ("a non-empty string", lambda value: isinstance(value, str) and value != ""),
    "tolerance": ("a non-negative number", lambda value: _is_number(value) and value >= 0),
    **dict.fromkeys(("start", "ramp", "crop"), _COUNT),
    "better": _one_of(Direction),
    "options": ("a mapping of arguments of the critic", lambda value: isinstance(value, Mapping)),
}
_OPTION_RULES: dict[str, _Rule] = {
    "grad": _one_of(GradMode),
    "overshoot": _one_of(Overshoot),
    "on_nonfinite": _one_of(OnNonFinite),
    "grey": _one_of(Grey),
    "micro_batch": (
        "a whole number of at least 1, None for all, or auto",
        lambda v: v in (None, "auto") or _is_whole(v, 1),
    ),
    "share_every": _COUNT,
    "shift": _COUNT,
    "tile": ("a number of pixels, or None for whole images", lambda v: v is None or _is_whole(v, 1)),
    "pixel_weight": ("a positive number", lambda v: _is_number(v) and v > 0),
    "seed": ("a whole number", _is_whole),
    "input_range": ("(0, 1) or (-1, 1)", lambda v: isinstance(v, Sequence) and tuple(v) in ((0, 1), (-1, 1))),
    **dict.fromkeys(("lean", "stereo"), ("true or false", lambda v: isinstance(v, bool))),
    "domain": _one_of(Domain),
}


def _wrong(values: Mapping[str, Any], rules: Mapping[str, _Rule]) -> Iterator[tuple[str, str]]:
    for key, (need, is_right) in rules.items():
        if key in values and not is_right(value := values[key]):
            is_turned = key == "weight" and _is_number(value) and value < 0
            hint = " (direction is on the card, a weight is never negative)" if is_turned else ""
            yield key, f"must be {need}, got {value!r}{hint}"


def _tile_problems(tile: int, grad: GradMode, specs: Sequence[TermSpec]) -> Iterator[str]:
    if grad != "fused":
        yield f"tile goes with grad='fused', which keeps no graph of the whole image, got {grad!r}"
    for spec in specs:
        card, least = spec.card, smallest_tile(spec.card)
        if spec.crop is None and card.tiling == "never":
            yield f"{spec.label}: {card.name!r} must see whole images; give it a 'crop', or leave out tile"
        elif spec.crop is None and side_for(card, tile) is not None and tile < least:
            yield f"{spec.label}: {card.name!r} needs tiles of at least {least}, got {tile}"


def parse_loss(critics: Terms, **options: Any) -> list[TermSpec]:
    """Validate everything that `CriticLoss` is given.

    Raises:
        ConfigError: with every problem at once.
    """
    problems = [f"{key} {wrong}" for key, wrong in _wrong(options, _OPTION_RULES)]
    if options["lean"] is True and options["grad"] == "checkpoint":
        problems.append("lean goes with grad='fused' or 'autograd', not with 'checkpoint', which keeps no activations")
    try:
        specs = parse_terms(critics, grey=options["grey"] if options["grey"] in get_args(Grey) else "refuse")
    except ConfigError as error:
        problems = [*error.problems, *problems]
    if not problems and options["share_every"] == 0 and any(spec.share is not None for spec in specs):
        problems.append("share_every: 0 measures no gradient, which terms with a share need")
    if not problems and options["tile"] is not None:
        problems += _tile_problems(options["tile"], options["grad"], specs)
    if problems:
        raise ConfigError(problems, "critic loss")
    warn_outside((spec.card for spec in specs), options.get("domain", "natural"))
    warn_unguarded(specs)
    return specs
