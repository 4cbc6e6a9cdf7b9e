"""Loss classes under the names of two hosts, for a registry like BasicSR's."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.inputs import described
from perceptloss.integrations.dropin.absent import Dialect
from perceptloss.integrations.dropin.drop_in import DropIn
from perceptloss.integrations.dropin.meanings import known_names, meaning_of
from perceptloss.integrations.hosts import LOSS_OPTIONS, HostLoss, Registry, Weighs, add
from perceptloss.loss.clips import frames
from perceptloss.networks.artefacts import artefact_map
from perceptloss.networks.criteria import Criterion, apart

__all__ = ["DropInLoss", "drop_in_loss", "register_drop_ins"]

_WEIGHED: dict[Dialect, Weighs] = {"trainner": "host", "neosr": "loss"}


class DropInLoss(HostLoss):
    """A host's loss by its name and options, with a critic of ours behind it.

    Args:
        loss_weight: As the host has it; 0 switches the loss off, and its critic is not built.
        warmup_iter: Of traiNNer-redux: iterations in which the weight grows from nothing.
        options: Those of the host's loss, `weights` of the critic's term, and those of `CriticLoss`.

    Raises:
        ConfigError: with every option that the host's loss has not, or that cannot mean the same here.
    """

    dialect: ClassVar[Dialect]
    meaning: ClassVar[DropIn]

    def __init__(self, loss_weight: float = 1.0, **options: Any) -> None:
        warmup = options.pop("warmup_iter", -1) if self.dialect == "trainner" else -1
        ours = {key: options.pop(key) for key in LOSS_OPTIONS if key in options}
        files = {key: options.pop(key) for key in ("weights",) if key in options}
        terms: list[dict[str, Any]] = [{**files, **term} for term in self.meaning.terms(type(self).__name__, options)]
        self.is_off = loss_weight == 0
        self.criterion_name: Criterion = terms[0]["options"].get("criterion", "l1")
        if self.is_off:
            self._switch_off()
            return
        if self.weighs == "loss" and isinstance(warmup, int) and warmup > 0:
            terms, warmup = [{**term, "ramp": warmup} for term in terms], -1
        super().__init__(terms, loss_weight, warmup_iter=warmup, **ours)

    def _switch_off(self) -> None:
        torch.nn.Module.__init__(self)
        self.is_off, self.loss_weight, self.warmup_iter, self.step = True, 0.0, -1, None

    def forward(self, x: Tensor, *references: Tensor | None) -> Tensor | tuple[Tensor, None]:
        """The loss of restored images.

        Args:
            x: Restored images, (N, 3, H, W), or clips, (N, T, 3, H, W).
            references: The ground truth, same shape; before it what the averaged weights restore, for a loss that
                asks for it.
        """
        if self.is_off:
            return 0 * x.sum()
        if len(references) == 2 and self.meaning.sees_average:
            return self._beside_average(frames(x), frames(references[0]), frames(references[1]))  # type: ignore[arg-type]
        if len(references) > 1:
            raise ConfigError(
                [f"takes restored images and the ground truth, got {len(references)} more"], "drop-in losses"
            )
        return super().forward(x, *references)

    def _beside_average(self, x: Tensor, steady: Tensor, y: Tensor) -> Tensor:
        is_fit = all(isinstance(image, Tensor) and image.ndim == 4 for image in (x, steady, y))
        if not is_fit or not x.shape == steady.shape == y.shape or min(x.shape[-2:]) < 4 or not x.is_floating_point():
            raise InputError(
                f"{type(self).__name__} needs restored images, those of the averaged weights and the ground truth, all "
                f"(N, 3, H, W) with sides of at least 4, got {', '.join(map(described, (x, steady, y)))}."
            )
        with torch.autocast(x.device.type, enabled=False):
            x, steady, y = x.float(), steady.detach().float(), y.detach().float()
            weights = artefact_map(x, y, steady)
            loss = apart(weights * x, weights * y, self.criterion_name).mean()
        return loss * self.loss_weight if self.weighs == "loss" else loss

    def __reduce__(self) -> tuple[Any, ...]:
        """By what `drop_in_class` was given, because no module holds its classes under their names."""
        kind = type(self)
        return _blank, (kind.__name__, kind.dialect, kind.weighs), vars(self)


@cache
def _drop_in_class(name: str, dialect: Dialect, weighs: Weighs) -> type[DropInLoss]:
    meaning = meaning_of(name, dialect)
    doc = f"{name} of {dialect} by a critic of ours; see DropInLoss."
    facts = {"__doc__": doc, "__module__": __name__, "dialect": dialect, "meaning": meaning, "weighs": weighs}
    return type(name, (DropInLoss,), facts)


def _blank(name: str, dialect: Dialect, weighs: Weighs) -> DropInLoss:
    kind = _drop_in_class(name, dialect, weighs)
    return kind.__new__(kind)


def drop_in_loss(
    name: str, dialect: Dialect, *, loss_weight: float = 1.0, weighs: Weighs | None = None, **options: Any
) -> DropInLoss:
    """A host's loss by its name and options.

    Args:
        name: As the host's configurations have it: `hsluvloss`, `mssim_loss`, ...
        dialect: Whose name it is, `trainner` (traiNNer-redux) or `neosr`.
        loss_weight: As the host has it.
        weighs: Who multiplies by `loss_weight`; as in the host if left out.
        options: Of the host's loss, and of `CriticLoss`.

    Raises:
        ConfigError: if there is nothing that means the same, or an option cannot.
    """
    return _drop_in_class(name, dialect, weighs or _WEIGHED[dialect])(loss_weight=loss_weight, **options)


def register_drop_ins(
    registry: Registry, dialect: Dialect, *, weighs: Weighs | None = None, override: bool = False
) -> tuple[str, ...]:
    """Register the losses of a host under its names.

    Args:
        registry: Of losses: BasicSR's, mmengine's, or the host's own.
        dialect: Whose names, `trainner` (traiNNer-redux) or `neosr`.
        weighs: Who multiplies by `loss_weight` where they are used; as in the host if left out. BasicSR: `loss`.
        override: Whether ours stand in for those that the registry has already under the same names, as the host's own
            registry does; else these are left alone.

    Returns:
        The names of ours.

    Raises:
        ConfigError: if the host is unknown, or a name cannot be taken over.
    """
    names = known_names(dialect)
    classes = {name: _drop_in_class(name, dialect, weighs or _WEIGHED[dialect]) for name in names}
    taken = {name for name in classes if name in registry and registry.get(name) is not classes[name]}
    if override and taken:
        held = getattr(registry, "_obj_map", registry)
        if not hasattr(held, "pop"):
            raise ConfigError([f"{type(registry).__name__} does not let go of {min(taken)!r}"], "the host's registry")
        for name in taken:
            held.pop(name)
    return add(registry, {name: kind for name, kind in classes.items() if override or name not in taken})
