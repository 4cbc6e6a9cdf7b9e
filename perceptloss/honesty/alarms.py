"""Alarms: signs in the validations of a training that its critics are deceived.

None of them proves anything alone. Each has a limit that honest runs keep, says since when it rings, and what helps.
After Goodhart's law as measured for learned rewards (Gao, Schulman, Hilton, "Scaling Laws for Reward Model
Overoptimization", ICML 2023): the score that is optimised goes on rising when what it stands for has begun to fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from perceptloss.honesty.content import TOLERANCES, Content, excesses, mean
from perceptloss.honesty.history import History, Scores, Validation, Watched, spread

__all__ = ["Alarm", "Limits", "content_of", "raised"]

_MONOTONE: Final = 0.6  # Kendall's tau with time from which a row of means rises or falls; of four, one pair may not


@dataclass(frozen=True)
class Limits:
    """What alarms allow.

    Attributes:
        window: Validations over which trends are seen.
        change: Least change over the window that is a trend, as a share of the score.
        above_truth: Largest share of outputs that a critic without reference puts above their ground truth. At its
            best a restorer is taken for the truth half of the time.
        margin: By how much, in standard deviations of the critic's scores at the first validation.
        mirror: Largest mean difference between the scores of an image and its mirror image, in the same units, unless
            it is less than twice that of the ground truth. People see none; a pattern that deceives has a place.
        anchors: Largest fall of a learning critic's rank correlation on its anchors.
        collapse: Least spread of a critic's scores, as a share of that at the first validation.
    """

    window: int = 4
    change: float = 0.005
    above_truth: float = 0.7
    margin: float = 0.05
    mirror: float = 0.5
    anchors: float = 0.01
    collapse: float = 0.1


@dataclass(frozen=True)
class Alarm:
    """Something that should not be.

    Attributes:
        name: Of the alarm.
        about: The critic or the figure that it is about.
        seen: What was seen.
        limit: What would have been fine.
        since: First step from which it has been so at every validation.
        advice: What to do.
        from_start: Whether it was so, or worse, before any critic had a say: then it is told, but not reacted to.
    """

    name: str
    about: str
    seen: str
    limit: str
    since: int
    advice: str
    from_start: bool = False

    def __str__(self) -> str:
        since = "as the start, or less" if self.from_start else f"since step {self.since}"
        return f"{self.name}, {self.about}: {self.seen} (limit: {self.limit}) {since}; {self.advice}"


def raised(history: History, limits: Limits | None = None) -> list[Alarm]:
    """The alarms that ring at the last validation of a history."""
    limits = limits or Limits()
    ringing: dict[tuple[str, str], Alarm] = {}
    lasting: set[tuple[str, str]] = set()
    for age, past in enumerate(history.prefixes()):
        found = {(alarm.name, alarm.about): alarm for check in _CHECKS for alarm in check(past, limits)}
        if age == 0:
            ringing, lasting = found, set(found)
            continue
        lasting &= set(found)
        if not lasting:
            break
        for key in lasting:
            ringing[key] = _earlier(ringing[key], past.validations[-1].step)
    return list(ringing.values())


def _earlier(alarm: Alarm, step: int) -> Alarm:
    return replace(alarm, since=step)


# --- checks: each looks at the end of a history ---------------------------------------------------


def _not_finite(history: History, limits: Limits) -> Iterator[Alarm]:
    last = history.validations[-1]
    lost = sum(sight.content is None for sight in last.sights)
    if lost:
        yield Alarm(
            "not finite",
            "outputs",
            f"{lost} of {len(last.sights)} images have pixels that are NaN or infinite",
            "none",
            last.step,
            "lower the learning rate, or go back to an earlier checkpoint",
        )


def _divided(history: History, limits: Limits) -> Iterator[Alarm]:
    """A critic goes up while most judges go down."""
    window = history.validations[-limits.window :]
    if len(window) < limits.window:
        return
    trends = [_trend(judge, window, limits.change) for judge in history.those("judge")]
    known = [trend for trend in trends if trend is not None]
    falling = sum(trend < 0 for trend in known)
    if not known or falling <= len(known) / 2:
        return
    for critic in history.those("trained"):
        if (_trend(critic, window, limits.change) or 0) > 0:
            yield Alarm(
                "critic up, judges down",
                critic.label,
                f"it got better over the last {limits.window} validations, while {falling} of {len(known)} judges fell",
                "no more than half of the judges",
                window[-1].step,
                "take the weights of the validation before, and lower this critic's weight, or give it a hinge",
            )


def _trend(critic: Watched, window: Sequence[Validation], least: float) -> int | None:
    """1 if a critic's mean gets better over the window, -1 if worse, 0 if neither; None if it is not known."""
    means = [validation.means.get(critic.label) for validation in window]
    values = [value for value in means if value is not None and math.isfinite(value)]
    if len(values) < len(window):
        return None
    gains = [critic.gain(old, new) for old, new in combinations(values, 2)]
    tau = sum((gain > 0) - (gain < 0) for gain in gains) / len(gains)
    change = critic.gain(values[0], values[-1])
    if abs(tau) < _MONOTONE or abs(change) < least * abs(values[0]) or change * tau <= 0:
        return 0
    return 1 if tau > 0 else -1


