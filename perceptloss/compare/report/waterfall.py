"""Differences to the baseline, image by image, sorted: whether a mean is that of a few images or of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.report.axes import Axis, Tick, place
from perceptloss.compare.results import Results
from perceptloss.compare.shown import signed

__all__ = ["Link", "Waterfall", "waterfalls"]

WIDTH, HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, WIDTH - 8, 10, HEIGHT - 12


@dataclass(frozen=True)
class Link:
    """A bar that leads to an image of the report."""

    key: str
    number: int
    x: float
    width: float


@dataclass(frozen=True)
class Waterfall:
    """A drawing.

    Attributes:
        label: Critic and system.
        caption: A sentence.
        gains: Path of the bars for the better.
        losses: Of those for the worse.
        order: Indices of the images from left to right.
        critic: Index.
        system: Index.
        bar: Width of a bar.
        zero: Height of no difference.
        mean: Height of the mean.
        band: Heights of the ends of its interval; None without one.
        ticks: Round numbers.
        links: Bars whose images are in the report.
    """

    label: str
    caption: str
    gains: str
    losses: str
    order: tuple[int, ...]
    critic: int
    system: int
    bar: float
    zero: float
    mean: float
    band: tuple[float, float] | None
    ticks: list[Tick]
    links: tuple[Link, ...]
    left: int = _LEFT
    right: int = _RIGHT
    width: int = WIDTH
    height: int = HEIGHT


def waterfalls(results: Results, scores: Scores, shown: Mapping[str, int]) -> Iterator[Waterfall]:
    """A drawing of each system against the baseline by each critic.

    Args:
        results: The scores.
        scores: The same as arrays.
        shown: Place in the report of each image that is shown there, by key.
    """
    for critic in range(len(results.critics)):
        for system in range(len(results.systems)):
            if results.inference.effects[system][critic] is not None:
                yield _waterfall(results, scores, shown, critic, system)


def _waterfall(results: Results, scores: Scores, shown: Mapping[str, int], critic: int, system: int) -> Waterfall:
    effect, column = results.inference.effects[system][critic], results.critics[critic]
    assert effect is not None and scores.base is not None
    kept = np.flatnonzero(scores.complete(critic))
    differences = scores.values[system, critic, kept] - scores.values[scores.base, critic, kept]
    sign = 1 if column.is_higher_better else -1
    ranking = np.argsort(sign * differences, kind="stable")
    values, order = differences[ranking].tolist(), kept[ranking].tolist()
    ends = [] if effect.bounds.low is None or effect.bounds.high is None else [effect.bounds.low, effect.bounds.high]
    y = Axis.around([0.0, *values, *ends], _BOTTOM, _TOP)
    bar = (_RIGHT - _LEFT) / len(values)
    better, worse = int((sign * differences > 0).sum()), int((sign * differences < 0).sum())
    name, base = results.systems[system], results.baseline
    caption = (
        f"{name} less {base} by {column.header}: mean {signed(effect.difference, effect.bounds, [effect.difference])}; "
        f"better on {better}, worse on {worse} and equal on {len(values) - better - worse} of {len(values)} images."
    )
    links = tuple(
        Link(key, shown[key], place(_LEFT + n * bar), max(place(bar), 0.1))
        for n, image in enumerate(order)
        if (key := results.images[image].key) in shown
    )
    return Waterfall(
        f"{name}: {column.header}",
        caption,
        _bars([(n, v) for n, v in enumerate(values) if sign * v > 0], bar, y),
        _bars([(n, v) for n, v in enumerate(values) if sign * v < 0], bar, y),
        tuple(order),
        critic,
        system,
        place(bar) or 0.1,
        y(0.0),
        y(effect.difference),
        (y(ends[1]), y(ends[0])) if ends else None,
        y.ticks,
        links,
    )


def _bars(bars: list[tuple[int, float]], width: float, y: Axis) -> str:
    """A path of upright strokes from no difference to each value."""
    return "".join(f"M{place(_LEFT + (n + 0.5) * width):g} {y(0.0):g}V{y(value):g}" for n, value in bars)
