"""Judges that share nothing with what is trained on, decided from cards, and the columns that critics stand in."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import product
from typing import Final

from perceptloss.card import Card
from perceptloss.compare.columns import Group, group_of
from perceptloss.critic import Critic
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.weights.convert import fingerprint
from perceptloss.weights.manifest import home, manifest, shipped

__all__ = ["column_group", "judge_problems", "judge_remarks", "teachers"]

_TEACHER: Final = re.compile(r"^- (?:package:)?(\S+): labels, as a teacher\.", re.MULTILINE)


def column_group(card: Card, trained: Collection[str]) -> Group:
    """The group of columns that a critic stands in, given the names of those that are trained on."""
    return group_of(card.name, card.kind, is_trained=card.name in trained)


def judge_problems(trained: Sequence[Critic | Card], judges: Sequence[Critic | Card]) -> list[str]:
    """Why judges are no independent witnesses of a training, a sentence each; empty if they are.

    A judge must be another critic than the trained ones, and read none of their weight files: whatever pleases a trunk
    pleases every head on it. Of critics that are built, trunks are compared too, whatever files they came from.

    Args:
        trained: What the training optimises; built critics say more than cards.
        judges: What only watches.
    """
    problems = []
    for critic, judge in product(trained, judges):
        ours, theirs = _card(critic), _card(judge)
        if ours.name == theirs.name:
            problems.append(f"judge {theirs.name!r} is trained on, so what it says is no evidence; choose another")
        elif shared := _shared_files(ours, theirs):
            problems.append(
                f"judge {theirs.name!r} reads {' and '.join(shared)}, as the trained {ours.name!r} does; choose one "
                "with weights of its own, or without any"
            )
        elif arch := _shared_trunk(critic, judge):
            problems.append(
                f"judge {theirs.name!r} has the same trunk, {arch}, weights included, as the trained {ours.name!r}; "
                "choose one with another"
            )
    return problems


def judge_remarks(trained: Sequence[Critic | Card], judges: Sequence[Critic | Card]) -> list[str]:
    """What a reader should know of judges that pass: which of them taught a trained critic, or was taught like it."""
    remarks = []
    for critic, judge in product(trained, judges):
        ours, theirs = _card(critic), _card(judge)
        if theirs.name in teachers(ours):
            remarks.append(f"judge {theirs.name!r} taught the trained {ours.name!r}: expect them to agree")
        elif ours.name in teachers(theirs):
            remarks.append(f"judge {theirs.name!r} was taught by the trained {ours.name!r}: expect them to agree")
        elif both := sorted(set(teachers(ours)) & set(teachers(theirs))):
            remarks.append(
                f"judge {theirs.name!r} and the trained {ours.name!r} were both taught by {', '.join(both)}: expect "
                "them to agree"
            )
    return remarks


def teachers(card: Card) -> tuple[str, ...]:
    """Critics whose scores taught the weights of a critic, as the model cards beside its weight files say."""
    folders = [folder for folder in (home(), shipped()) if folder is not None]
    found: list[str] = []
    for name in card.weights:
        papers = [folder / f"{name}.md" for folder in folders]
        if paper := next((paper for paper in papers if paper.is_file()), None):
            found += _TEACHER.findall(paper.read_text(encoding="utf-8"))
    return tuple(dict.fromkeys(found))


def _card(critic: Critic | Card) -> Card:
    return critic.card if isinstance(critic, Critic) else critic


def _shared_files(one: Card, other: Card) -> list[str]:
    """Weight files that both read, under whatever names."""
    known = manifest()

    def holders(name: str) -> set[str]:
        return {name, *filter(None, [known[name].within if name in known else ""])}

    theirs = {holder for name in other.weights for holder in holders(name)}
    return [f"{name} (the trunk)" if _is_trunk(name) else name for name in one.weights if holders(name) & theirs]


def _is_trunk(name: str) -> bool:
    entry = manifest().get(name)
    return entry is not None and entry.holds == ("trunk",)


def _shared_trunk(one: Critic | Card, other: Critic | Card) -> str:
    """Architecture of a trunk that two built critics share, weights included; empty if they share none."""
    if not (isinstance(one, TrunkCritic) and isinstance(other, TrunkCritic)):
        return ""
    ours, theirs = one.trunk, other.trunk
    is_same = ours.arch == theirs.arch and fingerprint(ours.state_dict()) == fingerprint(theirs.state_dict())
    return ours.arch if is_same else ""
