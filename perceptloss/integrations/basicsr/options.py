"""The `critics:` part of a BasicSR config: reading and checking it, all problems at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from perceptloss.errors import ConfigError, PerceptlossError, near
from perceptloss.integrations.basicsr.alarm_options import find_alarms
from perceptloss.integrations.basicsr.alarms import Alarms
from perceptloss.integrations.basicsr.anchors import Labelled, find_anchors
from perceptloss.integrations.basicsr.budget import Spending, find_spending
from perceptloss.integrations.hosts import LOSS_OPTIONS, identifier
from perceptloss.loss.budget import budget_problems
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.joint.options import JointOptions
from perceptloss.registry import list_critics

__all__ = ["Plan", "grey_output", "patch_size", "read_plan"]

_BLOCKS = ("critics", "critic_opt")
_L1 = ("L1Loss", "CharbonnierLoss")  # whose gradient is a sign almost everywhere
_EXTRAS = ("score", "share")
_NUMBERS = ("weight", "share", "tolerance", *JointOptions.__annotations__)
_GENERATOR = ("pix", "percep", "style", "gan", "ldl", "feat", "path")
_RESERVED = {"pix", "percep", "style", "d_real", "d_fake", *(f"g_{part}" for part in _GENERATOR)}  # l_<name> of BasicSR


@dataclass(frozen=True)
class Plan:
    """What a config asks for.

    Attributes:
        loss: The critics.
        extras: What is logged beside the weighted losses: `score`, `share`.
        relative: What shares are relative to, as a sentence; None where no term has one.
        spending: How the budget is followed; None without one.
        artefacts: Weight of LDL's loss of artefacts beside the pixel loss.
        temporal: Weight of the flicker of clips.
        anchors: Labelled images that joint critics also learn from.
        alarms: What watches the validations; None where nothing does.
    """

    loss: CriticLoss
    extras: tuple[str, ...] = ()
    relative: str | None = None
    spending: Spending | None = None
    artefacts: float = 0.0
    temporal: float = 0.0
    anchors: Labelled | None = None
    alarms: Alarms | None = None


def read_plan(opt: Mapping[str, Any]) -> Plan | None:
    """Build the critics that `train.critics` names; None if the config has none.

    Args:
        opt: BasicSR's options.

    Raises:
        ConfigError: with every problem, among them keys that BasicSR would ignore in silence.
    """
    train = opt.get("train") or {}
    problems = [
        f"{key!r} stands at the top level, where BasicSR ignores it; {meant!r} belongs under train:"
        for key, meant in _like_ours(opt)
    ]
    problems += [
        f"train.{key} would be ignored by BasicSR; did you mean {meant!r}?"
        for key, meant in _like_ours(train)
        if key not in _BLOCKS
    ]
    problems += _hyphens(train)
    critics, options = train.get("critics"), dict(train.get("critic_opt") or {})
    if "critics" not in train and "critic_opt" in train:
        problems.append("train.critic_opt is given without train.critics")
    if "critics" not in train and (opt.get("val") or {}).get("alarms"):
        problems.append("val.alarms watches critics that are trained on, but there is no train.critics")
    if critics is None or critics in ([], {}):
        if problems:
            raise ConfigError(problems, "the BasicSR config")
        return None
    known = (*LOSS_OPTIONS, "anchors", "artefacts", "temporal", "log")
    problems += [
        f"train.critic_opt: unknown key {key!r}{near(key, known)} Known: {', '.join(known)}"
        for key in options
        if key not in known
    ]
    extras, labelled = _extras(options.pop("log", ()), problems), options.pop("anchors", None)
    artefacts, temporal = (_weight(key, options.pop(key, 0.0), problems) for key in ("artefacts", "temporal"))
    if artefacts and not train.get("ema_decay"):
        problems.append("train.critic_opt.artefacts compares with the averaged weights: set train.ema_decay, as 0.999")
    problems += _numbers_as_text(critics)
    if "share" in extras and options.get("share_every") == 0:
        problems.append("train.critic_opt: log: [share] never comes with share_every: 0, which measures none")
    pixel_weight, relative = _l1_beside(train.get("pixel_opt") or {}, options.get("pixel_weight"))
    options["pixel_weight"] = pixel_weight
    problems += _without_budget(options)
    loss = _build(critics, {key: value for key, value in options.items() if key in known}, problems)
    spending = anchors = None
    if loss is not None:
        anchors = find_anchors(labelled, loss, opt, problems) if labelled else None
        problems += _unusable(loss, opt)
        spending = find_spending(opt, loss, problems)
        is_watched_only = all(term.spec.monitor for term in loss.terms)
        if is_watched_only and not any(train.get(slot) for slot in ("pixel_opt", "perceptual_opt", "gan_opt")):
            problems.append("train.critics only watch, and there is no other loss, so nothing would be trained")
    alarms = find_alarms(opt, loss, anchors, problems)
    if problems or loss is None:
        raise ConfigError(problems, "the BasicSR config")
    has_shares = any(term.spec.share is not None for term in loss.terms)
    return Plan(loss, extras, relative if has_shares else None, spending, artefacts, temporal, anchors, alarms)


def _weight(key: str, weight: Any, problems: list[str]) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        problems.append(f"train.critic_opt.{key} must be a number of at least 0, got {weight!r}")
        return 0.0
    return float(weight)


def _l1_beside(pixel: Mapping[str, Any], given: Any) -> tuple[Any, str]:
    """Weight of the L1 loss that shares are relative to, and a sentence that says so.

    Args:
        pixel: `train.pixel_opt`; empty if there is none.
        given: `critic_opt.pixel_weight`, None if the config leaves it to `train.pixel_opt`.
    """
    if given is not None:
        return given, f"an L1 loss of weight {given}, as pixel_weight says"
    kind, weight, reduction = pixel.get("type"), pixel.get("loss_weight", 1.0), pixel.get("reduction", "mean")
    is_positive = isinstance(weight, (int, float)) and math.isfinite(weight) and weight > 0
    if kind in _L1 and reduction == "mean" and is_positive:
        return weight, f"train.pixel_opt, an L1 loss of weight {weight:g}"
    found = f"is {kind} of weight {weight}, reduction {reduction}" if pixel else "is missing"
    return 1.0, f"an L1 loss of weight 1, though train.pixel_opt {found}: set pixel_weight in critic_opt to change that"


def _without_budget(options: dict[str, Any]) -> list[str]:
    """What is wrong with the budget, which is then taken out."""
    budget, most = options.get("budget"), options.get("budget_most", 1.0)
    found = [] if budget is None else [f"train.critic_opt.budget: {problem}" for problem in budget_problems(budget)]
    if isinstance(most, bool) or not isinstance(most, (int, float)) or not most > 0:
        found.append(f"train.critic_opt.budget_most must be a number above 0, got {most!r}")
    if found:
        options.update(budget=None, budget_most=1.0)
    return found


def _build(critics: Any, options: dict[str, Any], problems: list[str]) -> CriticLoss | None:
    try:
        return CriticLoss(critics, **options)
    except ConfigError as error:
        problems += [f"train.{problem}" if problem.startswith("critics") else problem for problem in error.problems]
    except PerceptlossError:
        if not problems:  # else what is wrong with the config comes first
            raise
    return None


def _like_ours(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys that look like one of ours, each with the one that is meant."""
    for key in options:
        lower = str(key).lower()
        if lower.startswith("critic") or difflib.get_close_matches(lower, _BLOCKS, cutoff=0.75):
            yield key, "critic_opt" if "opt" in lower else "critics"


