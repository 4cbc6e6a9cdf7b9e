"""Pictures of the night: too little light, the noise that comes with it, glare, and light in the wrong places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import smooth_field
from perceptloss.teach.degradations.noise import shot
from perceptloss.teach.degradations.operations import from_linear, gaussian_blur, grid, luma, normal, to_linear, uniform

__all__ = []

_PHOTONS = 10_000  # of a pixel at white, in daylight
_READ = 3.0  # standard deviation of reading a pixel, in photons
_SMALL = 4


@degradation("low-light", "night", (0.35, 0.8, 1.6, 2.8, 4.5), "LOL, BMVC 2018")
def _low_light(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light taken away, with photon noise and no gain."""
    dark = shot(to_linear(x) * 2.0**-stops, _PHOTONS**-0.5, normal(x, generator))
    return from_linear(dark)


@degradation(
    "low-light-noise", "night", (1.5, 3.0, 4.5, 6.0, 8.0), "Chen et al., Learning to See in the Dark, CVPR 2018"
)
def _low_light_noise(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light taken away and given back by gain."""
    photons = _PHOTONS * 2.0**-stops
    light = shot(to_linear(x), photons**-0.5, normal(x, generator))
    rows = torch.randn(x.shape[0], 1, x.shape[2], 1, generator=generator).to(x.device)
    return from_linear(light + _READ / photons * (normal(x, generator) + 0.4 * rows))


@degradation("bloom", "night", (0.15, 0.3, 0.6, 1.1, 2.0), "Wu et al., Flare7K, NeurIPS 2022")
def _bloom(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Light of bright places scattered over their surroundings, over the light itself."""
    light = to_linear(x)
    bright = light * luma(light)
    small = F.interpolate(bright, scale_factor=1 / _SMALL, mode="area")
    side = min(small.shape[2:])
    spread = 0.6 * gaussian_blur(small, 0.03 * side) + 0.4 * gaussian_blur(small, 0.12 * side)
    return from_linear(light + amount * F.interpolate(spread, x.shape[2:], mode="bilinear"))


@degradation("glare", "night", (0.04, 0.1, 0.22, 0.45, 0.9), "Wu et al., Flare7K, NeurIPS 2022")
def _glare(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Light of a lamp in the picture, over white; place and warmth drawn."""
    across, down = grid(x)
    side = min(x.shape[2:])
    far_across = (across - (x.shape[3] - 1) * uniform(x, generator)) / side
    far_down = (down - (x.shape[2] - 1) * uniform(x, generator)) / side
    squared = far_across.square() + far_down.square()
    glow = (-squared / (2 * 0.05**2)).exp() + 0.35 / (1 + squared / 0.15**2)
    warmth = uniform(x, generator)
    tint = 1 - warmth * x.new_tensor([0.0, 0.2, 0.5])[:, None, None]
    return from_linear(to_linear(x) + amount * glow * tint)


@degradation(
    "uneven-light", "night", (0.2, 0.45, 0.9, 1.6, 2.7), "backlit and lamp-lit scenes, as in ExDark, CVIU 2019"
)
def _uneven_light(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops between the middle and the lightest or darkest place."""
    return from_linear(to_linear(x) * 2.0 ** (stops * (1 - 2 * smooth_field(x, generator, 2))))
