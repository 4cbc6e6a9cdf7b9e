"""Losses in the calling conventions of training frameworks that find losses in a registry.

Frameworks of the BasicSR family differ in who applies the weight and in what a slot returns: BasicSR's `pixel_opt` a
tensor and its `perceptual_opt` a pair, weighted by the loss; neosr a tensor in every slot, weighted by the loss;
traiNNer-redux a tensor, weighted by the host.

Register in a copy of the host's training script, before its pipeline is started::

    from traiNNer.utils.registry import LOSS_REGISTRY
    from perceptloss.integrations.hosts import register_losses

    register_losses(LOSS_REGISTRY, weighs="host")

Then `type: critic_lpips_vgg` (the critic's name, hyphens as underscores) names one critic, and
`type: CriticLoss` with `critics:` several.
"""

from __future__ import annotations

import copyreg
import inspect
import logging
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, near
from perceptloss.integrations.log import forward_log
from perceptloss.integrations.probe import probe
from perceptloss.loss.clips import frames
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.hidden import Hidden
from perceptloss.loss.parsing import parse_loss
from perceptloss.loss.terms import TermOptions
from perceptloss.registry import list_critics

__all__ = ["LOSS_OPTIONS", "HostLoss", "Registry", "add", "identifier", "loss_class", "register_losses"]

_log = logging.getLogger(__name__)

Weighs = Literal["loss", "host"]
Returns = Literal["tensor", "pair"]

_LOSS_DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(CriticLoss).parameters.items() if name != "critics"
}
LOSS_OPTIONS = tuple(_LOSS_DEFAULTS)
_TERM_OPTIONS = tuple(key for key in TermOptions.__annotations__ if key not in ("critic", "name", "weight"))
_INSTEAD = "or train with critics: under train: of BasicSR, with recipes/sr.py, or in a loop of your own"


class Registry(Protocol):
    """The part of a BasicSR-style registry that registration needs; mmengine's has `register_module` instead."""

    def register(self, obj: Any) -> Any:
        """Add a class or function under its `__name__`."""

    def get(self, name: str) -> Any:
        """What is registered under a name."""

    def __contains__(self, name: str) -> bool:
        """Whether a name is taken."""