def _hyphens(train: Mapping[str, Any]) -> Iterator[str]:
    """Loss types written like critics; registries know them by identifiers."""
    names = "CriticLoss", "CriticPerceptualLoss", *(identifier(card.name) for card in list_critics())
    spelt = {name.lower(): name for name in names}
    for key, block in train.items():
        kind = block.get("type") if isinstance(block, Mapping) else None
        meant = spelt.get(kind.lower().replace("-", "_").replace(".", "_")) if isinstance(kind, str) else None
        if meant not in (None, kind):
            yield f"train.{key}: type {kind!r} is written {meant!r} here"


def _numbers_as_text(critics: Any) -> Iterator[str]:
    rows = critics.values() if isinstance(critics, Mapping) else critics if isinstance(critics, list) else ()
    for row in rows:
        entries = row if isinstance(row, Mapping) else {"weight": row}
        joint = entries.get("joint")
        for key, value in (*entries.items(), *(joint.items() if isinstance(joint, Mapping) else ())):
            if key in _NUMBERS and isinstance(value, str):
                with suppress(ValueError):
                    float(value)
                    yield f"YAML reads {value} as text: write {key}: !!float {value}"


def _extras(value: Any, problems: list[str]) -> tuple[str, ...]:
    asked = [value] if isinstance(value, str) else list(value or ())
    for name in asked:
        if name not in _EXTRAS:
            problems.append(
                f"train.critic_opt.log: unknown entry {name!r}{near(name, _EXTRAS)} Known: {', '.join(_EXTRAS)}"
            )
    return tuple(name for name in _EXTRAS if name in asked)


