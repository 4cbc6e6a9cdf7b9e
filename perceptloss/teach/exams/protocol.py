"""How well a critic agrees with people: the figures of the field, each with its bootstrap interval.

    agreement = agree(pred, mos, contents=contents, families=families)
    print(agreement.to_markdown())
    bootstrap(partial(plcc, fit="logistic4"), pred, mos, groups=contents)

SRCC, KRCC, PLCC raw and after VQEG's logistic fits or the NTIRE challenges' cubic, error after a fit, pairs, order of
damage, and SRCC within quality bands, all from `perceptloss.compare.statistics`. Intervals resample contents, not
images: versions of one picture are no independent evidence, and intervals over images come out too narrow. Everything
is numpy; nothing here needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, get_args

import numpy as np

from perceptloss.card import Direction
from perceptloss.compare.statistics.bootstrap import Interval, bootstrap, evaluator, intervals
from perceptloss.compare.statistics.fits import FORMS
from perceptloss.compare.statistics.measures import (
    banded_srcc_by_counts,
    krcc,
    main_score,
    plcc,
    rmse,
    srcc,
    srcc_by_label,
)
from perceptloss.compare.statistics.paired import Array, Evaluate, ProtocolError, codes_of, labels, paired
from perceptloss.compare.statistics.pairs import PairWeight, pairwise_accuracy
from perceptloss.output.tables import markdown

__all__ = ["Agreement", "agree", "cross_table"]

Scores: TypeAlias = Mapping[str, Mapping[str, tuple[object, object]]]

_MEASURES: dict[str, Callable[..., float]] = {
    "SRCC": srcc,
    "KRCC": krcc,
    "PLCC": plcc,
    **{f"PLCC, {form}": partial(plcc, fit=form) for form in FORMS},
    "RMSE, logistic4": partial(rmse, fit="logistic4"),
    "main score": main_score,
    "main score, poly3": partial(main_score, fit="poly3"),
}


@dataclass(frozen=True)
class Agreement:
    """Agreement of one critic with the labels of one set; `figures` has everything, in the order of the table.

    Attributes:
        count: Number of images.
        contents: Number of contents that were resampled; None if images were.
        figures: Interval of each measure; a fit stands behind a comma. Signs are such that agreement is positive.
        bands: SRCC within quality bands, lowest quality first.
        families: SRCC within each family of distortions.
        rounds: Resamples of each interval.
        level: Probability that an interval covers.
        seed: Seed of the draws.
    """

    count: int
    contents: int | None
    figures: Mapping[str, Interval]
    bands: tuple[Interval, ...]
    families: Mapping[str, Interval]
    rounds: int
    level: float
    seed: int

    @property
    def srcc(self) -> Interval:
        """Spearman's rank correlation."""
        return self.figures["SRCC"]

    @property
    def plcc(self) -> Interval:
        """Pearson's linear correlation without a fit."""
        return self.figures["PLCC"]

    @property
    def krcc(self) -> Interval:
        """Kendall's tau-b."""
        return self.figures["KRCC"]

    def to_markdown(self) -> str:
        """A table of all figures, and how they were made; ends in a new line."""
        rows = list(self.figures.items())
        rows += [(f"SRCC, quality band {n} of {len(self.bands)}", band) for n, band in enumerate(self.bands, 1)]
        rows += [(f"SRCC, {family}", interval) for family, interval in self.families.items()]
        over = "images" if self.contents is None else f"{self.contents} contents"
        note = f"n = {self.count}; {self.level:.0%} percentile intervals, {over} resampled {self.rounds} times"
        return markdown(["measure", "value"], [[name, str(interval)] for name, interval in rows]) + f"\n{note}\n"


