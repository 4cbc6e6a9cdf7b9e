"""The perception-distortion plane: two critics as axes, systems as points, better towards the lower left.

After Blau and Michaeli, "The Perception-Distortion Tradeoff", CVPR 2018: what only slides along the front has traded
one for the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.columns import Column
from perceptloss.compare.report.axes import Axis, Tick, path_of
from perceptloss.compare.results import Results
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.units import Units

__all__ = ["Plane", "Point", "planes"]

WIDTH, HEIGHT = 560, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, WIDTH - 90, 16, HEIGHT - 48
_MOST: Final = 12  # pairs of critics that are drawn
_ROUNDS: Final = 1000
_CORNERS: Final = 48


@dataclass(frozen=True)
class Point:
    """A system: where it stands, its number, and the path of its ellipse; that is empty for a single unit."""

    name: str
    place: int
    x: float
    y: float
    ellipse: str
    is_best: bool


@dataclass(frozen=True)
class Plane:
    """A drawing.

    Attributes:
        label: Of both critics.
        across: Header of the critic below.
        up: Header of the one beside.
        points: Systems.
        front: Path of the Pareto line.
        x_ticks: Round numbers below.
        y_ticks: Round numbers beside.
    """

    label: str
    across: str
    up: str
    points: tuple[Point, ...]
    front: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    width: int = WIDTH
    height: int = HEIGHT


def planes(results: Results, scores: Scores) -> Iterator[Plane]:
    """A drawing of each pair of critics: first of fidelity or full reference against judges without reference."""
    order = sorted(range(len(results.critics)), key=lambda n: _fidelity(results.critics[n]), reverse=True)
    pairs = sorted(combinations(order, 2), key=lambda p: _contrast(results.critics, *p), reverse=True)
    for across, up in pairs[:_MOST]:
        if (plane := _plane(results, scores, across, up)) is not None:
            yield plane


def _fidelity(column: Column) -> int:
    """How much a critic says of the pixels and how little of the looks: 2 for PSNR and SSIM, 0 without a reference."""
    if not str(column.card.get("kind", "")).endswith("fr"):
        return 0
    return 1 if column.card.get("weights") else 2


def _contrast(columns: Sequence[Column], a: int, b: int) -> int:
    return abs(_fidelity(columns[a]) - _fidelity(columns[b]))


def _plane(results: Results, scores: Scores, across: int, up: int) -> Plane | None:
    kept = scores.complete(across) & scores.complete(up)
    alive = [s for s in scores.alive(across) if s in scores.alive(up)]
    if not kept.any() or not alive:
        return None
    groups = results.analysis.groups
    codes = codes_of(np.array([groups[key] for key in np.array(scores.keys)[kept]])) if groups else None
    table = scores.values[alive][:, [across, up]][:, :, kept]  # (systems, 2, images)
    units = Units.of(table.reshape(2 * len(alive), -1).T, codes)
    means = units.mean.reshape(-1, 2)
    rings = _rings(units, means, results.analysis.level) if units.count > 1 else [None] * len(alive)
    corners = np.concatenate([means, *(ring for ring in rings if ring is not None)])
    higher = [scores.higher_better[n] for n in (across, up)]
    x = Axis.around(corners[:, 0].tolist(), *((_RIGHT, _LEFT) if higher[0] else (_LEFT, _RIGHT)))
    y = Axis.around(corners[:, 1].tolist(), *((_TOP, _BOTTOM) if higher[1] else (_BOTTOM, _TOP)))
    signs = np.where(higher, -1.0, 1.0)
    best = [not any(_is_ahead(signs * other, signs * own) for other in means) for own in means]
    points = tuple(
        Point(
            results.systems[s],
            s,
            x(float(own[0])),
            y(float(own[1])),
            "" if ring is None else path_of(((x(a), y(b)) for a, b in ring.tolist()), closed=True),
            is_best,
        )
        for s, own, ring, is_best in zip(alive, means, rings, best, strict=True)
    )
    headers = [results.critics[n].header for n in (across, up)]
    return Plane(" × ".join(headers), headers[0], headers[1], points, _front(points), x.ticks, y.ticks)


def _is_ahead(other: Array, own: Array) -> bool:
    return bool((other <= own).all() and (other < own).any())


def _rings(units: Units, means: Array, level: float) -> list[Array | None]:
    """Corners of the ellipse around each pair of means, from the covariance of resampled ones."""
    drawn = units.drawn(_ROUNDS, 0).reshape(_ROUNDS, -1, 2)
    radius = math.sqrt(-2 * math.log(1 - level))
    turn = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    circle = radius * np.stack([np.cos(turn), np.sin(turn)])
    found: list[Array | None] = []
    for n, mean in enumerate(means):
        values, vectors = np.linalg.eigh(np.cov(drawn[:, n].T))
        found.append(mean + (vectors * np.sqrt(np.maximum(values, 0)) @ circle).T)
    return found


def _front(points: Sequence[Point]) -> str:
    """Steps through the systems that none is better than in both, from the left to the right."""
    front = sorted((p.x, p.y) for p in points if p.is_best)
    if not front:
        return ""
    steps = [(front[0][0], float(_TOP)), front[0]]
    for (_, above), (right, below) in pairwise(front):
        steps += [(right, above), (right, below)]
    return path_of([*steps, (float(_RIGHT), front[-1][1])])
