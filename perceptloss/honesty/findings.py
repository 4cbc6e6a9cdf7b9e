"""What figures of an examination mean for a restorer that learns from the critic: sentences, and guards that help."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from perceptloss.honesty.examination import Examination

__all__ = ["FINDINGS", "Finding", "findings_of"]

ABOVE: Final = 0.1  # units that 2/255 may gain on a photograph
AWAY: Final = 0.25  # units that 8/255 may gain on an enlargement while PSNR does not rise
PATTERN: Final = 0.03  # units that a fixed pattern of 2/255 may gain, beyond grain of that size
GRAIN: Final = 0.05  # units that grain of 2/255 may gain
PEAK: Final = 4.0  # dB
PHASE: Final = 4.0  # dB
PUSH: Final = 3.0  # times as strong on flat patches as on pictures
DEAD: Final = 0.25  # of the pixels
FAINT: Final = 1e-3  # of the usual gradient
ORDER: Final = 0.9  # of the pairs of a ladder
REVERSED: Final = 0.5

_HINGE: Final = "`shape: hinge`, which pays for no more than the reference has"
_PAIR: Final = "pair it with a full-reference term or L1 that has the larger `share` of the gradient"
_LATE: Final = "a late `start` with a `ramp`"


@dataclass(frozen=True)
class Finding:
    """A hole in a critic: its name, what a restorer could do with it, and what helps."""

    name: str
    sentence: str
    guard: str


def findings_of(e: Examination) -> list[Finding]:
    """All that speaks against an examined critic, in the order of `FINDINGS`."""
    return [Finding(name, sentence, guard) for name, (look, guard) in _RULES.items() for sentence in look(e)]


def _not_finite(e: Examination) -> Iterator[str]:
    sizes = (zone.size for zone in e.zones.values())
    gains = (gain for attack in e.attacks.values() for row in attack.gain.values() for gain in row.values())
    if not e.flat.is_finite or any(map(math.isnan, (*sizes, *gains))):
        yield "Its score or gradient is NaN or infinite on flat, degraded or perfect images."


def _blind(e: Examination) -> Iterator[str]:
    if not e.unit:
        yield "It gives heavily degraded photographs the scores of the photographs: nothing can be learned from it."


def _above_truth(e: Examination) -> Iterator[str]:
    gain = e.attacks["truth"].best.get("2", 0.0)
    if gain > ABOVE:
        yield (
            f"A change of 2/255 that nobody sees raises a perfect photograph by {gain:.0%} of what lies between it "
            "and a wreck: a restorer is paid for going beyond the truth."
        )


def _away_from_truth(e: Examination) -> Iterator[str]:
    attack = e.attacks["restored"]
    bought = {s: gain for s, gain in attack.best.items() if gain > AWAY and attack.psnr[s] <= 0}
    if bought:
        strength, gain = max(bought.items(), key=lambda item: item[1])
        yield (
            f"A change of {strength}/255 raises an enlargement by {gain:.0%} of the range, and PSNR changes by "
            f"{attack.psnr[strength]:.2f} dB: the score can be had without restoring."
        )


def _grid(e: Examination) -> Iterator[str]:
    gain, which = e.strongest_pattern()
    if gain > PATTERN:
        yield f"A fixed pattern of 2/255 raises its score by {gain:.0%} of the range ({which}): it pays for a grid."
    peak, where = e.strongest_peak()
    if peak > PEAK:
        yield f"At {where} (cycles per pixel) its gradient stands {peak:.1f} dB above those beside: it asks for a grid."
    period, gap = max(e.phases.items(), key=lambda item: item[1], default=("", 0.0))
    if gap > PHASE:
        how = f"{gap:.1f} dB" if math.isfinite(gap) else "infinitely"
        yield (
            f"Its gradient is {how} stronger on one phase of every {period} pixels than on another: pixels are treated "
            "by their place, and training prints that as a grid and speckle."
        )


def _grain(e: Examination) -> Iterator[str]:
    start, gain = max(((s, row["all"]) for s, row in e.grain.items()), key=lambda pair: pair[1])
    if gain > GRAIN:
        where = "photographs" if start == "truth" else "enlargements"
        yield f"Random grain of 2/255 on {where} raises its score by {gain:.0%} of the range: noise passes for detail."


def _flat(e: Examination) -> Iterator[str]:
    if e.flat.push > PUSH:
        yield f"On flat patches its gradient is {e.flat.push:.1f} times as strong as on pictures: skies get texture."


def _dead_zone(e: Examination) -> Iterator[str]:
    dead = {name: zone for name, zone in e.zones.items() if zone.zero > DEAD or zone.size < FAINT}
    if dead:
        name, zone = max(dead.items(), key=lambda item: item[1].zero)
        what = f"no gradient at {zone.zero:.0%} of the pixels" if zone.zero > DEAD else "next to no gradient"
        more = f", and on {len(dead) - 1} other kinds" if len(dead) > 1 else ""
        yield f"On images of the kind {name!r} it sends {what}{more}: what is that bad is never mended by it."


def _reversed(e: Examination) -> Iterator[str]:
    wrong = [f"{name} {share:.0%}" for name, share in e.ladders.items() if share < REVERSED]
    if wrong:
        yield f"It prefers more damage to less; pairs of levels that are in order: {', '.join(wrong)}."


def _disorder(e: Examination) -> Iterator[str]:
    wrong = [f"{name} {share:.0%}" for name, share in e.ladders.items() if REVERSED <= share < ORDER]
    if wrong:
        yield f"It mixes up levels of damage; pairs that are in order: {', '.join(wrong)}."


def _pixelation(e: Examination) -> Iterator[str]:
    wrong = [f"by {factor}" for factor, gain in e.pixelation.items() if gain < 0]
    if wrong:
        yield f"Squares of pixels score better than smooth enlargement ({', '.join(wrong)}): staircases are paid for."


def _scale(e: Examination) -> Iterator[str]:
    wrong = [
        f"{name} {share:.0%}" for name, share in e.scale.items() if share < ORDER and share < e.ladders[name] - 0.05
    ]
    if wrong:
        yield f"At half the size it orders damage worse; pairs that are in order: {', '.join(wrong)}."


_RULES: Final[dict[str, tuple[Callable[[Examination], Iterator[str]], str]]] = {
    "not-finite": (_not_finite, "none: mend the critic (`on_nonfinite: skip` only leaves the step out)"),
    "blind": (_blind, "none: check its weights, its range of values and its direction"),
    "above-truth": (_above_truth, f"{_HINGE}, {_LATE}, a small `share`; judge by critics that were not trained on"),
    "away-from-truth": (_away_from_truth, f"{_PAIR}, {_LATE}; watch PSNR and a judge of another trunk"),
    "grid": (
        _grid,
        "`shift: 7` of the loss, a random one at each step, or a random `crop`: no phase of pixels is paid for twice",
    ),
    "grain": (_grain, f"{_HINGE}; {_PAIR}; watch the noise of flat areas"),
    "flat": (_flat, f"{_HINGE}; L1 beside it, which holds flat areas flat"),
    "dead-zone": (_dead_zone, f"{_LATE}, when outputs are no longer that bad; another term until then"),
    "reversed": (
        _reversed,
        "another term that sees this damage, or none of it in training; or `better` is wrong",
    ),
    "disorder": (_disorder, f"{_PAIR}, which sees this damage"),
    "pixelation": (_pixelation, "a full-reference term without that hole beside it, such as `mini-fr` or `ssim`"),
    "scale": (_scale, "train and judge at the size that it was made for"),
}
FINDINGS: Final = tuple(_RULES)
"""Names of all findings."""