def patch_size(opt: Mapping[str, Any]) -> int | None:
    """Side of the ground-truth patches of a training run, None if the config does not say."""
    size = opt.get("gt_size") or ((opt.get("datasets") or {}).get("train") or {}).get("gt_size")
    return size if isinstance(size, int) else None


_OUTPUTS = (
    *("num_out_ch", "num_out", "out_ch", "out_nc", "output_nc", "out_chans", "out_channel", "out_channels"),
    *("output_channels", "colors", "n_colors"),
)
_INPUTS = (
    *("num_in_ch", "in_ch", "in_nc", "input_nc", "in_chans", "in_channel", "in_channels", "input_channels"),
    *("inp_channels", "img_channel", "img_channels", "image_channels", "num_channels", "n_channels"),
    *("channels", "color_channels", "num_ch", "nc"),  # features in other networks, but never one
)
_LUMA = ("y", "gray", "grey", "grayscale")


def grey_output(opt: Mapping[str, Any]) -> str | None:
    """What in the config says that the network gives images of one channel; None if nothing does."""
    network = opt.get("network_g") or {}
    outputs = [key for key in _OUTPUTS if key in network]
    for key in outputs or _INPUTS:
        if network.get(key) == 1:
            return f"network_g gives one channel ({key}: 1)"
    if outputs:
        return None
    for phase, dataset in (opt.get("datasets") or {}).items():
        if (colour := dataset.get("color")) in _LUMA:
            return f"datasets.{phase} gives luma alone (color: {colour})"
    return None


def _unusable(loss: CriticLoss, opt: Mapping[str, Any]) -> Iterator[str]:
    """Terms that could not run, or not be logged, found now and not at the step where they start."""
    size, grey = patch_size(opt), grey_output(opt)
    stereo = bool((opt["train"].get("critic_opt") or {}).get("stereo"))
    seen = None if size is None else size - loss.shift
    cut = f" and shift {loss.shift}" if loss.shift else ""
    for term in loss.terms:
        card = term.critic.card
        if term.label in _RESERVED:
            yield f"term {term.label!r}: BasicSR logs a loss of its own as l_{term.label}; give the term another 'name'"
        if card.channels != 3 and not stereo:
            yield (
                f"term {term.label!r}: critic {card.name!r} judges stereo pairs, BasicSR's models give single images: "
                "say stereo: true in critic_opt if network_g gives pairs of six channels, left RGB and right RGB"
            )
        elif grey and term.spec.grey != "replicate":
            yield f"term {term.label!r}: {grey}, but critics judge colour images: say grey: replicate in critic_opt"
        if seen is None:
            continue
        side = seen if term.spec.crop is None else min(seen, term.spec.crop)
        if side < card.min_size or side % card.multiple_of:
            multiple = f", a multiple of {card.multiple_of}" if card.multiple_of > 1 else ""
            yield (
                f"term {term.label!r}: critic {card.name!r} needs sides of at least {card.min_size}{multiple}, "
                f"but it would see {side}x{side} (gt_size {size}{cut})"
            )
