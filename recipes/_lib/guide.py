"""What enhancement knows beside L1 and critics: options, semantic maps, regions, and labels of a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from _lib.gate import Bank
from _lib.honesty import Watched
from _lib.scenes import CLASSES
from _lib.task import Aid, Batch
from perceptloss import get_card
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.honesty.judges import judge_problems
from perceptloss.loss.parsing import parse_terms
from perceptloss.loss.regions import SMALLEST, RegionLoss, boxes_of
from perceptloss.runs.config import option
from perceptloss.runs.options import Loss, Val

__all__ = ["SEMANTIC", "Guidance", "Guide", "Judging", "gate_problems", "guidance_problems", "planes"]

SEMANTIC: Final = "SGUIENet"
"""The network that a semantic map guides."""


@dataclass(frozen=True)
class Guidance(Loss):
    """pixel_weight x L1 + sum of weighted critics + critics of regions."""

    regions: dict[str, Any] | list[Any] = option(  # noqa: RUF009
        {}, "terms with weights, for each box around a class of a mask: {lpips-squeeze: 0.1}"
    )
    gate: str = option("mini-underwater", "critic that chooses the labels of pictures without reference")
    gate_every: int = option(10, "steps between two looks of it, each at one picture per process", at_least=1)


@dataclass(frozen=True)
class Judging(Val):
    """Validation on whole images, also at the end."""

    gt_mean: bool = option(
        False, "compare after the output got the brightness of the reference; its signatures end in gt-mean"
    )


def gate_problems(loss: Guidance, val: Judging) -> list[str]:
    """Why the gate cannot choose labels in a run: it must be asked by nobody else."""
    gate, trained = get_card(loss.gate), [term.card for term in parse_terms(loss.critics) if not term.monitor]
    judges = [get_card(name) for name in (*val.judges, *val.guests)]
    problems = [f"loss.gate: {problem}" for problem in judge_problems([gate], judges)]
    if gate.name in [card.name for card in trained]:
        problems.append(
            f"loss.gate: {gate.name!r} is trained on, so it would choose what pleases it; take it out of loss.critics, "
            "or choose another gate"
        )
    return problems


def guidance_problems(loss: Guidance, patch: int) -> list[str]:
    """Contradictions between these options; `patch` is the side of what critics see."""
    problems: list[str] = []
    try:
        gate = get_card(loss.gate)
    except UnknownCritic as error:
        return [f"loss.gate: {error}"]
    if gate.kind != "nr":
        problems.append(f"loss.gate: {loss.gate!r} needs a reference, which these pictures lack; one of kind nr")
    try:
        terms = parse_terms(loss.regions, "loss.regions") if loss.regions else []
    except ConfigError as error:
        return [*problems, *error.problems]
    if loss.regions and not loss.critics:
        problems.append("loss.regions goes with loss.critics: without them the run is plain L1, which asks no critic")
    for term in terms:
        if (least := max(SMALLEST, term.card.min_size)) > patch:
            problems.append(f"loss.regions: {term.label!r} sees boxes of {least} pixels or more of data.patch {patch}")
        if term.share is not None or term.joint is not None or term.crop is not None:
            problems.append(f"loss.regions: {term.label!r} takes a weight, and neither share, joint nor crop")
        if not term.card.needs_reference and term.shape not in ("hinge", "softplus"):
            problems.append(f"loss.regions: {term.label!r} needs no reference, so give it the shape hinge")
    return problems


def planes(classes: Tensor) -> Tensor:
    """Numbers of classes, (N, 1, H, W), as one plane for each, (N, 8, H, W); none is set where a number is negative."""
    return classes == torch.arange(CLASSES, device=classes.device)[:, None, None]


class Guide(Aid):
    """The parts that a training of an enhancer adds to its steps.

    Args:
        t: The trainee, prepared; its checkpoints keep the bank.
        bank: Of labels.
        regions: Terms of `RegionLoss`, or nothing.
        is_semantic: Whether the network takes semantic maps.
    """

    def __init__(
        self, t: Watched, bank: Bank, regions: Mapping[str, Any] | list[Any], *, is_semantic: bool = False
    ) -> None:
        self.bank, self.is_semantic = bank, is_semantic
        self.regions = None
        if regions:
            nonfinite = t.config.loss.on_nonfinite
            self.regions = RegionLoss(regions, on_nonfinite=nonfinite, domain=t.config.loss.domain).to(
                t.accelerator.device
            )
        if bank.numbers:
            t.accelerator.register_for_checkpointing(bank)

    def output(self, t: Watched, batch: Batch) -> Tensor:
        """What the network gives, of the map too if it takes one."""
        output: Tensor = t.network(batch[0], planes(batch[3])) if self.is_semantic else t.network(batch[0])
        return output

    def target(self, t: Watched, batch: Batch, output: Tensor) -> Tensor:
        """References, or labels of the bank."""
        return self.bank.targets(batch[2], batch[1], output)

    def loss(self, t: Watched, batch: Batch, output: Tensor, target: Tensor) -> Tensor | None:
        """The critics of regions."""
        return None if self.regions is None else self.regions(output, target, boxes_of(batch[3]), step=t.step)

    def after(self, t: Watched) -> None:
        """The critic looks at labels."""
        self.bank.look(t)