def agree(
    pred: object,
    mos: object,
    *,
    contents: object | None = None,
    families: object | None = None,
    better: Direction = "higher",
    bands: int = 4,
    elo: bool = False,
    min_gap: float = 0.0,
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Agreement:
    """Every figure of the protocol for one critic on one set, from the same resamples.

    Args:
        pred: Scores of the critic, (n,), in natural units.
        mos: Labels, (n,), higher is better (turn DMOS first).
        contents: Content of each image, (n,): what is resampled, and within which pairs are formed.
        families: Family of each image's distortion, (n,).
        better: Direction of the critic's scores, as on its card.
        bands: Number of quality bands; 0 leaves them out, for labels of few levels.
        elo: Labels are Elo ratings: adds pairs weighted by how sure people are.
        min_gap: Smallest difference of labels in a pair.
        rounds: Resamples.
        seed: Seed of the draws.
        level: Probability that an interval covers.

    Raises:
        ProtocolError: if a figure is not defined, with what to do.
    """
    x, y = _oriented(pred, mos, better)
    named = {name: evaluator(measure, x, y) for name, measure in _MEASURES.items()}
    for weight in get_args(PairWeight)[: 2 if elo else 1]:
        options: dict[str, Any] = {"groups": contents, "min_gap": min_gap, "weight": weight}
        named[f"pairs, {weight} weights"] = evaluator(partial(pairwise_accuracy, **options), x, y)
    figures = list(named)
    parts: list[Evaluate] = banded_srcc_by_counts(x, y, bands) if bands else []
    kinds = {} if families is None else srcc_by_label(x, y, families)
    named |= {f"band {number}": part for number, part in enumerate(parts, 1)}
    named |= {f"family {kind}": part for kind, part in kinds.items()}
    found = intervals(named, x.size, groups=contents, rounds=rounds, seed=seed, level=level)
    return Agreement(
        count=x.size,
        contents=None if contents is None else _distinct(contents, x.size),
        figures={name: found[name] for name in figures},
        bands=tuple(found[f"band {number}"] for number in range(1, len(parts) + 1)),
        families={kind: found[f"family {kind}"] for kind in kinds},
        rounds=rounds,
        level=level,
        seed=seed,
    )


def cross_table(
    scores: Scores,
    *,
    measure: Callable[..., float] = srcc,
    name: str = "SRCC",
    better: Mapping[str, Direction] | None = None,
    contents: Mapping[str, object] | None = None,
    rounds: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> str:
    """One measure of several critics on several sets, as Markdown; ends in a new line.

    Args:
        scores: Critic to set to (predictions, labels). A set that a critic lacks is shown as a dash.
        measure: A function of the protocol; `functools.partial` for options.
        name: What the measure is called, with its fit.
        better: Direction of the critics whose lower scores are better; others are higher-better.
        contents: Content of each image by set; sets without it resample images.
        rounds: Resamples of each cell.
        seed: Seed of the draws; critics of one set get the same.
        level: Probability that an interval covers.

    Raises:
        ProtocolError: naming the cell that is not defined, or sets whose labels differ between critics.
    """
    sets = list(dict.fromkeys(name for row in scores.values() for name in row))
    counts = {name: _same_labels(name, scores) for name in sets}
    rows = []
    for critic, row in scores.items():
        cells = [critic]
        for data in sets:
            if data not in row:
                cells.append("—")
                continue
            try:
                x, y = _oriented(*row[data], (better or {}).get(critic, "higher"))
                groups = (contents or {}).get(data)
                cells.append(str(bootstrap(measure, x, y, groups=groups, rounds=rounds, seed=seed, level=level)))
            except ProtocolError as error:
                raise ProtocolError(f"{critic} on {data}: {error}") from None
        rows.append(cells)
    over = [data for data in sets if data in (contents or {})]
    resampled = f"contents resampled ({', '.join(over)})" if over else "images resampled"
    if 0 < len(over) < len(sets):
        resampled += ", images elsewhere"
    note = f"{name} with {level:.0%} percentile intervals, {resampled}, {rounds} rounds"
    return markdown(["critic", *(f"{data} (n = {counts[data]})" for data in sets)], rows) + f"\n{note}\n"


def _oriented(pred: object, mos: object, better: Direction) -> tuple[Array, Array]:
    if better not in get_args(Direction):
        raise ProtocolError(f"better must be 'higher' or 'lower', got {better!r}.")
    x, y = paired(pred, mos)
    return (x if better == "higher" else -x), y


def _distinct(contents: object, count: int) -> int:
    return int(codes_of(labels(contents, count, "contents")).max()) + 1


def _same_labels(data: str, scores: Scores) -> int:
    """Number of images of a set; its labels must be those of every critic, or a column compares nothing."""
    given = {critic: np.asarray(row[data][1]) for critic, row in scores.items() if data in row}
    (first, expected), *others = given.items()
    different = [critic for critic, found in others if not np.array_equal(found, expected)]
    if different:
        raise ProtocolError(
            f"{data}: labels of {', '.join(different)} are not those of {first}. "
            "Score the same images in the same order."
        )
    return int(expected.size)
