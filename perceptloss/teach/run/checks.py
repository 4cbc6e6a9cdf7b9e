"""What the types of the options cannot say: everything that is wrong with a configuration, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceptloss import create_critic, get_card
from perceptloss.errors import ConfigError, PerceptlossError, UnknownCritic
from perceptloss.runs.options import Train
from perceptloss.teach.run.export import card_problems
from perceptloss.teach.run.options import CardText, CriticOptions
from perceptloss.teach.run.sources import SourceOptions, parse_entries
from perceptloss.teach.run.terms import parse_objectives

__all__ = ["attack_problems", "option_problems"]


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


def attack_problems(
    own: CriticOptions, objectives: Mapping[str, Any], data: Sequence[Any], *, attacks: bool = True
) -> list[str]:
    """What of `critic.attackers` and `critic.remember` would be ignored, or stop a run that has looked at its images.

    Args:
        own: The critic.
        objectives: Of the run.
        data: Entries, which may have objectives of their own.
        attacks: Whether the attackers must be there already.
    """
    asked = _named(objectives).union(*(_named(entry.get("objectives")) for entry in data if isinstance(entry, dict)))
    problems = []
    if own.attackers and not own.remember:
        problems.append("critic.attackers: attack what is remembered: set critic.remember")
    elif own.attackers and "steady" not in asked:
        problems.append("critic.attackers: no objective learns from what they attack: add `steady`")
    if "steady" in asked and not own.attackers:
        problems.append("steady: nothing is attacked: set critic.remember and critic.attackers")
    if "prefer" in asked and not own.remember:
        problems.append("prefer: learns from readings alone: set critic.remember")
    for file in own.attackers if attacks else ():
        try:
            create_critic(own.name, weights=file)
        except UnknownCritic:
            break  # told elsewhere
        except PerceptlossError as error:
            problems.append(f"critic.attackers: {error}")
    return problems


def _named(objectives: Any) -> set[str]:
    """Names of objectives, also where there are labels."""
    if not isinstance(objectives, Mapping):
        return set()
    return {
        str(given.get("objective", label) if isinstance(given, Mapping) else label)
        for label, given in objectives.items()
    }


def _problems(check: Callable[[], object]) -> Sequence[str]:
    try:
        check()
    except ConfigError as error:
        return error.problems
    except UnknownCritic as error:
        return [f"critic.name: {error}"]
    return []
