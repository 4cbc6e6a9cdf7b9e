"""What a run says of itself: alarms at every validation, and at the end what was alarming and what was spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from _lib.critics import Spender
from perceptloss.honesty.history import Sight
from perceptloss.honesty.watch import Watch
from perceptloss.loss.budget import Budget
from perceptloss.runs.inventory import Item

__all__ = ["Watched", "look", "verdict"]


@dataclass(kw_only=True)
class Watched(Spender):
    """A training whose critics are watched."""

    KEPT = (*Spender.KEPT, "seen")

    watch: Watch | None
    seen: dict[str, Any] = field(default_factory=dict)


def look(t: Watched, sights: Sequence[Sight], means: Mapping[str, float | None]) -> list[str]:
    """Let the watch judge a validation; print new alarms, and weaken the critics where that is the reaction."""
    if t.watch is None or t.loss is None:
        return []
    known = set(t.watch.rung)
    held = {} if t.anchors is None else t.anchors.held
    learning = [learner.critic for learner in t.loss.learners.values()]
    alarms = t.watch.record(t.step, sights, means, t.watch.agreement(held, learning) if held else None)
    for alarm in alarms:
        if (alarm.name, alarm.about) not in known:
            t.accelerator.print(f"alarm: {alarm}")
    t.loss.factor = t.watch.react().factor if t.step else 1.0
    t.seen = t.watch.state()
    return [str(alarm) for alarm in alarms]


def verdict(
    t: Watched,
    start: nn.Module,
    end: nn.Module,
    items: Sequence[Item],
    whole: Callable[[Any], tuple[Tensor, Tensor]],
) -> list[str]:
    """Sentences below the table of a run: what was spent of the budget, and what was alarming.

    Args:
        t: At its end.
        start: Network that it started from.
        end: Network that is delivered.
        items: Validation images whose ground truth is known.
        whole: Such an image as low quality and ground truth.
    """
    said = []
    budget = None if t.loss is None else t.loss.budget
    if budget is not None:
        held = "held" if budget.spent <= 1 + budget.near else "**not held**"
        kept = "" if t.kept == 1 else f", after going back to {t.kept:.0%} of the way from the start"
        spent = f"{max(budget.spent, 0.0):.0%} spent"
        said.append(f"Budget {budget.text}: {held} on strips that were not trained on, {spent}{kept}.")
        if items:
            said.append(_on_validation(t, budget, start, end, [whole(item) for item in items]))
    if t.watch is not None:
        said.append(t.watch.summary())
    return said


def _on_validation(
    t: Watched, budget: Budget, start: nn.Module, end: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]]
) -> str:
    validation = replace(t.strips, pairs=pairs)
    before, after = (validation.scores(network, t.accelerator.device) for network in (start, end))
    moved = ", ".join(f"{name} {after[name] - before[name]:+.3g}" for name in budget.allowed)
    beyond = not budget.spent_of(after, before) <= 1 + budget.near
    return f"On the validation images, against the start: {moved}{' (**beyond it**)' if beyond else ''}."
