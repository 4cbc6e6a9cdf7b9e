"""flip: LDR-FLIP, the difference that one sees when two images alternate, between 0 and 1.

Andersson, Nilsson, Akenine-Moeller, Oskarsson, Astrom, Fairchild: "FLIP: A Difference Evaluator for Alternating
Images", Proceedings of the ACM in Computer Graphics and Interactive Techniques (HPG) 2020. Original:
https://github.com/NVlabs/flip (BSD-3-Clause; package flip-evaluator 1.7). Written from the paper and compared with
that package. Ours: all filters are separated, powers of errors that vanish have bounded slopes, and images that
overshoot keep a gradient wherever their filtered colours lie in the gamut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import from_opponent, lab_of_light, light, opponent
from perceptloss.networks.functional import bounded_power, root, slide

__all__ = ["ENTRIES", "FLIP"]

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180  # a screen of 0.7 m and 3840 pixels, seen from 0.7 m
_COLOUR_POWER, _FEATURE_POWER = 0.7, 0.5
_KNEE_AT, _KNEE_TO = 0.4, 0.95  # this share of the largest colour difference is mapped to this error
_FEATURE_WIDTH = 0.082  # degrees
_COLOUR_FLOOR = 1e-4  # of L*a*b* units: below, and for fainter features, slopes of the powers are held
_FEATURE_FLOOR = 1e-6
_ERROR_FLOOR = 1e-4
_Taps = tuple[float, ...]
# contrast sensitivity of the achromatic, red-green and blue-yellow channel: (weight, width) of each Gaussian
_SENSITIVITY = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))


@dataclass(frozen=True)
class _Filters:
    sensitivity: tuple[tuple[tuple[float, _Taps], ...], ...]
    smooth: _Taps
    edge: _Taps
    point: _Taps


def _gaussian(radius: int, width: float) -> _Taps:
    """exp(-t^2 / width) at whole numbers, not normalised."""
    return tuple(math.exp(-(t * t) / width) for t in range(-radius, radius + 1))


def _halves(taps: _Taps) -> _Taps:
    """Positive taps divided by their sum, negative ones by that of their sizes."""
    up, down = (sum(max(0.0, sign * tap) for tap in taps) for sign in (1, -1))
    return tuple(tap / (up if tap > 0 else down) if tap else 0.0 for tap in taps)


def _filters(ppd: float) -> _Filters:
    widest = max(width for channel in _SENSITIVITY for _, width in channel)
    radius = math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * ppd)
    channels = []
    for channel in _SENSITIVITY:
        rows = [_gaussian(radius, width * ppd**2 / math.pi**2) for _, width in channel]
        sizes = [
            weight * math.sqrt(math.pi / width) * sum(row) ** 2
            for (weight, width), row in zip(channel, rows, strict=True)
        ]
        parts = zip(sizes, rows, strict=True)
        channels.append(tuple((size / sum(sizes), tuple(tap / sum(row) for tap in row)) for size, row in parts))
    deviation = 0.5 * _FEATURE_WIDTH * ppd
    reach = math.ceil(3 * deviation)
    row = _gaussian(reach, 2 * deviation**2)
    offsets = range(-reach, reach + 1)
    edge = tuple(-t * tap for t, tap in zip(offsets, row, strict=True))
    point = tuple((t * t / deviation**2 - 1) * tap for t, tap in zip(offsets, row, strict=True))
    return _Filters(tuple(channels), tuple(tap / sum(row) for tap in row), _halves(edge), _halves(point))


def _separable(image: Tensor, across: _Taps, down: _Taps) -> Tensor:
    """Convolution of maps (N, 1, H, W) whose borders are repeated; same shape."""
    reach = len(across) // 2
    return slide(slide(F.pad(image, (reach,) * 4, mode="replicate"), across, -1), down, -2)


def _seen(image: Tensor, filters: _Filters) -> Tensor:
    """YCxCz as the eye resolves it, in Hunt-adjusted L*a*b*, (N, 3, H, W)."""
    planes = [
        torch.stack([weight * _separable(plane, taps, taps) for weight, taps in channel]).sum(0)
        for plane, channel in zip(image.split(1, 1), filters.sensitivity, strict=True)
    ]
    lab = lab_of_light(from_opponent(torch.cat(planes, 1)).clamp(0, 1))
    return torch.cat([lab[:, :1], 0.01 * lab[:, :1] * lab[:, 1:]], 1)


def _hyab(first: Tensor, second: Tensor) -> Tensor:
    apart = first - second
    return apart[:, :1].abs() + root(apart[:, 1:].square().sum(1, keepdim=True))


def _largest() -> float:
    """The power of the colour difference of green and blue, the largest there is."""
    pair = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, device="cpu")[:, :, None, None]
    lab = lab_of_light(pair)
    hunt = torch.cat([lab[:, :1], 0.01 * lab[:, :1] * lab[:, 1:]], 1)
    return float(_hyab(hunt[:1], hunt[1:])) ** _COLOUR_POWER


def _features(image: Tensor, filters: _Filters) -> tuple[Tensor, Tensor]:
    """Strength of edges and of points in the achromatic channel of YCxCz, each (N, 1, H, W)."""
    y = (image[:, :1] + 16) / 116
    found = []
    for taps in (filters.edge, filters.point):
        across, down = _separable(y, taps, filters.smooth), _separable(y, filters.smooth, taps)
        found.append(root(across.square() + down.square()))
    return found[0], found[1]


class FLIP(Critic):
    """Mean LDR-FLIP error in [0, 1]; lower is better, 0 for equal images.

    Args:
        card: What it is.
        pixels_per_degree: Of visual angle: about 67 for a 4K screen at arm's length; more for small or far screens.

    Raises:
        ConfigError: if the option is none.

    Example:
        >>> critic = create_critic("flip")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(self, card: Card, *, pixels_per_degree: float = PIXELS_PER_DEGREE) -> None:
        if not (isinstance(pixels_per_degree, (int, float)) and 1 <= pixels_per_degree <= 1000):
            problem = f"options.pixels_per_degree must be a number between 1 and 1000, got {pixels_per_degree!r}"
            raise ConfigError([problem], card.name)
        super().__init__(card)
        self.pixels_per_degree = pixels_per_degree
        self.filters, self.largest = _filters(float(pixels_per_degree)), _largest()

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """FLIP error of every pixel, in [0, 1], lower is better: (N, 1, H, W)."""
        filters = self.filters
        x, y = (opponent(light(image)) for image in (x, given(y)))
        colour = bounded_power(_hyab(_seen(x, filters), _seen(y, filters)), _COLOUR_POWER, _COLOUR_FLOOR)
        most, knee = self.largest, _KNEE_AT * self.largest
        above = _KNEE_TO + (colour - knee) / (most - knee) * (1 - _KNEE_TO)
        colour = torch.where(colour < knee, colour * (_KNEE_TO / knee), above)
        pairs = zip(_features(x, filters), _features(y, filters), strict=True)
        edges, points = ((mine - theirs).abs() for mine, theirs in pairs)
        feature = bounded_power(torch.maximum(edges, points) / math.sqrt(2), _FEATURE_POWER, _FEATURE_FLOOR)
        shown = colour.clamp_min(_ERROR_FLOOR)
        return colour / shown * (shown.log() * (1 - feature)).exp()


_CARD = distance_card(
    name="flip",
    summary="Difference seen when two images alternate on a screen (LDR-FLIP), with a map.",
    bounds=(0.0, 1.0),
    tiling="approximate",
    licence_code="BSD-3-Clause",
    paper="Andersson et al., FLIP: A Difference Evaluator for Alternating Images, HPG 2020",
    source="https://github.com/NVlabs/flip, package flip-evaluator 1.7",
    notes=(
        "for 67 pixels per degree, a 4K screen at arm's length: options: {pixels_per_degree: 67}",
        "colours that leave the gamut after filtering are clamped, as published: no gradient of colour arrives there",
        "errors below 1e-4 are a line instead of a power, so that slopes are bounded",
    ),
)

ENTRIES = {"flip": Entry(_CARD, FLIP)}
