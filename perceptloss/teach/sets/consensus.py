"""What several teachers agree on: scores of different units brought to ranks and averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.paired import Ties
from perceptloss.errors import ConfigError, near

__all__ = ["consensus", "midranks"]

Floats = NDArray[np.float64]


def midranks(values: NDArray[np.floating]) -> Floats:
    """Ranks from 1, ties sharing the mean of theirs, (N,)."""
    return Ties.of(values).ranks(np.ones((1, len(values))))[0] if len(values) else np.zeros(0)


def consensus(
    scores: Mapping[str, NDArray[np.floating]],
    clean: Mapping[str, NDArray[np.floating]],
    is_higher_better: Mapping[str, bool],
    weights: Mapping[str, float],
) -> Floats:
    """One label per image, 1 for clean, (N,) in (0, 1].

    Each teacher's scores become uniform in (0, 1) by their midranks; what a teacher likes as much as the clean
    crop gets 1 from it. The weighted mean over teachers is made uniform in the same way; 1 is for the images to
    which every teacher gives 1, the clean crops above all.

    Args:
        scores: Of each teacher, in natural units, (N,).
        clean: Of each teacher, its score of the clean crop that the image was made from, (N,).
        is_higher_better: Of each teacher.
        weights: Say of each teacher, 0 or more; teachers that are not named have none.

    Raises:
        ConfigError: listing teachers that are not there and weights that are none.
    """
    heard = _checked(weights, scores)
    total = sum(heard.values())
    mean, top = np.zeros(1), np.ones(1, dtype=bool)
    for name, weight in heard.items():
        sign = 1 if is_higher_better[name] else -1
        as_clean = sign * scores[name] >= sign * clean[name]
        mean = mean + weight / total * _uniform(sign * scores[name], as_clean)
        top = top & as_clean
    return _uniform(mean, top)


def _uniform(values: NDArray[np.floating], top: NDArray[np.bool_]) -> Floats:
    """1 where `top`, elsewhere the share of the others that lie below, each counted as half of itself."""
    labels = np.ones(len(values))
    rest = values[~top]
    labels[~top] = (midranks(rest) - 0.5) / max(len(rest), 1)
    return labels


def _checked(weights: Mapping[str, float], known: Mapping[str, object]) -> dict[str, float]:
    problems = [
        f"{name!r} is not a teacher of this set ({', '.join(known)}){near(name, known)}"
        for name in weights
        if name not in known
    ]
    problems += [
        f"{name}: expected a weight of 0 or more, got {weight!r}"
        for name, weight in weights.items()
        if not (math.isfinite(weight) and weight >= 0)
    ]
    heard = {name: float(weight) for name, weight in weights.items() if weight}
    if not problems and not heard:
        problems.append("expected at least one teacher with a weight above 0, got none")
    if problems:
        raise ConfigError(problems, "weights of the consensus")
    return heard
