"""Sections of the configuration of `critic.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from perceptloss.runs.config import option

__all__ = ["CardText", "CriticOptions", "Val"]


@dataclass(frozen=True)
class CriticOptions:
    """The critic that learns."""

    name: str = option("mini-fr", "registered name; `perceptloss list` shows all")
    options: dict[str, Any] = option({}, "arguments of its constructor")  # noqa: RUF009
    weights: str | None = option(
        None, "file to start from, or `default` for the files of its card; nothing: random, from the seed"
    )
    fixed: tuple[str, ...] = option((), "parameters that do not learn, as patterns: trunk.*")
    read: Literal["score", "linear"] = option(
        "score", "what the losses read: the score, or the read-out before its flat end"
    )
    remember: bool = option(
        False,
        "compute what the learned parts read of sets of `teachers` once: a hundred times as fast; no cuts, no turns",
    )
    attackers: tuple[str, ...] = option(
        (), "weights of this critic by each of which some remembered images are attacked"
    )
    attacked: int = option(1000, "images that each of them attacks", at_least=2)
    tap: str = option("", "module of the critic whose output side tasks read")
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "of its trunk, where its card allows it")
    channels_last: bool = option(False, "memory layout of weights and images")


@dataclass(frozen=True)
class Val:
    """Exams: on the way, and at the end."""

    every: int = option(1000, "steps between exams; 0: only at the end", at_least=0)
    sets: list[Any] = option([], "more exams: entries as in `data`, with other photographs or datasets")  # noqa: RUF009
    look_alikes: list[Any] = option(  # noqa: RUF009
        [],
        "pairs of photographs, one taught and one examined, that only look alike: [[a, b], ...]",
    )
    limit: int = option(600, "images per exam on the way, whole photographs; 0: all", at_least=0)
    best: str = option(
        "", "figure that decides which weights are kept: EXAM/PART/FIGURE; nothing: SRCC on all of the first exam"
    )
    rounds: int = option(1000, "bootstrap rounds of the final intervals", at_least=10)
    peers: dict[str, Any] | list[Any] = option(  # noqa: RUF009
        {}, "critics to compare with at the end: a list of names, or {name: weights file}"
    )
    attacks: dict[str, Any] = option(  # noqa: RUF009
        {},
        "at the end, SRCC on an exam while its pictures are attacked: {exam: NAME, limit: 60}; 84 gradients per image",
    )


@dataclass(frozen=True)
class CardText:
    """What the model card says beside figures and facts."""

    write: bool = option(True, "write a model card; it needs everything below")
    summary: str = option("", "a sentence or two: what the critic is for")
    licence: str = option("", "licence of the weights")
    sources: list[Any] = option([], "data: [{folder, licence, attribution}]")  # noqa: RUF009
    known_failures: tuple[str, ...] = option((), "what it gets wrong")
