"""What scores show beyond their means: intervals, tests, ranks and strengths, for all systems and critics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.analysis import Analysis
from perceptloss.compare.arrays import Scores
from perceptloss.compare.opinions import Agreement, agreement
from perceptloss.compare.pools import Composite, Pool, composite, worst_pool
from perceptloss.compare.statistics.equivalence import detectable, tost
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.ranks import Friedman, friedman, ranked
from perceptloss.compare.statistics.significance import Chance, hodges_lehmann, holm, sign_flip, wilcoxon, wilson
from perceptloss.compare.statistics.strengths import Strengths, strengths, votes_of
from perceptloss.compare.statistics.units import Bounds, Units, bounds
from perceptloss.compare.votes.tally import Tally, tally

__all__ = ["Effect", "Inference", "infer"]

_FOR_CRITICAL_DIFFERENCE: Final = 5  # systems


@dataclass(frozen=True)
class Effect:
    """A system against the baseline under one critic, in the critic's own units.

    Attributes:
        difference: Mean difference.
        bounds: Its interval.
        error: Its standard error; None for a single unit.
        units: Images or groups.
        p: Two-sided sign-flip p.
        is_exact: Whether all patterns were tried for it.
        holm: That p after Holm over the family; None where the critic is no evidence.
        noise: Of the critic's mean.
        is_starred: Whether `holm` is at most alpha and the difference exceeds the noise.
        wilcoxon: P of the signed-rank test.
        shift: Hodges-Lehmann shift.
        biserial: Matched-pairs rank-biserial correlation, positive where the system is better.
        win_share: Share of the units on which it is better, a tie is half of one.
        win_bounds: Wilson interval of that.
        detectable: Smallest difference that would get a star with a probability of 0.8, at alpha over the family.
        margin: Up to which the two count as equivalent, if one was stated.
        equivalence: P that they differ by as much.
    """

    difference: float
    bounds: Bounds
    error: float | None
    units: int
    p: float
    is_exact: bool
    noise: float
    wilcoxon: float
    shift: float
    biserial: float
    win_share: float
    win_bounds: tuple[float, float]
    holm: float | None = None
    is_starred: bool = False
    detectable: float | None = None
    margin: float | None = None
    equivalence: float | None = None


@dataclass(frozen=True)
class Inference:
    """Everything that is inferred from scores.

    Attributes:
        units: Number of images or groups that are drawn.
        unit: `image` or `group`.
        family: Number of tests that Holm's correction spans.
        means: Interval of each mean, [system][critic]; None without a score.
        effects: [system][critic]; None for the baseline, and where one of the two has no score.
        ranks: Mean rank over images, [system][critic]; None where the critic has no score at all.
        friedman: Of mean ranks over critics, from five systems and two units on.
        strengths: Bradley-Terry strengths from images and critics, of two systems and more.
        presets: Sums of mean scores.
        worst: Means of the worst images, [system][critic]; None where not asked for.
        agreement: With people's opinions; None where there are none.
        tally: Of people's votes; None where there are none.
    """

    units: int
    unit: str
    family: int
    means: tuple[tuple[Bounds | None, ...], ...]
    effects: tuple[tuple[Effect | None, ...], ...]
    ranks: tuple[tuple[float | None, ...], ...]
    friedman: Friedman | None = None
    strengths: Strengths | None = None
    presets: tuple[Composite, ...] = ()
    worst: tuple[tuple[Pool | None, ...], ...] | None = None
    agreement: Agreement | None = None
    tally: Tally | None = None


def infer(scores: Scores, analysis: Analysis) -> Inference:
    """Compute all that an analysis asks for; equal inputs give equal numbers."""
    groups = codes_of(np.array([analysis.groups.get(key, key) for key in scores.keys])) if analysis.groups else None
    systems, critics = scores.values.shape[:2]
    columns = [_column(scores, critic, groups, analysis) for critic in range(critics)]
    effects = [[columns[critic][1].get(system) for critic in range(critics)] for system in range(systems)]
    effects, family = _with_family(effects, scores, analysis)
    test, scale = _rankings(scores, groups, analysis) if systems > 1 else (None, None)
    return Inference(
        units=len(scores.keys) if groups is None else int(groups.max()) + 1,
        unit="image" if groups is None else "group",
        family=family,
        means=tuple(tuple(columns[c][0].get(s) for c in range(critics)) for s in range(systems)),
        effects=tuple(map(tuple, effects)),
        ranks=_rank_table(scores),
        friedman=test,
        strengths=scale,
        presets=tuple(composite(scores, preset, groups, analysis) for preset in analysis.presets),
        worst=worst_pool(scores, groups, analysis) if analysis.worst else None,
        agreement=_agreement(scores, analysis) if analysis.opinions else None,
        tally=tally(scores, analysis.votes, analysis.groups, seed=analysis.seed, level=analysis.level)
        if analysis.votes
        else None,
    )


def _column(
    scores: Scores, critic: int, groups: NDArray[np.intp] | None, analysis: Analysis
) -> tuple[dict[int, Bounds], dict[int, Effect]]:
    """Intervals of means and effects under one critic, by system."""
    kept, alive, base = scores.complete(critic), scores.alive(critic), scores.base
    if not kept.any():
        return {}, {}
    rows = scores.values[:, critic, kept]
    rivals = [system for system in alive if system != base] if base in alive else []
    table = np.stack([*(rows[s] for s in alive), *(rows[s] - rows[base] for s in rivals)], axis=1)
    units = Units.of(table, None if groups is None else groups[kept])
    intervals = bounds(units, rounds=analysis.rounds, seed=analysis.seed, level=analysis.level)
    means, first = dict(zip(alive, intervals, strict=False)), len(alive)
    chances = sign_flip(units.sums[:, first:], rounds=analysis.rounds, seed=analysis.seed) if rivals else []
    effects = {
        system: _effect(scores, critic, units, place, intervals[place], chance, analysis)
        for place, (system, chance) in enumerate(zip(rivals, chances, strict=True), first)
    }
    return means, effects


def _effect(
    scores: Scores, critic: int, units: Units, place: int, interval: Bounds, chance: Chance, analysis: Analysis
) -> Effect:
    """The difference in a column of the units, not yet among others of its family."""
    sign = 1.0 if scores.higher_better[critic] else -1.0
    margin = analysis.of(analysis.margins, scores.labels[critic])
    mean, error = float(units.mean[place]), float(units.error[place]) if units.count > 1 else None
    gains = units.means[:, place]
    signed_ranks = wilcoxon(gains)
    share = float(((sign * gains > 0) + (gains == 0) / 2).mean())
    return Effect(
        difference=mean,
        bounds=interval,
        error=error,
        units=units.count,
        p=chance.p,
        is_exact=chance.is_exact,
        noise=scores.noise[critic],
        wilcoxon=signed_ranks.p,
        shift=hodges_lehmann(gains),
        biserial=sign * signed_ranks.biserial,
        win_share=share,
        win_bounds=wilson(share, units.count, analysis.level),
        margin=margin,
        equivalence=None if margin is None or error is None else tost(mean, error, units.count, margin),
    )


def _with_family(
    effects: Sequence[Sequence[Effect | None]], scores: Scores, analysis: Analysis
) -> tuple[list[list[Effect | None]], int]:
    """The effects with p after Holm over all that are evidence, stars, and what can be detected in that family."""
    tested = {
        (system, critic): effect
        for system, row in enumerate(effects)
        for critic, effect in enumerate(row)
        if effect is not None and scores.counted[critic]
    }
    adjusted = holm(np.array([effect.p for effect in tested.values()])).tolist()
    found, alpha = [list(row) for row in effects], analysis.alpha
    for ((system, critic), effect), p in zip(tested.items(), adjusted, strict=True):
        found[system][critic] = replace(
            effect,
            holm=p,
            is_starred=p <= alpha and abs(effect.difference) > effect.noise,
            detectable=None if effect.error is None else detectable(effect.error, effect.units, alpha / len(tested)),
        )
    return found, len(tested)


def _rank_table(scores: Scores) -> tuple[tuple[float | None, ...], ...]:
    ranks = [_ranks(scores, critic) for critic in range(len(scores.labels))]
    means = [None if rows is None else rows.mean(axis=0).tolist() for rows in ranks]
    return tuple(tuple(None if m is None else m[s] for m in means) for s in range(len(scores.systems)))


def _ranks(scores: Scores, critic: int) -> Array | None:
    shown = scores.shown(critic)
    return ranked(shown) if len(shown) else None


def _rankings(
    scores: Scores, groups: NDArray[np.intp] | None, analysis: Analysis
) -> tuple[Friedman | None, Strengths | None]:
    """One ranking from all critics that are evidence: each image has one vote, divided among its critics."""
    systems, images = len(scores.systems), len(scores.keys)
    ranks, votes = np.zeros((images, systems)), np.zeros((images, systems, systems))
    critics = np.zeros(images)
    for critic, counted in enumerate(scores.counted):
        seen = scores.seen(critic)
        if counted and seen.any():
            shown = scores.shown(critic)
            ranks[seen] += ranked(shown)
            votes[seen] += votes_of(shown)
            critics[seen] += 1
    judged = critics > 0
    if not judged.any():
        return None, None
    ranks, votes = ranks[judged] / critics[judged, None], votes[judged] / critics[judged, None, None]
    chosen = None if groups is None else groups[judged]
    blocks = Units.of(ranks, chosen).means
    ballots = Units.of(votes.reshape(len(votes), -1), chosen).sums.reshape(-1, systems, systems)
    has_test = systems >= _FOR_CRITICAL_DIFFERENCE and len(blocks) > 1
    scale = strengths(ballots, seed=analysis.seed, level=analysis.level)
    return friedman(blocks, analysis.alpha) if has_test else None, scale


def _agreement(scores: Scores, analysis: Analysis) -> Agreement:
    order = {key: place for place, key in enumerate(scores.keys)}
    places = [(scores.systems.index(o.system), order[o.image]) for o in analysis.opinions]
    rows = scores.oriented[[s for s, _ in places], :, [i for _, i in places]].T
    by_critic = {}
    for label, row in zip(scores.labels, rows, strict=True):
        there = ~np.isnan(row)
        by_critic[label] = (there, row[there])
    units = [analysis.groups.get(opinion.image, opinion.image) for opinion in analysis.opinions]
    return agreement(by_critic, analysis.opinions, units, analysis.seed)