def _above_truth(history: History, limits: Limits) -> Iterator[Alarm]:
    last = history.validations[-1]
    for critic in history.those("trained"):
        margin = limits.margin * _usual(history, critic)
        gains = [critic.gain(*pair) for pair in _both(last, critic, "truth", "output")]
        above = sum(gain > margin for gain in gains)
        if gains and above > limits.above_truth * len(gains):
            yield Alarm(
                "above the ground truth",
                critic.label,
                f"it prefers {above} of {len(gains)} outputs to their ground truth",
                f"{limits.above_truth:.0%} of them",
                last.step,
                "give its term the shape 'hinge', which stops at the ground truth's score, or lower its weight",
            )


def _mirror(history: History, limits: Limits) -> Iterator[Alarm]:
    last = history.validations[-1]
    for critic in history.those("trained"):
        turn, own = (
            _mean_of(abs(one - other) for one, other in _both(last, critic, image, mirrored))
            for image, mirrored in (("output", "mirrored"), ("truth", "truth_mirrored"))
        )
        usual = _usual(history, critic)
        if usual and turn > max(limits.mirror * usual, 2 * own):
            yield Alarm(
                "mirror",
                critic.label,
                f"mirrored outputs score otherwise by {turn / usual:.2f} of its standard deviation",
                f"{limits.mirror:g}",
                last.step,
                "mirror the pair at random each step, as `flips` of the data does, or lower its weight",
            )


def _both(validation: Validation, critic: Watched, one: str, other: str) -> list[tuple[float, float]]:
    """Two of a trained critic's scores of each image that has both."""
    pairs = [(getattr(scores, one), getattr(scores, other)) for scores in validation.of(critic.label)]
    return [pair for pair in pairs if None not in pair]


def _usual(history: History, critic: Watched) -> float:
    """Standard deviation of what a critic said of outputs and ground truths at the first validation."""
    pairs = [
        (one.output, critic.identity if critic.needs_reference else one.truth)
        for one in history.validations[0].of(critic.label)
    ]
    return spread([score for pair in pairs for score in pair])


def _mean_of(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else 0.0


def _anchors(history: History, limits: Limits) -> Iterator[Alarm]:
    last = history.validations[-1]
    for label, now in last.anchors.items():
        start = next(past.anchors[label] for past in history.validations if label in past.anchors)
        if not now >= start - limits.anchors:
            yield Alarm(
                "anchors",
                label,
                f"its rank correlation with the anchors' labels fell from {start:.3f} to {now:.3f}",
                f"{limits.anchors:g} below its start",
                last.step,
                "raise the share of anchor batches or the pull to its frozen twin, or lower its learning rate",
            )


def _collapse(history: History, limits: Limits) -> Iterator[Alarm]:
    first, last = history.validations[0], history.validations[-1]
    for critic in history.those("trained"):
        start, now = (_relative_spread(critic, validation.of(critic.label)) for validation in (first, last))
        if start and now is not None and now < limits.collapse * start:
            yield Alarm(
                "spread",
                critic.label,
                f"its scores of different images differ by {now / start:.1%} of what they did at first",
                f"{limits.collapse:.0%}",
                last.step,
                "it no longer tells images apart: lower its weight, or go back to an earlier state of it",
            )


def _relative_spread(critic: Watched, scores: Sequence[Scores]) -> float | None:
    """Spread of the scores of outputs; for a critic that compares, in units of their mean distance from the best.

    An honest restorer brings all distances down together, and their spread with them.
    """
    found = [one.output for one in scores if one.output is not None]
    if len(found) < 2:
        return None
    if not critic.needs_reference:
        return spread(found)
    if critic.identity is None:
        return None
    distance = abs(_mean_of(found) - critic.identity)
    return spread(found) / distance if distance else None


def _content(history: History, limits: Limits) -> Iterator[Alarm]:
    last, before = history.validations[-1], history.before
    content, start = content_of(last), None if before is None else content_of(before)
    for name, value in excesses(content).items() if content else ():
        tolerance = TOLERANCES[name]
        yield Alarm(
            "content",
            name.replace("_", " "),
            f"{value:.3g} {tolerance.unit}",
            str(tolerance),
            last.step,
            tolerance.cure,
            start is not None and tolerance.excess(value) <= tolerance.excess(getattr(start, name)),
        )


def content_of(validation: Validation) -> Content | None:
    """Mean figures of the content of a validation's images; None if none is finite."""
    found = [sight.content for sight in validation.sights if sight.content is not None]
    return mean(found) if found else None


_CHECKS: Final[tuple[Callable[[History, Limits], Iterator[Alarm]], ...]] = (
    *(_not_finite, _divided, _above_truth, _mirror, _anchors, _collapse, _content),
)
