"""The doctor's questions to a critic, each a function of a `Subject`; what the answers mean is in `findings`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.honesty.attacks import ATTACKS, pgd
from perceptloss.honesty.ladders import LADDERS, degraded, pixelated
from perceptloss.honesty.subject import Effort, Subject

__all__ = [
    *("Attacked", "Flat", "Zone", "attacked", "dead_zones", "flat_patches", "grain", "ladders", "patterns"),
    *("pixelation", "scale"),
]

_BY: Final = 2 / 255  # what patterns and grain change a pixel by
_FLAT: Final = ((0.25,) * 3, (0.5,) * 3, (0.75,) * 3, (0.35, 0.5, 0.6))
_MARGIN: Final = 4  # parts of a side at its ends where borders may show
_NOTHING: Final = 1e-6  # of the root mean square of a gradient: zero


@dataclass(frozen=True)
class Attacked:
    """What attacks gain from one kind of start.

    Attributes:
        gain: Attack to strength in 1/255 to the mean rise of the quality, in units.
        psnr: Strength to the change of PSNR by the strongest attack, in dB; empty where it begins at the truth.
        integral: Mean over strengths, from 0 on, of the strongest attack's gain; no less than 0.
    """

    gain: dict[str, dict[str, float]]
    psnr: dict[str, float]
    integral: float

    @property
    def best(self) -> dict[str, float]:
        """Strength to the strongest attack's gain."""
        return {
            strength: max(row[strength] for row in self.gain.values()) for strength in next(iter(self.gain.values()))
        }

    @property
    def robustness(self) -> float:
        """1 / (1 + integral): 1 where no attack gains anything, 1/2 where they gain a unit on the mean."""
        return 1 / (1 + self.integral)


@dataclass(frozen=True)
class Flat:
    """The gradient on patches of one colour.

    Attributes:
        is_finite: Whether it is, with the patch as reference and with another one.
        push: Its root mean square away from borders, by that on restored photographs, of the worst colour.
        pattern: Part of it that is not the same for all pixels, by all of it.
    """

    is_finite: bool
    push: float
    pattern: float


@dataclass(frozen=True)
class Zone:
    """The gradient on a degraded image: pixels without any, and its size by that on restored photographs."""

    zero: float
    size: float


def attacked(subject: Subject, start: Tensor, effort: Effort) -> Attacked:
    """Attack images so that their quality rises, as a restorer learns to."""
    gains: dict[str, dict[str, float]] = {name: {} for name in effort.attacks}
    psnr: dict[str, float] = {}
    up = torch.ones(len(start), dtype=start.dtype, device=start.device)
    for strength in effort.strengths:
        best, strongest = -math.inf, start
        for name in effort.attacks:
            attack = ATTACKS[name]
            if attack is pgd:
                attack = partial(attack, generator=torch.Generator().manual_seed(strength))
            x = attack(subject.quality, start, subject.y, up, strength / 255)
            gain = subject.gain(x, start)
            gains[name][str(strength)] = gain
            if gain > best:
                best, strongest = gain, x
        if start is not subject.y:
            psnr[str(strength)] = _psnr(strongest, subject.y) - _psnr(start, subject.y)
    places = (0, *effort.strengths)
    heights = [0.0, *(max(0.0, *(row[str(s)] for row in gains.values())) for s in effort.strengths)]
    area = sum((places[i + 1] - places[i]) * (heights[i + 1] + heights[i]) / 2 for i in range(len(effort.strengths)))
    return Attacked(gains, psnr, area / effort.strengths[-1])


def _psnr(x: Tensor, y: Tensor) -> float:
    return float(-10 * (x - y).double().square().mean((1, 2, 3)).clamp_min(1e-12).log10().mean())


