"""What a training does about alarms, as a pure function of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from perceptloss.errors import DeceivedCritics, points
from perceptloss.honesty.alarms import Alarm

__all__ = ["Reaction", "Verdict", "decide"]

Reaction = Literal["warn", "stop", "freeze", "anneal"]
_ANNEAL: Final = 0.5


@dataclass(frozen=True)
class Verdict:
    """What a training loop must do.

    Attributes:
        factor: To multiply the weights of all critics with from now on: 1, or less.
        alarms: Why.
    """

    factor: float
    alarms: tuple[Alarm, ...]


def decide(alarms: Iterable[Alarm], reaction: Reaction = "warn", factor: float = 1.0) -> Verdict:
    """What follows from the alarms of a validation.

    Args:
        alarms: All that ring.
        reaction: `warn` changes nothing; `stop` ends the run; `freeze` takes the critics out for good, so that fidelity
            alone goes on; `anneal` halves their weights at every validation at which an alarm rings.
        factor: Of the last verdict.

    Raises:
        DeceivedCritics: if something rings and the reaction is to stop.
    """
    alarms = tuple(alarms)
    new = [str(alarm) for alarm in alarms if not alarm.from_start]
    if new and reaction == "stop":
        raise DeceivedCritics(
            f"stopped, because the critics may be deceived:\n{points(new)}\n"
            "Look at the images of the last validation. To go on all the same: reaction 'warn', 'anneal' or 'freeze'."
        )
    if new and reaction == "freeze":
        factor = 0.0
    if new and reaction == "anneal":
        factor *= _ANNEAL
    return Verdict(factor, alarms)