class HostLoss(Hidden):
    """A `CriticLoss` as a host expects it; `loss_class` makes the classes to register.

    Args:
        critics: Terms, as for `CriticLoss`; not given if the class stands for one critic.
        loss_weight: Factor of the whole loss. Where the host weighs, it is only stored and may
            be negative, which such hosts give a meaning of their own.
        warmup_iter: Iterations in which traiNNer-redux, which reads it from the loss, lets the weight grow; only
            where the host weighs.
        options: Options of `CriticLoss`; for the class of one critic also its term's keys
            (shape, tolerance, start, ramp, crop, precision, weights). A `share` is one of an L1 loss of weight
            `pixel_weight` in another slot, times `loss_weight`. A host that only calls its losses lets no critic
            learn and measures no budget: `joint` and `budget` are refused.

    Attributes:
        step: Training step for schedules and crops. None: optimizer steps are counted, which starts anew
            when training is resumed, unless the host saves what `state` gives.

    Raises:
        ConfigError: with everything that is wrong.
    """

    critic: ClassVar[str | None] = None
    weighs: ClassVar[Weighs] = "loss"
    returns: ClassVar[Returns] = "tensor"

    def __init__(self, critics: Any = None, loss_weight: float = 1.0, *, warmup_iter: int = -1, **options: Any) -> None:
        super().__init__()
        self.loss_weight, self.warmup_iter = loss_weight, warmup_iter
        self.step: int | None = None
        self._is_proven = False
        terms, options, problems = self._read(critics, options)
        is_number = isinstance(loss_weight, (int, float)) and not isinstance(loss_weight, bool)
        sign = "" if self.weighs == "host" else "positive "
        if not (is_number and math.isfinite(loss_weight) and (loss_weight if sign else abs(loss_weight)) > 0):
            problems.append(f"loss_weight must be a {sign}number other than 0, got {loss_weight!r}")
        if not isinstance(warmup_iter, int):
            problems.append(f"warmup_iter must be a whole number, got {warmup_iter!r}")
        elif warmup_iter > 0 and self.weighs == "loss":
            problems.append(f"warmup_iter: the host does not weigh here: give the terms ramp: {warmup_iter}")
        problems += _unattended(terms, options)
        try:
            if problems:  # then the rest is only read: weights may be missing
                parse_loss(terms, **{**_LOSS_DEFAULTS, **options})
            else:
                self.criterion = CriticLoss(terms, **options)
        except ConfigError as error:
            problems = [*error.problems, *problems]
        if problems:
            raise ConfigError(problems, type(self).__name__)

    def _read(self, critics: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any], list[str]]:
        """Terms and options for `CriticLoss`, and what is wrong with the keys."""
        known = LOSS_OPTIONS if self.critic is None else (*_TERM_OPTIONS, *LOSS_OPTIONS)
        problems = [
            f"unknown key {key!r}{near(key, ('loss_weight', *known))} Known: loss_weight, {', '.join(known)}"
            for key in options
            if key not in known
        ]
        rest = {key: options[key] for key in options if key in LOSS_OPTIONS}
        if self.critic is None:
            return critics, rest, problems
        if critics is not None:
            problems.append(f"'critics' goes with type CriticLoss; {type(self).__name__} is {self.critic!r} alone")
        term = {key: options[key] for key in options if key in _TERM_OPTIONS}
        size = {} if "share" in term else {"weight": 1.0}
        return [{"critic": self.critic, **size, **term}], rest, problems

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, None]:
        """The loss of restored images.

        Args:
            x: Restored images, (N, 3, H, W), or clips, (N, T, 3, H, W), whose frames are judged
                one by one.
            y: Ground truth, same shape.

        Returns:
            A 0-d tensor, or a pair of it and None; weighted unless the host weighs.

        Raises:
            GradientError: on the first call, if a term sends no gradient.
        """
        if not self._is_proven and isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled():
            self.prove(x.device)
        loss = self.criterion(frames(x), None if y is None else frames(y), step=self.step)
        if self.weighs == "loss":
            loss = loss * self.loss_weight
        return (loss, None) if self.returns == "pair" else loss

    def prove(self, device: torch.device, side: int | None = None) -> None:
        """Check on synthetic images that each term sends a gradient; done by itself on the first call.

        Args:
            device: Where the critics are.
            side: Side of the images in pixels, the smallest legal one if left out.
        """
        self._is_proven = True
        self.criterion.check_gradient(*probe(self.criterion, device, side))
        timed = [term.label for term in self.criterion.terms if term.spec.start or term.spec.ramp]
        if timed and self.step is None:
            _log.warning(
                "the schedule of %s counts optimizer steps and starts anew when training is resumed: this host does "
                "not tell its losses the iteration",
                ", ".join(timed),
            )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs; see `CriticLoss.state`."""
        return self.criterion.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.criterion.load_state(state)

    def __reduce__(self) -> tuple[Any, ...]:
        """By what `loss_class` was given, because no module holds its classes under their names."""
        kind = type(self)
        if kind.__module__ != __name__:
            return copyreg.__newobj__, (kind,), vars(self)  # type: ignore[attr-defined]
        return _blank, (kind.__name__, kind.critic, kind.weighs, kind.returns), vars(self)


def _unattended(terms: Any, options: Mapping[str, Any]) -> list[str]:
    """What only a host serves that does more than call its losses."""
    rows = terms.items() if isinstance(terms, Mapping) else enumerate(terms) if isinstance(terms, list) else ()
    problems = [
        f"{row.get('critic', place)}: no critic learns in this host: leave 'joint' out and give weights, {_INSTEAD}"
        for place, row in rows
        if isinstance(row, Mapping) and row.get("joint") not in (None, False)
    ]
    if options.get("budget") is not None:
        problems.append(f"budget: this host never tells what is spent: give smaller weights or shares, {_INSTEAD}")
    return problems


def identifier(critic: str) -> str:
    """The name by which registries know the loss of one critic: `lpips-vgg` is `critic_lpips_vgg`."""
    return "critic_" + critic.replace("-", "_").replace(".", "_")


def loss_class(
    name: str = "CriticLoss", *, critic: str | None = None, weighs: Weighs = "loss", returns: Returns = "tensor"
) -> type[HostLoss]:
    """A loss class in a host's convention, the same one for the same arguments.

    Args:
        name: Its `__name__`, by which a registry files it.
        critic: The one critic it stands for; None for a class that takes `critics`.
        weighs: Who multiplies by `loss_weight`.
        returns: What the host's slot unpacks.
    """
    return _made(name, critic, weighs, returns)


@cache
def _made(name: str, critic: str | None, weighs: Weighs, returns: Returns) -> type[HostLoss]:
    what = f"The critic {critic!r}" if critic else "Weighted critics"
    facts = {"__doc__": f"{what} as a loss; see HostLoss.", "__module__": __name__}
    return type(name, (HostLoss,), {**facts, "critic": critic, "weighs": weighs, "returns": returns})


def _blank(name: str, critic: str | None, weighs: Weighs, returns: Returns) -> HostLoss:
    kind = _made(name, critic, weighs, returns)
    return kind.__new__(kind)


def add(registry: Registry, objects: Mapping[str, Any]) -> tuple[str, ...]:
    """Register objects, passing over those that are there already.

    Raises:
        ConfigError: if a name belongs to somebody else or another convention; nothing is registered then.
    """
    taken = {name: registry.get(name) for name in objects if name in registry}
    problems = [
        f"{name!r} is taken by {owner.__module__}"
        if not owner.__module__.startswith("perceptloss.")
        else f"{name!r} is registered already, weighed by the {owner.weighs}"
        for name, owner in taken.items()
        if owner is not objects[name]
    ]
    if problems:
        raise ConfigError(problems, "the host's registry")
    register_module = getattr(registry, "register_module", None)  # of mmengine
    for name, item in objects.items():
        if name not in taken:
            registry.register(item) if register_module is None else register_module(name=name, module=item)
    forward_log(type(registry).__module__.partition(".")[0])
    return tuple(objects)


def register_losses(registry: Registry, *, weighs: Weighs = "loss", pairs: bool = False) -> tuple[str, ...]:
    """Register `CriticLoss` and one loss for each critic; may be repeated, for critics added later.

    Args:
        registry: The host's registry of losses.
        weighs: Who multiplies by `loss_weight`.
        pairs: Whether to register `CriticPerceptualLoss`, too, for a slot that unpacks a pair.

    Returns:
        The names.
    """
    classes = {"CriticLoss": loss_class(weighs=weighs)}
    if pairs:
        classes["CriticPerceptualLoss"] = loss_class("CriticPerceptualLoss", weighs=weighs, returns="pair")
    for card in list_critics():
        name = identifier(card.name)
        classes[name] = loss_class(name, critic=card.name, weighs=weighs)
    return add(registry, classes)
