"""Critics that a system was trained on against those that only watched: is the gain one that others see?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.report.axes import Axis, Tick
from perceptloss.compare.results import Results
from perceptloss.compare.statistics.paired import codes_of
from perceptloss.compare.statistics.units import Units, bounds

__all__ = ["Gain", "Roles", "gains_of", "roles"]

WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 720, 250, 700, 26, 12
_ROUNDS: Final = 2000


@dataclass(frozen=True)
class Gain:
    """A system's gain on the baseline by one critic.

    Attributes:
        system: Its name.
        place: Its index.
        critic: Header of the critic.
        is_trained: Whether that was trained on.
        gain: In deviations of the baseline's own scores between images; above 0 is better.
        low: Lower end of its interval, or the gain itself without one.
        high: Upper end.
    """

    system: str
    place: int
    critic: str
    is_trained: bool
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Roles:
    """A drawing: a row for each gain, with its places on the axis.

    Attributes:
        rows: Gains, heights, and places of the ends and the middle.
        ticks: Round numbers.
        zero: Place of no gain.
        sentences: What the drawing shows.
    """

    rows: tuple[tuple[Gain, float, float, float, float], ...]
    ticks: list[Tick]
    zero: float
    sentences: tuple[str, ...]
    height: float
    width: int = WIDTH


def roles(results: Results, scores: Scores) -> Roles | None:
    """The drawing; None where a run declares no trained critic, or there is nothing to compare."""
    if all(scores.counted) or scores.base is None:
        return None
    found = gains_of(results, scores)
    if not found:
        return None
    axis = Axis.around([0.0, *(end for gain in found for end in (gain.low, gain.high))], _LEFT, _RIGHT)
    rows = tuple(
        (gain, _TOP + (n + 0.5) * _ROW, axis(gain.low), axis(gain.gain), axis(gain.high))
        for n, gain in enumerate(found)
    )
    said = []
    for name in dict.fromkeys(gain.system for gain in found):
        trained, watching = (
            [g.gain for g in found if g.system == name and g.is_trained is is_trained] for is_trained in (True, False)
        )
        if trained and watching:
            own, others = sum(trained) / len(trained), sum(watching) / len(watching)
            said.append(
                f"{name}: {_signed(own)} by the critics it was trained on, {_signed(others)} by the others, a gap of "
                f"{_signed(own - others)} deviations."
            )
    return Roles(rows, axis.ticks, axis(0.0), tuple(said), _TOP + len(found) * _ROW + 30)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def gains_of(results: Results, scores: Scores) -> list[Gain]:
    """Gains of all systems but the baseline, trained critics first."""
    assert scores.base is not None
    found = []
    groups = results.analysis.groups
    for system, name in enumerate(results.systems):
        for critic in sorted(range(len(results.critics)), key=lambda n: scores.counted[n]):
            effect = results.inference.effects[system][critic]
            if effect is None:
                continue
            kept = scores.complete(critic)
            base = scores.oriented[scores.base, critic, kept]
            spread = float(base.std()) or 1.0
            codes = codes_of(np.array([groups[k] for k in np.array(scores.keys)[kept]])) if groups else None
            units = Units.of(((scores.oriented[system, critic, kept] - base) / spread)[:, None], codes)
            ends = bounds(units, rounds=_ROUNDS, seed=results.analysis.seed, level=results.analysis.level)[0]
            gain = float(units.mean[0])
            low, high = (gain if end is None else end for end in (ends.low, ends.high))
            column = results.critics[critic]
            found.append(Gain(name, system, column.header, not column.is_evidence, gain, low, high))
    return found
