"""consistency: smoothed lightness and the chroma of Oklab, which hold a restorer's colours beside adversarial losses.

The term `consistency_loss` of neosr (https://github.com/neosr-project/neosr, Apache-2.0; written from its facts). Oklab
is Ottosson's, "A perceptual color space for image processing", 2020. Ours: an image's score does not depend on its
batch, and lightness follows the line of the CIE in the dark, where theirs is squared.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import cie_curve, light
from perceptloss.networks.criteria import CHARBONNIER, Criterion, apart, known_criterion, least_of
from perceptloss.networks.functional import blur, bounded_power, gaussian, mix_channels

__all__ = ["ENTRIES", "Consistency", "chroma"]

_Y = (0.2126, 0.7152, 0.0722)
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_OKLAB_AB = ((1.9779984951, -2.4285922050, 0.4505937099), (0.0259040371, 0.7827717662, -0.8086757660))
_SMOOTH = gaussian(21, 3.0)
_REACH = len(_SMOOTH) // 2
_LEAST = 1 / 255 - 1e-6  # so that a level of 1 is inside in every precision
_FLOOR = 1e-5  # of a cone's response: below, the slope of its cube root is held
_SMALL = 1e-3  # angles count only below, lest they pull at an unfinished output


def _lightness(image: Tensor) -> Tensor:
    return 1.16 * cie_curve(mix_channels(light(image), (_Y,))) - 0.16


def chroma(image: Tensor) -> Tensor:
    """The a and b of Oklab of sRGB images, (N, 2, H, W)."""
    return mix_channels(bounded_power(mix_channels(light(image), _CONES), 1 / 3, _FLOOR), _OKLAB_AB)


def _angle(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Mean of 1 - cos of the angle of vectors along `dim`, (N,)."""
    return (F.normalize(a, dim=dim) - F.normalize(b, dim=dim)).square().sum(dim).flatten(1).mean(1) / 2


class Consistency(Critic):
    """Distance of smoothed lightness and of chroma, in [0, about 1]; lower is better.

    Args:
        card: What it is.
        criterion: Of both distances: `charbonnier`, `l1`, `l2`, `huber` or `clipped`.
        blur: Whether lightness is smoothed first.
        cosim: Whether the angles of chroma and lightness count, too, where they are small.
        saturation: By which the chroma that is asked for is more than the reference's.
        brightness: By which the lightness that is asked for is more than the reference's.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("consistency")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        criterion: Criterion = "charbonnier",
        blur: bool = True,
        cosim: bool = True,
        saturation: float = 1.0,
        brightness: float = 1.0,
    ) -> None:
        problems = [
            f"options.{name} must be a number above 0, got {value!r}"
            for name, value in {"saturation": saturation, "brightness": brightness}.items()
            if not (isinstance(value, (int, float)) and value > 0)
        ]
        if problems:
            raise ConfigError(problems, card.name)
        self.criterion = known_criterion(criterion, card.name)
        least = 2 * least_of(self.criterion)
        identity = least if saturation == brightness == 1 else None
        super().__init__(replace(card, identity=identity, bounds=(least, card.bounds[1])))
        self.blur, self.cosim, self.saturation, self.brightness = blur, cosim, saturation, brightness

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = (image.clamp(_LEAST, 1) for image in (x, given(y)))
        lx, ly = _lightness(self._smoothed(x)), self.brightness * _lightness(self._smoothed(y))
        cx, cy = 0.5 + chroma(x), (0.5 + self.saturation * chroma(y)).clamp(0, 1)
        pairs = ((lx, ly), (cx, cy))
        distance = torch.stack([apart(a, b, self.criterion).mean((1, 2, 3)) for a, b in pairs]).sum(0)
        if not self.cosim:
            return distance
        angle = (_angle(cx, cy, 1) + _angle(lx, ly, 2)) / 2
        return distance + torch.where(angle < _SMALL, angle, 0)

    def _smoothed(self, image: Tensor) -> Tensor:
        return blur(F.pad(image, (_REACH,) * 4, mode="reflect"), _SMOOTH) if self.blur else image


_CARD = distance_card(
    name="consistency",
    summary="Distance of smoothed lightness and of the chroma of Oklab: holds colours beside adversarial losses.",
    bounds=(2 * CHARBONNIER**0.5, 3.0),
    identity=2 * CHARBONNIER**0.5,
    min_size=_REACH + 1,
    fidelity="paper",
    licence_code="Apache-2.0 (neosr)",
    paper="of neosr, 2024; Ottosson, A perceptual color space for image processing, 2020",
    source="https://github.com/neosr-project/neosr losses/consistency_loss.py (facts only)",
    notes=(
        "values outside [1/255, 1] are clamped, as there: no gradient arrives where the restored image overshoots",
        "with saturation or brightness other than 1 the reference itself is not the best image",
    ),
)

ENTRIES = {"consistency": Entry(_CARD, Consistency)}
