"""Patterns of period 2 and 4 that networks print, found in the spectrum against the reference's.

Strides of a restorer, or of the trunk of a critic that teaches it, leave patterns that repeat every two or four pixels:
power at multiples of a quarter of a cycle per pixel. Grain and sharpness raise the frequencies between as well, a
pattern does not. So the power there is compared with the reference's and with what the image gained at the eight
neighbours an eighth of a cycle away. It is measured in blocks of 16 pixels, small enough that a pattern whose phase
wanders is one still, and apart for plain and for textured blocks, because people see a grid in the sky first.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["LEAST_SIDE", "grid_figures"]

LEAST_SIDE: Final = 32
"""Of images, in pixels."""

_BLOCK, _STEP = 16, 8
_UNSEEN: Final = 1 / 255  # amplitude of a cosine that doubles the floor
_CLASSES: Final = 4  # of blocks, from plain to textured
_IN_CLASS: Final = 64  # blocks at least, or there are fewer classes: so many average to within half a dB
_CHANCE: Final = 7.0  # texture averages out to 1.8 of its power by the blocks; four times that is rare
_KINDS: Final = {
    "quarter": ((0, 2), (2, 0), (2, 2), (2, 6), (2, 4), (4, 2)),
    "half": ((0, 4), (4, 0)),
    "corner": ((4, 4),),
}
"""Frequencies of the patterns, down and across, in eighths of a cycle per pixel."""

_AXES: Final = ((0, 2), (2, 0), (0, 4), (4, 0))


def grid_figures(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Patterns of fixed period in images, and energy at their frequencies, in dB of the references', (N,) each.

    `quarter` is of patterns of period 4 in any direction, `half` of rows and columns of period 2, `corner` of the
    checkerboard of single pixels: by how much the power exceeds that of the reference and what was gained at
    neighbouring frequencies, in the class of blocks and for the pattern where this is most, or what all blocks have
    in one phase, where that is more. About 0 where there is no pattern, negative where the image is smoother than its
    reference. `energy` is the plain ratio of energies at a quarter and half a cycle per pixel along the axes.

    Args:
        x: Judged images, (N, 3, H, W), in [0, 1], sides of at least 32 pixels; up to 7 at the ends are not seen.
        y: References, same shape.
    """
    ours, theirs = _spectrum(x), _spectrum(y)
    figures = {}
    for kind, places in _KINDS.items():
        anywhere, in_phase = _excess(ours.power, theirs.power, places), _in_phase(ours, theirs, places)
        figures[kind] = torch.where(in_phase > 0, torch.maximum(anywhere, in_phase), anywhere)
    down, across = zip(*_AXES, strict=True)
    energies = [power[..., down, across].sum((1, 2)) + _floor() for power in (ours.power, theirs.power)]
    return {**figures, "energy": _decibels(*energies)}


class _Spectrum(NamedTuple):
    """Of half-overlapping blocks at multiples of 1/8 cycle per pixel, channels averaged.

    The blocks begin at multiples of 8 pixels, so that a fixed pattern has the same phase in all of them.
    """

    power: Tensor  # (N, blocks, 8, 8)
    in_phase: Tensor  # of the mean of all blocks, (N, 8, 8)


def _spectrum(image: Tensor) -> _Spectrum:
    window = torch.hann_window(_BLOCK, device=image.device, dtype=image.dtype)
    window = window / window.square().sum().sqrt()
    powers, sums = [], []
    for strip in image.unfold(-2, _BLOCK, _STEP).unbind(2):  # (N, 3, W, 16)
        blocks = strip.mT.unfold(-1, _BLOCK, _STEP).movedim(3, 2) * window * window[:, None]  # (N, 3, blocks, 16, 16)
        folded = blocks.unflatten(-1, (2, 8)).sum(-2).unflatten(-2, (2, 8)).sum(-3)
        waves = torch.fft.fft2(folded)
        powers.append(waves.abs().square().mean(1))
        sums.append(waves.sum(2))
    power = torch.cat(powers, 1)
    return _Spectrum(power, (torch.stack(sums).sum(0) / power.shape[1]).abs().square().mean(1))


def _in_phase(ours: _Spectrum, theirs: _Spectrum, places: tuple[tuple[int, int], ...]) -> Tensor:
    """Decibels of what all blocks have in one phase, above the reference's and what chance leaves of texture, (N,)."""
    down, across = zip(*places, strict=True)
    x, y = (spectrum.in_phase[:, down, across] for spectrum in (ours, theirs))
    chance = _CHANCE * ours.power[..., down, across].mean(1) / ours.power.shape[1]
    return _decibels(x + _floor(), torch.maximum(y, chance) + _floor()).amax(1)


def _floor() -> float:
    """Power of a cosine of the amplitude that is not seen."""
    window = torch.hann_window(_BLOCK, dtype=torch.float64)
    return float(_UNSEEN / 2 * window.sum() ** 2 / window.square().sum()) ** 2


def _excess(ours: Tensor, theirs: Tensor, places: tuple[tuple[int, int], ...]) -> Tensor:
    """Decibels above what reference and neighbours explain, of the loudest class of blocks and pattern, (N,)."""
    blocks = theirs.shape[1]
    down, across = zip(*places, strict=True)
    order = theirs[..., down, across].sum(-1).argsort(1)
    ours, theirs = (power.take_along_dim(order[..., None, None], 1) for power in (ours, theirs))
    found = []
    for few in torch.arange(blocks).tensor_split(min(_CLASSES, max(1, blocks // _IN_CLASS))):
        x, y = (power[:, few].mean(1) for power in (ours, theirs))
        for a, b in places:
            around = _neighbours(a, b)
            around_x, around_y = (power[:, around[0], around[1]].mean(-1) for power in (x, y))
            steep = (y[:, a, b] / around_y.clamp_min(_floor())).clamp_min(1)
            explained = y[:, a, b] + (around_x - around_y).clamp_min(0) * steep
            found.append(_decibels(x[:, a, b] + _floor(), explained + _floor()))
    return torch.stack(found).amax(0)


def _neighbours(down: int, across: int) -> tuple[list[int], list[int]]:
    """Frequencies an eighth of a cycle away that are not much lower, where images are far louder."""
    around = [((down + a) % 8, (across + b) % 8) for a, b in product((-1, 0, 1), repeat=2) if a or b]
    near = [place for place in around if _radius(*place) >= 0.74 * _radius(down, across)]
    return [down for down, _ in near], [across for _, across in near]


def _radius(down: int, across: int) -> float:
    return math.hypot(min(down, 8 - down), min(across, 8 - across))


def _decibels(power: Tensor, reference: Tensor) -> Tensor:
    return 10 * torch.log10(power / reference)
