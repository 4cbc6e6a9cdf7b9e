"""What is known beside the teachers: damage that they judge too hard, and damage that people like less than they do.

People like pixelation less than smooth enlargement by the same factor (`perceptloss.teach.run.enlargers` says how that
is known); LPIPS, SSIMULACRA 2 and ColorVideoVDP say the opposite.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from perceptloss.errors import ConfigError
from perceptloss.teach.run.fresh import attempt
from perceptloss.teach.run.sources import families
from perceptloss.teach.sets import ScoredSet

__all__ = ["lowered", "raised", "target_problems"]

_STEP = 0.25  # share by which the worse of two kinds lies lower at least


def target_problems(floors: Mapping[str, Any], below: Sequence[Any], always: Sequence[str]) -> list[str]:
    """What is wrong with `floors` and `below` of a set that is yet to be made, which takes long."""
    problems: list[str] = []
    attempt(problems, lambda: families(floors, "floors"), None)
    problems += _floor_problems(floors)
    return problems + [
        f"below: expected [worse, better], two names of `always`, got {pair!r}"
        for pair in below
        if not _is_pair(pair, always)
    ]


def _floor_problems(floors: Mapping[str, Any]) -> list[str]:
    return [
        f"floors.{family}: expected a number in [0, 1], got {floor!r}"
        for family, floor in floors.items()
        if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 <= floor <= 1
    ]


def _is_pair(pair: Any, known: Collection[str]) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(name in known for name in pair)


def raised(taught: ScoredSet, target: np.ndarray, floors: Mapping[str, Any]) -> np.ndarray:
    """No target of a family lies under its floor.

    Raises:
        ConfigError: if there is no such family, or a floor is not in [0, 1].
    """
    families(floors, "floors")
    if problems := _floor_problems(floors):
        raise ConfigError(problems, "floors")
    for family, floor in floors.items():
        target = np.where(np.asarray(taught.family) == family, np.maximum(target, floor), target)
    return target


def lowered(taught: ScoredSet, target: np.ndarray, below: Sequence[Any]) -> np.ndarray:
    """Where two kinds of damage of one cut have one level, the worse one gets at most three quarters of the other's.

    Raises:
        ConfigError: if a pair has not two names that the set has.
    """
    target, name = target.copy(), np.asarray(taught.name)
    places = list(zip(taught.reference.tolist(), taught.level.tolist(), strict=True))
    for pair in below:
        if not _is_pair(pair, {*name.tolist()}):
            raise ConfigError([f"below: expected [worse, better], two names that the set has, got {pair!r}"], "below")
        bound = {places[row]: target[row] for row in np.flatnonzero(name == pair[1])}
        for row in np.flatnonzero(name == pair[0]):
            target[row] = min(target[row], (1 - _STEP) * bound.get(places[row], np.inf))
    return target
