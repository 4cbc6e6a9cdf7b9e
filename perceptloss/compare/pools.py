"""Other figures than a critic's mean: sums of several critics' means, and means of the worst images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceptloss.card import Direction
from perceptloss.compare.analysis import Analysis
from perceptloss.compare.arrays import Scores
from perceptloss.compare.presets import Preset
from perceptloss.compare.statistics.bootstrap import draws
from perceptloss.compare.statistics.paired import Array, Evaluate
from perceptloss.compare.statistics.units import Bounds

__all__ = ["Composite", "Pool", "composite", "worst_pool"]

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Composite:
    """A preset's score of each system.

    Attributes:
        name: Of the preset.
        better: Direction.
        values: Of each system; None where a mean is missing.
        differences: To the baseline; None for itself.
        bounds: Percentile intervals of the differences, from resampled images.
        missing: Critics that are not there, and why; with any of them there is no value.
    """

    name: str
    better: Direction
    values: tuple[float | None, ...]
    differences: tuple[float | None, ...]
    bounds: tuple[Bounds | None, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Mean over the worst images of a system under one critic.

    Attributes:
        mean: Mean score.
        images: Their keys, the worst first.
        difference: To the baseline's own worst; None for the baseline.
        bounds: Percentile interval of the difference, from resampled images.
    """

    mean: float
    images: tuple[str, ...]
    difference: float | None = None
    bounds: Bounds | None = None


def composite(scores: Scores, preset: Preset, groups: Codes | None, analysis: Analysis) -> Composite:
    """The score of a preset, from means over images, as challenges compute it."""
    systems = len(scores.systems)
    missing = preset.missing(scores.labels)
    found = [] if missing else [scores.labels.index(str(term.column(scores.labels))) for term in preset.terms]
    for critic in found:
        lacking = [name for s, name in enumerate(scores.systems) if s not in scores.alive(critic)]
        missing += [f"{scores.labels[critic]} (no score of {name})" for name in lacking]
    if missing:
        nothing = (None,) * systems
        return Composite(preset.name, preset.better, nothing, nothing, nothing, tuple(missing))

    def value(counts: Array) -> Array:
        """Of each system in each resample, (R, systems)."""
        total = np.zeros((len(counts), systems))
        for term, critic in zip(preset.terms, found, strict=True):
            kept = scores.complete(critic)
            weights = counts[:, kept]
            with np.errstate(invalid="ignore"):
                means = weights @ scores.values[:, critic, kept].T / weights.sum(axis=1, keepdims=True)
            total += term.value(means)
        return total

    own = value(np.ones((1, len(scores.keys))))[0]
    differences, intervals = _against_base(own, scores.base, value, len(scores.keys), groups, analysis)
    return Composite(preset.name, preset.better, tuple(own.tolist()), differences, intervals)


def worst_pool(scores: Scores, groups: Codes | None, analysis: Analysis) -> tuple[tuple[Pool | None, ...], ...]:
    """The worst images of each system under each critic, [system][critic]."""
    table: list[list[Pool | None]] = [[None] * len(scores.labels) for _ in scores.systems]
    for critic in range(len(scores.labels)):
        kept, alive = scores.complete(critic), scores.alive(critic)
        places = np.flatnonzero(kept)
        if not places.size:
            continue
        count = analysis.worst_count(places.size)
        rows, badness = scores.values[alive, critic][:, kept], -scores.oriented[alive, critic][:, kept]
        orders = np.argsort(-badness, axis=1, kind="stable")

        def value(
            counts: Array, rows: Array = rows, orders: Codes = orders, places: Codes = places, count: int = count
        ) -> Array:
            means = []
            for row, order in zip(rows, orders, strict=True):
                taken = np.minimum(np.cumsum(counts[:, places[order]], axis=1), count)
                weights = np.diff(taken, axis=1, prepend=0)
                with np.errstate(invalid="ignore"):
                    means.append(weights @ row[order] / taken[:, -1])
            return np.stack(means, axis=1)

        own = value(np.ones((1, len(scores.keys))))[0]
        base = alive.index(scores.base) if scores.base in alive else None
        differences, intervals = _against_base(own, base, value, len(scores.keys), groups, analysis)
        for n, system in enumerate(alive):
            images = tuple(scores.keys[place] for place in places[orders[n, :count]])
            table[system][critic] = Pool(float(own[n]), images, differences[n], intervals[n])
    return tuple(map(tuple, table))


def _against_base(
    own: Array, base: int | None, value: Evaluate, images: int, groups: Codes | None, analysis: Analysis
) -> tuple[tuple[float | None, ...], tuple[Bounds | None, ...]]:
    """Differences to the baseline's figure, and their intervals."""
    if base is None:
        return (None,) * len(own), (None,) * len(own)
    differences: list[float | None] = (own - own[base]).tolist()
    differences[base] = None
    if len(_units(images, groups)) < 2:
        nothing: list[Bounds | None] = [None if n == base else Bounds(None, None, "none") for n in range(len(own))]
        return tuple(differences), tuple(nothing)
    drawn = np.concatenate([value(counts) for counts in _resamples(images, groups, analysis)])
    gains = drawn - drawn[:, [base]]
    ends = np.nanquantile(gains, ((1 - analysis.level) / 2, (1 + analysis.level) / 2), axis=0).T.tolist()
    intervals = [None if n == base else Bounds(low, high, "percentile") for n, (low, high) in enumerate(ends)]
    return tuple(differences), tuple(intervals)


def _units(images: int, groups: Codes | None) -> Codes:
    return np.arange(images) if groups is None else np.unique(groups)


def _resamples(images: int, groups: Codes | None, analysis: Analysis) -> Iterator[Array]:
    """Counts of images, (rows, images)."""
    units = len(_units(images, groups))
    for counts in draws(units, analysis.rounds, analysis.seed, images):
        yield counts if groups is None else counts[:, groups]
