"""What judges of whole sets said of systems: scores, what a reader must know of them, and their table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from perceptloss.compare.shown import Section, number, signed_number
from perceptloss.compare.shown import decimals as digits_of

__all__ = ["SetScore", "remarks", "set_section", "unfit_sets"]

_INTERVALS: Final = (
    "intervals: basic bootstrap over images, all systems by the same draws; it takes off what few images add, "
    "so that a distance may lie outside its own"
)
_USUAL: Final = 10_000  # images of published scores, at least


@dataclass(frozen=True)
class SetScore:
    """What a judge says of a system's outputs; lower is better, 0 is the least.

    Attributes:
        judge: `fid`, `kid` or `cmmd`.
        system: Name.
        value: The distance of its outputs from the references.
        low: Of the 95 % interval over images, by the basic bootstrap.
        high: Likewise.
        change: Difference to the baseline; None for the baseline itself.
        change_low: Of its interval, over the same resamples.
        change_high: Likewise.
        images: How many there are.
        features: Length of the feature vectors.
    """

    judge: str
    system: str
    value: float
    low: float
    high: float
    change: float | None
    change_low: float | None
    change_high: float | None
    images: int
    features: int


def unfit_sets(scores: Sequence[SetScore], systems: Collection[str]) -> Iterator[str]:
    """What is wrong with scores that were read: systems that are none, numbers that are none."""
    for score in scores:
        if score.system not in systems:
            yield f"{score.judge} is of {score.system!r}, which is not one of {', '.join(systems)}"
        numbers = (score.value, score.low, score.high)
        if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            yield f"{score.judge} of {score.system!r} must be finite numbers, got {', '.join(map(repr, numbers))}"


def remarks(scores: Sequence[SetScore]) -> list[str]:
    """What a reader must know of the sizes of the sets."""
    said = []
    for judge in dict.fromkeys(score.judge for score in scores):
        score = next(score for score in scores if score.judge == judge)
        n = score.images
        if judge == "fid" and n <= score.features:
            said.append(
                f"fid: {n} images cannot fill a covariance of {score.features} features; the distance is too large, "
                "the more so the fewer images there are. Compare systems on equal sets only, or read kid"
            )
        elif judge == "fid" and n < _USUAL:
            said.append(f"fid: {n} images; published scores are of {_USUAL} and more, and fall as images are added")
        elif judge == "cmmd" and n < 1000:
            said.append(f"cmmd: {n} images; below some thousands it is too large, by about 1 / n")
        elif judge == "kid" and n < 100:
            said.append(f"kid: {n} images; unbiased, so that it may be below 0, but its interval is wide")
    return said


def set_section(scores: Sequence[SetScore]) -> Section:
    """A table of the scores, a row for each judge and system, and the remarks under it."""
    header = ("set judge", "system", "distance ↓", "95 % interval", "to the baseline", "95 % interval", "images")
    rows = []
    for score in scores:
        column = [other.value for other in scores if other.judge == score.judge]
        digits = digits_of(column)
        low, high = (number(end, column) for end in (score.low, score.high))
        change = ("", "")
        if score.change is not None and score.change_low is not None and score.change_high is not None:
            ends = (signed_number(end, digits) for end in (score.change_low, score.change_high))
            change = signed_number(score.change, digits), " … ".join(ends)
        rows.append(
            (score.judge, score.system, number(score.value, column), f"{low} … {high}", *change, str(score.images))
        )
    notes = (*remarks(scores), _INTERVALS)
    return Section("distance of all outputs, as a set, from the references", header, tuple(rows), notes)
