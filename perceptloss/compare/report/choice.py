"""Which images a report shows: those that tell most, each with its reason, and a random sample that is called so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.statistics.paired import Array

__all__ = ["RANDOM", "Choice", "choose"]

RANDOM: Final = "drawn at random"


@dataclass(frozen=True)
class Choice:
    """An image.

    Attributes:
        image: Its index.
        reasons: Why it is shown.
    """

    image: int
    reasons: tuple[str, ...]


def choose(scores: Scores, telling: int = 10, random: int = 5, seed: int = 0) -> list[Choice]:
    """Images that tell most, by turns of each reason, and then images drawn from all others.

    Scores are brought to one scale: higher is better, mean 0 and deviation 1 over all systems and images. Critics that
    were trained on have no part in it, unless there is no other.

    Args:
        scores: Of all images.
        telling: How many of the first.
        random: How many of the last.
        seed: Of the draw.
    """
    level = _standardised(scores)
    reasons: dict[int, list[str]] = {}
    for turn in zip_longest(*_rankings(scores, level)):
        for found in turn:
            if found is None:
                continue
            image, reason = found
            if image in reasons or len(reasons) < telling:
                reasons.setdefault(image, []).append(reason)
        if len(reasons) >= telling:
            break
    others = [image for image in range(len(scores.keys)) if image not in reasons]
    drawn = np.random.default_rng(seed).permutation(len(others))[:random]
    chosen = [Choice(image, tuple(texts)) for image, texts in reasons.items()]
    return [*chosen, *(Choice(others[n], (RANDOM,)) for n in sorted(drawn.tolist()))]


def _standardised(scores: Scores) -> Array:
    """(systems, critics, images), of critics that are evidence; 0 where a score is missing."""
    used = np.flatnonzero(scores.counted) if any(scores.counted) else np.arange(len(scores.counted))
    kept = scores.oriented[:, used]
    there = ~np.isnan(kept)
    count = np.maximum(there.sum(axis=(0, 2), keepdims=True), 1)
    centred = kept - np.nansum(kept, axis=(0, 2), keepdims=True) / count
    largest = np.nanmax(np.abs(centred), axis=(0, 2), keepdims=True, initial=0)
    centred = centred / np.where(largest > 0, largest, 1)  # squares of any size stay in float64
    spread = np.sqrt(np.nansum(centred**2, axis=(0, 2), keepdims=True) / count)
    level: Array = np.nan_to_num(centred / np.where(spread > 0, spread, 1))
    return level


def _rankings(scores: Scores, level: Array) -> Iterator[Iterator[tuple[int, str]]]:
    """For each reason, the images that it holds for, the strongest first."""
    mean = level.mean(axis=1)
    names = scores.systems
    if scores.base is not None and len(names) > 1:
        gains = level - level[scores.base]
        rivals = [s for s in range(len(names)) if s != scores.base]
        for s in rivals:
            yield _first(-gains[s].mean(axis=0), f"{names[s]} loses most to {names[scores.base]}", least=0.0)
        yield _first(gains[rivals].std(axis=1).max(axis=0), "critics disagree most", least=0.0)
        yield _first(np.ptp(mean, axis=0), "systems differ most", least=0.0)
    else:
        yield _first(level[0].std(axis=0), "critics disagree most", least=0.0)
    for s, name in enumerate(names):
        yield _first(-mean[s], f"among the worst of {name}")
        yield _first(mean[s], f"among the best of {name}")


def _first(strength: Array, reason: str, least: float = -np.inf) -> Iterator[tuple[int, str]]:
    count = max(1, len(strength) // 3) if np.ptp(strength) > 0 or len(strength) == 1 else 0
    return (
        (image, reason) for image in np.argsort(-strength, kind="stable")[:count].tolist() if strength[image] > least
    )