def patterns(subject: Subject, start: Tensor) -> dict[str, dict[str, float]]:
    """Gain of fixed patterns of 2/255: name to phase to units."""
    height, width = start.shape[-2:]
    rows = torch.arange(height, device=start.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=start.device)[None].expand(height, width)
    waves = {"checkerboard": rows + columns, "rows": rows, "columns": columns}
    signs: dict[str, dict[str, Tensor]] = {
        name: {str(phase): 1 - 2 * ((wave + phase) % 2) for phase in range(2)} for name, wave in waves.items()
    }
    for name in ("rows", "columns"):
        signs[f"wide {name}"] = {str(p): 1 - 2 * ((waves[name] + p) // 2 % 2) for p in range(4)}
    return {
        name: {phase: subject.gain((start + _BY * sign).clamp(0, 1), start) for phase, sign in phases.items()}
        for name, phases in signs.items()
    }


def grain(subject: Subject, start: Tensor) -> dict[str, float]:
    """Gain of random signs of one energy: on all pixels (`all`), or on one of four (`row,column` of its phase)."""
    generator = torch.Generator().manual_seed(2)
    signs = (torch.randint(0, 2, start.shape, generator=generator) * 2 - 1).to(start)
    found = {"all": subject.gain((start + _BY * signs).clamp(0, 1), start)}
    for row in range(2):
        for column in range(2):
            mask = torch.zeros_like(start)
            mask[..., row::2, column::2] = 2 * _BY
            found[f"{row},{column}"] = subject.gain((start + mask * signs).clamp(0, 1), start)
    return found


def flat_patches(subject: Subject) -> Flat:
    """How the gradient looks where there is nothing to see; from references it is as far as enlargements are."""
    side, count = subject.y.shape[-1], subject.y.shape[1] // 3
    colours = torch.tensor(_FLAT, dtype=subject.y.dtype, device=subject.y.device).repeat(1, count)
    y = colours[..., None, None].expand(-1, -1, side, side).contiguous()
    offset = (subject.restored - subject.y).square().mean().sqrt()
    equal, apart = subject.gradient(y, y), subject.gradient(y + offset, y)
    inner = slice(side // _MARGIN, side - side // _MARGIN)
    part = apart[..., inner, inner]
    varied = part - part.mean((2, 3), keepdim=True)
    size, usual = _rms(part), float(_rms(subject.gradient(subject.restored)).mean())
    return Flat(
        bool(torch.isfinite(equal).all() and torch.isfinite(apart).all()),
        _ratio(float(size.max()), usual),
        _ratio(float(_rms(varied).max()), float(size.max())),
    )


def dead_zones(subject: Subject) -> dict[str, Zone]:
    """The gradient at the end of every ladder, and on what a restorer begins with."""
    starts = {"restored": subject.restored}
    starts |= {kind: degraded(kind, subject.y, levels[-1]) for kind, levels in LADDERS.items()}
    usual, found = 0.0, {}
    for name, x in starts.items():
        push = subject.gradient(x)
        size = _rms(push)
        silent = push.abs().amax(1) <= _NOTHING * size[:, None, None]
        usual = usual or float(size.mean())
        found[name] = Zone(float(silent.float().mean()), _ratio(float(size.mean()), usual))
    return found


def _rms(push: Tensor) -> Tensor:
    return push.double().square().mean((1, 2, 3)).sqrt()


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (math.inf if part else 0.0)


def ladders(subject: Subject) -> dict[str, float]:
    """Share of pairs of levels, photographs included, of which the weaker damage has the better quality."""
    found = {}
    for kind, levels in LADDERS.items():
        rungs = [subject.y, *(degraded(kind, subject.y, level) for level in levels)]
        found[kind] = _in_order([subject.of(x) for x in rungs])
    return found


def _in_order(qualities: Sequence[Tensor]) -> float:
    return float(torch.stack([a > b for a, b in combinations(qualities, 2)]).double().mean())


def pixelation(subject: Subject) -> dict[str, float]:
    """Factor to how much better smooth enlargement is than squares, in units."""
    return {
        str(factor): subject.gain(pixelated(subject.y, factor, smooth=True), pixelated(subject.y, factor, smooth=False))
        for factor in (2, 4, 8)
    }


def scale(subject: Subject) -> dict[str, float]:
    """As `ladders`, of images shown at half their size, in three levels; empty where these are too small."""
    card, half = subject.critic.card, subject.y.shape[-1] // 2
    if half < card.min_size or half % card.multiple_of:
        return {}
    y, found = F.avg_pool2d(subject.y, 2), {}
    for kind, levels in LADDERS.items():
        rungs = [y, *(F.avg_pool2d(degraded(kind, subject.y, level), 2) for level in levels[2:])]
        found[kind] = _in_order([subject.of(x, y) for x in rungs])
    return found
