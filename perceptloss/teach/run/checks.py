"""What the types of the options cannot say: everything that is wrong with a configuration, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceptloss import get_card
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.runs.options import Train
from perceptloss.teach.run.export import card_problems
from perceptloss.teach.run.options import CardText
from perceptloss.teach.run.sources import SourceOptions, parse_entries
from perceptloss.teach.run.terms import parse_objectives

__all__ = ["option_problems"]


def option_problems(
    name: str, data: Sequence[Any], sets: Sequence[Any], objectives: Mapping[str, Any], train: Train, card: CardText
) -> list[str]:
    """Unknown critics, sources, objectives and their options, and contradictions; empty if there are none."""
    problems: list[str] = []
    if train.warmup >= train.steps:
        problems.append(f"train.warmup: {train.warmup} steps leave nothing of {train.steps} steps")
    if not data:
        problems.append("data: no source to learn from; give at least one entry")
    entries: list[SourceOptions] = []
    checks: list[Callable[[], object]] = [
        lambda: get_card(name),
        lambda: entries.extend(parse_entries(data, "data")),
        lambda: entries.extend(parse_entries(sets, "val.sets")),
        lambda: parse_objectives(objectives, "objectives"),
    ]
    for check in checks:
        problems += _problems(check)
    for entry in entries:
        problems += _problems(lambda: parse_objectives(entry.objectives, f"{entry.label}.objectives"))  # noqa: B023
    return problems + card_problems(card)


def _problems(check: Callable[[], object]) -> Sequence[str]:
    try:
        check()
    except ConfigError as error:
        return error.problems
    except UnknownCritic as error:
        return [f"critic.name: {error}"]
    return []
