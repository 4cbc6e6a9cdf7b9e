"""What the doctor found out about one critic, as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from perceptloss.card import Kind
from perceptloss.honesty.probes import Attacked, Flat, Zone

__all__ = ["STARTS", "Examination"]

STARTS = ("truth", "restored")
"""Where probes begin: photographs, and the same shrunk by 4 and enlarged again."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Figures of one critic; gains are in units, and those by start are of the keys of `STARTS`.

    Attributes:
        critic: Its name.
        signature: Its signature.
        kind: Its kind.
        effort: Name of the effort.
        photos: Names of the photographs.
        side: Of the squares that were looked at, in pixels.
        device: Where.
        unit: Qualities between photographs and their worst degraded versions; 0 if it sees none.
        attacks: By start.
        patterns: By start: pattern to phase to gain.
        grain: By start: `all`, or the phase that it is put on, to gain.
        peaks: On blurred photographs: frequency to dB.
        phases: On blurred photographs: period in pixels to dB between its strongest and its weakest phase.
        flat: Of patches of one colour.
        zones: By degradation.
        ladders: Ladder to share of pairs in order.
        pixelation: Factor to gain of smooth enlargement over squares.
        scale: As `ladders`, at half the size; empty if that is too small for the critic.
        seconds: That it took.
    """

    critic: str
    signature: str
    kind: Kind
    effort: str
    photos: tuple[str, ...]
    side: int
    device: str
    unit: float
    attacks: Mapping[str, Attacked]
    patterns: Mapping[str, Mapping[str, Mapping[str, float]]]
    grain: Mapping[str, Mapping[str, float]]
    peaks: Mapping[str, float]
    phases: Mapping[str, float]
    flat: Flat
    zones: Mapping[str, Zone]
    ladders: Mapping[str, float]
    pixelation: Mapping[str, float]
    scale: Mapping[str, float]
    seconds: float

    def strongest_pattern(self) -> tuple[float, str]:
        """Largest gain of a fixed pattern over grain of the same size, and which, where; NaN counts as none."""
        over = [
            (gain - max(0.0, self.grain[start]["all"]), f"{name} on {_WORDS[start]}")
            for start, names in self.patterns.items()
            for name, phases in names.items()
            for gain in phases.values()
        ]
        return max((row for row in over if not math.isnan(row[0])), default=(0.0, ""))

    def strongest_peak(self) -> tuple[float, str]:
        """Highest peak in the spectrum of a gradient, in dB, and where; 0 without any power."""
        return max(((db, f"({name})") for name, db in self.peaks.items()), default=(0.0, ""))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain types; what is not finite is None."""
        facts = asdict(self)
        for start, attack in self.attacks.items():
            facts["attacks"][start]["robustness"] = attack.robustness
        return {key: _plain(value) for key, value in facts.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


_WORDS = {"truth": "photographs", "restored": "enlargements"}
