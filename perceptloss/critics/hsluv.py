"""hsluv: hue, saturation and lightness of smoothed colours, each with its own weight.

HSLuv is Boronine's human-friendly form of the CIE's L*u*v* (https://www.hsluv.org, MIT; package hsluv 5.0.5):
saturation is a share of the largest chroma that sRGB has for a hue and a lightness. The distance is that of
traiNNer-redux's `hsluvloss` (https://github.com/the-database/traiNNer-redux, Apache-2.0), written from its facts. Ours:
slopes are bounded where hue and saturation have none, on greys, black and white.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import light
from perceptloss.networks.criteria import CHARBONNIER, Criterion, apart, known_criterion
from perceptloss.networks.functional import bounded_power, mix_channels, root, soften

__all__ = ["ENTRIES", "HSLuv", "hsluv"]

_XYZ: Final = (
    (0.41239079926595, 0.35758433938387, 0.18048078840183),
    (0.21263900587151, 0.71516867876775, 0.072192315360733),
    (0.019330818715591, 0.11919477979462, 0.95053215224966),
)
_RGB: Final = (
    (3.240969941904521, -1.537383177570093, -0.498610760293),
    (-0.96924363628087, 1.87596750150772, 0.041555057407175),
    (0.055630079696993, -0.20397695888897, 1.056971514242878),
)
_REF_U, _REF_V = 0.19783000664283, 0.46831999493879
_KAPPA, _EPSILON = 903.2962962, 0.0088564516
_EPS: Final = 0.1  # shares: less saturated colours are grey, so dark ones black, so light ones white
_FLOOR: Final = 2.0  # chroma and largest chroma, L*u*v* units: below, slopes fade
_ALIKE: Final = 1e-5  # differences that are rounding: every colour with an empty channel has a saturation of 1
_DARK: Final = 1e-4  # XYZ: below, colours have no hue


def _largest_chroma(lightness: Tensor, hue: Tensor) -> Tensor:
    """The chroma at which a ray of a hue, in radians, leaves sRGB's gamut at a lightness in (0, 100)."""
    cubed = ((lightness + 16) / 116) ** 3
    y = torch.where(cubed > _EPSILON, cubed, lightness / _KAPPA)
    sine, cosine = hue.sin(), hue.cos()
    lengths = []
    for m1, m2, m3 in _RGB:
        top1 = (284517 * m1 - 94839 * m3) * y
        bottom1 = (632260 * m3 - 126452 * m2) * y
        for edge in (0, 1):
            # of the line v = slope u + intercept, times its denominator, which may be 0
            below = bottom1 + 126452 * edge
            intercept = (838422 * m3 + 769860 * m2 + 731718 * m1) * lightness * y - 769860 * edge * lightness
            towards = below * sine - top1 * cosine
            is_met = intercept * towards > 0
            length = intercept / torch.where(is_met, towards, 1)
            lengths.append(torch.where(is_met, length, math.inf))
    return torch.stack(lengths).amin(0)


