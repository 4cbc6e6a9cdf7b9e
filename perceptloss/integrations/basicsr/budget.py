"""A budget of fidelity in BasicSR: the critics are told what its own validation measured.

BasicSR knows no held-out strip of the training images, so the first validation set stands for it, and the budget is
held against the last validation before the critics start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from basicsr.utils import get_root_logger

from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.integrations.metrics import METRIC, metric_names
from perceptloss.loss.budget import Budget
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.registry import get_card

__all__ = ["Spending", "find_spending", "first_validation", "measured"]

_STOCK = {"calculate_psnr": "psnr", "calculate_ssim": "ssim"}  # BasicSR's own metrics that are critics here, too


@dataclass(frozen=True)
class Spending:
    """How a budget learns what is spent of it.

    Attributes:
        budget: Of the critics.
        sources: What it measures, to the validation metric that does.
        dataset: Name of the validation set that it follows.
        start: Iteration at which the first critic starts; a validation up to it is what the budget is held against.
        end: Last iteration of the training.
    """

    budget: Budget
    sources: Mapping[str, str]
    dataset: str
    start: int
    end: int

    def follow(self, model: Any, dataset: str, current_iter: int, tb_logger: Any) -> bool:
        """Note what a validation of a model measured; whether it was one of those that are followed.

        Raises:
            ConfigError: if the model does not keep means of its metrics, as SRModel does.
        """
        if dataset != self.dataset:
            return False
        scores, budget = self._scores(model), self.budget
        if current_iter <= self.start:
            budget.start = {}
        budget.note(scores)
        found = ", ".join(f"{name} {scores[name]:.4f} (start {budget.start[name]:.4f})" for name in self.sources)
        get_root_logger().info(
            f"Budget of the critics: {budget.spent:.0%} spent, factor of their weights {budget.factor:.3g}; {found}"
        )
        if current_iter >= self.end and budget.spent > 1:
            get_root_logger().warning(
                f"The critics cost {budget.spent:.0%} of their budget at the end: take an earlier checkpoint, or "
                "interpolate the weights with those of the start."
            )
        if tb_logger is not None:
            tb_logger.add_scalar("budget/spent", budget.spent, current_iter)
            tb_logger.add_scalar("budget/factor", budget.factor, current_iter)
        return True

    def _scores(self, model: Any) -> dict[str, float]:
        """Means of the validation, which only the first process has made."""
        results = getattr(model, "metric_results", {})
        is_first = model.opt["rank"] == 0
        missing = [label for label in self.sources.values() if not isinstance(results.get(label), float)]
        if is_first and missing:
            raise ConfigError(
                [
                    f"budget: {type(model).__name__} keeps no mean of {label!r} in metric_results, as SRModel does"
                    for label in missing
                ],
                "train.critic_opt",
            )
        means = [float(results[label]) if is_first else 0.0 for label in self.sources.values()]
        if model.opt["dist"]:
            shared = torch.tensor(means, dtype=torch.float64, device=model.device)
            dist.broadcast(shared, 0)
            means = shared.tolist()
        return dict(zip(self.sources, means, strict=True))


def find_spending(opt: Mapping[str, Any], loss: CriticLoss, problems: list[str]) -> Spending | None:
    """How the budget of a loss is followed in a run with these options; None without one, or with problems."""
    budget = loss.budget
    if budget is None:
        return None
    before = len(problems)
    val = opt.get("val") or {}
    dataset, frequency = first_validation(opt).get("name"), int(val.get("val_freq") or 0)
    if dataset is None or not frequency:
        problems.append("train.critic_opt.budget is held on the validation set: give datasets.val and val.val_freq")
    sources = dict(_sources(budget, val.get("metrics") or {}, problems))
    counting = [term for term in loss.terms if not term.spec.monitor]
    for term in counting:
        if frequency and term.spec.start < frequency:
            problems.append(
                f"term {term.label!r} starts at {term.spec.start}, before the first validation (val_freq {frequency}), "
                f"which the budget is held against: say start: {frequency} or later"
            )
    if len(problems) > before or dataset is None:
        return None
    first = min((term.spec.start for term in counting), default=0)
    return Spending(budget, sources, dataset, first, int(opt["train"].get("total_iter") or 0))


def first_validation(opt: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of the first validation set; empty if there is none."""
    datasets = opt.get("datasets") or {}
    return next((entry for phase, entry in datasets.items() if phase.split("_")[0] == "val"), {})


def _sources(budget: Budget, metrics: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, str]]:
    for name, card in budget.cards.items():
        label = next((label for label, entry in metrics.items() if measured(entry) == card.name), None)
        if label is not None:
            yield name, label
            continue
        kind = "calculate_psnr, crop_border: 4" if card.name == "psnr" else f"{METRIC}, critic: {card.name}"
        problems.append(
            f"train.critic_opt.budget: no metric under val.metrics measures {name!r}; add {card.name}: {{type: {kind}}}"
        )


def measured(entry: Mapping[str, Any]) -> str | None:
    """The critic whose score a validation metric is."""
    kind = str(entry.get("type"))
    name = {**_STOCK, **metric_names(), METRIC: entry.get("critic")}.get(kind)
    try:
        return None if name is None else get_card(name).name
    except UnknownCritic:
        return None
