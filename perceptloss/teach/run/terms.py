"""Weighted objectives: from the configuration to one loss of a step, over the batches of all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss import Card
from perceptloss.errors import ConfigError, PerceptlossError, near
from perceptloss.teach.objectives.balance import UncertaintyWeights
from perceptloss.teach.objectives.gather import gather_list
from perceptloss.teach.run.judged import Judged, Look, Objective
from perceptloss.teach.run.objectives import OBJECTIVES
from perceptloss.teach.run.sources import Batch, Source, SourceOptions

__all__ = ["Spec", "Terms", "ask_references", "looks_of", "parse_objectives"]


@dataclass(frozen=True)
class Spec:
    """One weighted objective."""

    label: str
    name: str
    weight: float
    options: Mapping[str, Any]

    @property
    def objective(self) -> Objective:
        """What it computes."""
        return OBJECTIVES[self.name]


def parse_objectives(content: Mapping[str, Any], where: str) -> list[Spec]:
    """Read `{name: weight}` and `{label: {objective: name, weight: w, option: value}}`.

    Raises:
        ConfigError: listing unknown names and options and weights that are none.
    """
    problems: list[str] = []
    specs: list[Spec] = []
    for label, given in content.items():
        options = dict(given) if isinstance(given, Mapping) else {"weight": given}
        name, weight = options.pop("objective", label), options.pop("weight", 1.0)
        if name not in OBJECTIVES:
            problems.append(f"{where}.{label}: no objective is called {name!r}{near(str(name), OBJECTIVES)}")
            continue
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
            problems.append(f"{where}.{label}: expected a weight of at least 0, got {weight!r}")
        known = OBJECTIVES[name].options
        problems += [
            f"{where}.{label}: {name} has no option {o!r}{near(str(o), known)}; it has {', '.join(known) or 'none'}"
            for o in options
            if o not in known
        ]
        specs.append(Spec(str(label), str(name), weight, options))
    if problems:
        raise ConfigError(problems, where)
    return specs


def looks_of(default: Mapping[str, Any], sources: Sequence[SourceOptions]) -> list[dict[str, Callable[..., Any]]]:
    """For each source, what its objectives ask of the critic besides the score, by their labels."""

    def bound(look: Look, options: Mapping[str, Any]) -> Callable[..., Any]:
        return lambda reader, x, y: look(reader, x, y, options)

    found = [parse_objectives(source.objectives or default, source.label) for source in sources]
    return [{s.label: bound(s.objective.look, s.options) for s in specs if s.objective.look} for specs in found]


def ask_references(default: Mapping[str, Any], sources: Sequence[SourceOptions]) -> bool:
    """Whether an objective needs references, whatever the critic needs."""
    specs = [s for source in sources for s in parse_objectives(source.objectives or default, source.label)]
    return any("references" in spec.objective.needs for spec in specs)


class Terms(nn.Module):
    """The loss of a step. Its own parameters (heads, log-variances) see gathered lists, equal on all processes.

    Args:
        default: Objectives of sources that have none of their own.
        sources: Whose batches come, in this order.
        card: Of the critic.
        balance: `fixed`: weights as given; `uncertainty`: each objective also by a variance that is learned.
        width: Features per image, for side tasks.

    Raises:
        ConfigError: listing unknown objectives, and objectives that ask a source for what it does not know.
    """

    def __init__(
        self, default: Mapping[str, Any], sources: Sequence[Source], card: Card, balance: str = "fixed", width: int = 0
    ) -> None:
        super().__init__()
        self.card, self.sources = card, sources
        self.specs = _specs(default, sources)
        self.parts = nn.ModuleDict()
        for i, (source, specs) in enumerate(zip(sources, self.specs, strict=True)):
            for spec in specs:
                if spec.objective.part is not None:
                    self.parts[f"{i}_{spec.label}"] = spec.objective.part(spec.options, source, width)
        self._try_out(width)
        labels = {f"{i}_{s.label}": s for i, specs in enumerate(self.specs) for s in specs}
        side = [k for k, s in labels.items() if s.objective.is_classification]
        self.balance = (
            UncertaintyWeights([k for k in labels if k not in side], side) if balance == "uncertainty" else None
        )

    def forward(self, outputs: Sequence[tuple[Any, ...]], batches: Sequence[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by `source/objective` before weighting, the same on all processes.

        Args:
            outputs: Of each source, a `Reading`.
            batches: What is known about the images, on the same device.
        """
        losses: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        for i, (source, specs) in enumerate(zip(self.sources, self.specs, strict=True)):
            q, features, *looked = outputs[i]
            judged = self._judged(q, features, batches[i])
            for spec in specs:
                key = f"{i}_{spec.label}"
                part = self.parts[key] if key in self.parts else None  # noqa: SIM401
                if spec.objective.look is not None:
                    judged = replace(judged, looked=tuple(map(gather_list, looked[0][spec.label])))
                losses[key] = spec.objective.loss(judged, part, spec.options)
                weights[key] = spec.weight * source.options.weight
                report[f"{source.options.label}/{spec.label}"] = losses[key].detach()
        if self.balance is not None:
            total = self.balance({key: weights[key] * loss for key, loss in losses.items()})
        else:
            total = torch.stack([weights[key] * loss for key, loss in losses.items()]).sum()
        return total, report

    @torch.no_grad()
    def _try_out(self, width: int) -> None:
        """Values of options that an objective refuses are found before the first step.

        Raises:
            ConfigError: listing them.
        """
        numbers = torch.arange(4)
        problems: list[str] = []
        for i, (source, specs) in enumerate(zip(self.sources, self.specs, strict=True)):
            q, clean = numbers / 4, torch.zeros(4, dtype=torch.long)
            judged = Judged(q, torch.rand(4, max(width, 1)), q, clean, clean, clean, numbers.double(), clean, self.card)
            for spec in (s for s in specs if s.objective.look is None):
                key = f"{i}_{spec.label}"
                try:
                    spec.objective.loss(judged, self.parts[key] if key in self.parts else None, spec.options)  # noqa: SIM401
                except (PerceptlossError, TypeError, ValueError) as error:
                    problems.append(f"{source.options.label}: {spec.label}: {error}")
        if problems:
            raise ConfigError(problems, "objectives")

    def _judged(self, quality: Tensor, features: Tensor | None, batch: Batch) -> Judged:
        columns = gather_list(batch.columns().to(quality.device))
        return Judged(
            q=gather_list(quality),
            features=None if features is None else gather_list(features),
            target=columns[:, 0].float(),
            content=columns[:, 1].long(),
            reference=columns[:, 2].long(),
            group=columns[:, 3].long(),
            level=columns[:, 4],
            kind=columns[:, 5].long(),
            card=self.card,
        )


def _specs(default: Mapping[str, Any], sources: Sequence[Source]) -> list[list[Spec]]:
    problems: list[str] = []
    found: list[list[Spec]] = []
    for source in sources:
        own, label = source.options.objectives, source.options.label
        try:
            specs = parse_objectives(own or default, f"{label}.objectives" if own else "objectives")
        except ConfigError as error:
            problems += [p for p in error.problems if p not in problems]
            continue
        for spec in specs:
            lacking = sorted(spec.objective.needs - source.gives)
            if lacking:
                problems.append(
                    f"{spec.label}: needs {' and '.join(lacking)}, which source {label!r} does not have; "
                    "give that source `objectives` of its own"
                )
        if not any(spec.weight for spec in specs):
            problems.append(f"{label}: no objective has a weight, so there is nothing to learn from it")
        found.append(specs)
    if problems:
        raise ConfigError(problems, "objectives")
    return found