def hsluv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in (-1/2, 1/2] turns, saturation and lightness in [0, 1] of sRGB images (N, 3, H, W), each (N, H, W)."""
    x, y, z = mix_channels(light(image), _XYZ).clamp_min(0).unbind(1)
    lightness = torch.where(y > _EPSILON, 116 * bounded_power(y, 1 / 3, _EPSILON) - 16, _KAPPA * y).clamp(0, 100)
    below = (x + 15 * y + 3 * z).clamp_min(_DARK)
    u, v = 13 * lightness * (4 * x / below - _REF_U), 13 * lightness * (9 * y / below - _REF_V)
    chroma = root(u * u + v * v)
    has_hue = chroma > 0
    hue = torch.atan2(torch.where(has_hue, v, 0), torch.where(has_hue, u, 1))
    hue = soften(hue, chroma, _FLOOR)
    inside = lightness.clamp(1e-6, 100 - 1e-6)
    most = _largest_chroma(inside, hue)
    has_chroma = (lightness > 1e-6) & (lightness < 100 - 1e-6)
    share = soften(torch.where(has_chroma, chroma / most, 0), torch.minimum(most, chroma + most), _FLOOR)
    return hue / (2 * math.pi), share.clamp(max=1), lightness / 100


def _hue_distance(hx: Tensor, hy: Tensor, sx: Tensor, sy: Tensor, lx: Tensor, ly: Tensor) -> Tensor:
    """Share of half a turn; between a grey and a colour the saturation of the colour; 0 where both are grey or dark."""
    turn = (hx - hy).abs()
    distance = soften(2 * torch.minimum(turn, 1 - turn), turn, _ALIKE)
    grey_x, grey_y = sx < _EPS, sy < _EPS
    distance = torch.where(grey_x != grey_y, torch.maximum(sx, sy), distance)
    is_nothing = (grey_x & grey_y) | ((lx < _EPS) & (ly < _EPS)) | (lx > 1 - _EPS)
    return torch.where(is_nothing, 0, distance)


class HSLuv(Critic):
    """Weighted distance of hue, saturation and lightness, a mean over pixels; lower is better.

    Args:
        card: What it is.
        hue_weight: Of the circular distance of the hues, as a share of half a turn.
        saturation_weight: Of the distance of the saturations, which fades towards black and white.
        lightness_weight: Of the distance of the lightnesses.
        criterion: Of the distances of saturation and lightness: `l1`, `l2` or `charbonnier`.
        downscale_factor: By which the images are shrunk first, bicubically and without aliasing; 1 leaves them.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("hsluv")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        hue_weight: float = 1 / 3,
        saturation_weight: float = 1 / 3,
        lightness_weight: float = 1 / 3,
        criterion: Criterion = "l1",
        downscale_factor: int = 4,
    ) -> None:
        weights = {"hue": hue_weight, "saturation": saturation_weight, "lightness": lightness_weight}
        problems = [
            f"options.{name}_weight must be a number of at least 0, got {weight!r}"
            for name, weight in weights.items()
            if not (isinstance(weight, (int, float)) and weight >= 0)
        ]
        if not problems and not any(weights.values()):
            problems.append("one of hue_weight, saturation_weight and lightness_weight must be above 0")
        if not isinstance(downscale_factor, int) or downscale_factor < 1:
            problems.append(f"options.downscale_factor must be a whole number of at least 1, got {downscale_factor!r}")
        if problems:
            raise ConfigError(problems, card.name)
        self.weights, self.factor = weights, downscale_factor
        self.criterion = known_criterion(criterion, card.name)
        super().__init__(replace(card, min_size=downscale_factor))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        hx, sx, lx = hsluv(self._shrunk(x))
        hy, sy, ly = hsluv(self._shrunk(given(y)))
        middle = torch.minimum(lx, 1 - lx) + torch.minimum(ly, 1 - ly)
        parts = {
            "hue": _hue_distance(hx, hy, sx, sy, lx, ly),
            "saturation": self._apart(sx, sy) * middle,
            "lightness": self._apart(lx, ly),
        }
        return torch.stack([self.weights[name] * part.mean((1, 2)) for name, part in parts.items()]).sum(0)

    def _apart(self, a: Tensor, b: Tensor) -> Tensor:
        distance = soften(apart(a, b, self.criterion), (a - b).abs(), _ALIKE)
        return distance - CHARBONNIER**0.5 if self.criterion == "charbonnier" else distance

    def _shrunk(self, image: Tensor) -> Tensor:
        if self.factor == 1:
            return image
        small = F.interpolate(image, scale_factor=1 / self.factor, mode="bicubic", antialias=True)
        return small.clamp(0, 1)


_CARD = distance_card(
    name="hsluv",
    summary="Distance of hue, saturation and lightness of smoothed colours in HSLuv.",
    min_size=4,
    fidelity="paper",
    licence_code="Apache-2.0 (traiNNer-redux), MIT (hsluv)",
    paper="Boronine, HSLuv, 2012; CIE 15: Colorimetry, 3rd edition, 2004 (L*u*v* of 1976)",
    source="https://github.com/the-database/traiNNer-redux losses/basic_loss.py (formula); package hsluv 5.0.5",
    notes=(
        "made to stand beside others: with the default, shrunk by 4, it sees no detail",
        "hue jumps where a colour turns grey, at a saturation of 0.1: lab-chroma has no such edge",
        "no hue of a restored colour that is nearly white is judged, whatever the reference is, as published",
    ),
)

ENTRIES = {"hsluv": Entry(_CARD, HSLuv)}
