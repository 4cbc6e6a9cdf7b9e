"""Filling a critic with weights: the files of its card, or what the user gives and these leave open."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

from torch import Tensor

from perceptloss.card import Card, Direction
from perceptloss.critic import Critic
from perceptloss.errors import MissingWeights, WeightsError
from perceptloss.weights.checkpoints import plain_tensors, read_facts, read_state
from perceptloss.weights.convert import convert, load_states
from perceptloss.weights.places import how_to_fetch
from perceptloss.weights.search import Source, find, get_file, resolve

__all__ = ["direction_in", "load", "load_default"]

logger = logging.getLogger(__name__)


def load_default(critic: Critic) -> list[Path]:
    """Load the files that the critic's card names; returns them.

    Raises:
        WeightsError: if one is missing or does not fit.
    """
    paths = list(dict.fromkeys(_files_of(critic.card)))  # one may hold what another is asked for
    load_states(critic, [read_state(path) for path in paths], [str(path) for path in paths])
    return paths


def direction_in(paths: Sequence[Path]) -> Direction | None:
    """Direction of scores that the metadata of our own files states, None if no file does.

    Raises:
        WeightsError: if two files disagree.
    """
    found = {facts["better"]: path for path in paths if "better" in (facts := read_facts(path))}
    if len(found) > 1:
        raise WeightsError(f"the files disagree on whether higher or lower scores are better: {found}. Give better=.")
    return cast("Direction | None", next(iter(found), None))


def _files_of(card: Card) -> list[Path]:
    # what nobody can download comes first, lest a large trunk is fetched in vain
    files = sorted(card.weights, key=lambda name: not get_file(name).obtain)
    try:
        found = {name: find(name) for name in files}
    except MissingWeights as error:
        advice = f"`{how_to_fetch(card.name, card.weights)}` fetches all {len(card.weights)} files of this critic."
        if get_file(files[0]).obtain:
            advice = (
                f'Files of your own: create_critic("{card.name}", weights=[...]), or `weights:` of a term. '
                "weights=None gives random ones, to try the code."
            )
        raise MissingWeights(f"{error}\n{advice}") from None
    return [found[name] for name in card.weights]


def load(critic: Critic, sources: Sequence[Source]) -> list[Path]:
    """Load what the user gives, and what that leaves open from the card's files; returns the user's files.

    Raises:
        WeightsError: if a file is missing or does not fit.
    """
    if not sources:
        raise WeightsError(
            f"weights of critic {critic.card.name!r} are an empty list; leave them out for the files of its card, "
            "or give None for random ones."
        )
    parts: dict[str, dict[str, Tensor]] = {}
    paths: list[Path] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, Mapping):
            name = f"state dict {number} of {len(sources)}"
            state = plain_tensors(source, name)
        elif isinstance(source, (str, PathLike)):
            path = resolve(source)
            paths.append(path)
            name, state = str(path), read_state(path)
        else:
            raise WeightsError(f"weights must be paths or state dicts, got {type(source).__name__}.")
        parts[name] = convert(critic, state, name)
    _fill(critic, parts)
    load_states(critic, list(parts.values()), list(parts))
    return paths


def _fill(critic: Critic, parts: dict[str, dict[str, Tensor]]) -> None:
    """Add the tensors that are still open; asks for no file that is not needed."""
    missing = set(critic.state_dict()).difference(*parts.values())

    def is_unlikely(name: str) -> bool:
        holds = get_file(name).holds
        return bool(holds) and not any(key.split(".")[0] in holds for key in missing)

    given = ", ".join(parts)
    for name in sorted(critic.card.weights, key=is_unlikely) if missing else ():
        if not missing:
            break
        try:
            path = find(name)
        except MissingWeights as error:
            left = f"{given}: leave {len(missing)} tensors of critic {critic.card.name!r} open, such as {min(missing)}"
            raise MissingWeights(f"{left}.\n{error}") from error
        found = convert(critic, read_state(path), str(path))
        fresh = {key: tensor for key, tensor in found.items() if key in missing}
        if fresh:
            logger.info("critic %r: %d tensors, which %s lacks, are from %s", critic.card.name, len(fresh), given, path)
            parts[str(path)] = fresh
            missing.difference_update(fresh)
