"""Wrong light: exposure, white balance, and light that comes between the scene and the sensor."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import smooth_field
from perceptloss.teach.degradations.noise import shot
from perceptloss.teach.degradations.operations import (
    from_linear,
    gaussian_blur,
    grid,
    luma,
    normal,
    sign,
    to_linear,
    uniform,
)

__all__ = []

_SPAQ = "SPAQ, CVPR 2020 (observed in smartphone photographs)"
_PHOTONS = 2000  # of a pixel at white, in a phone's small sensor
_READ = 4.0  # standard deviation of reading a pixel, in photons
# gains of linear red, green and blue for 100 mired less than daylight (a warmer lamp taken for daylight), in stops
_WARMER = (0.62, -0.05, -1.05)


@degradation("over-exposure", "exposure", (0.4, 0.8, 1.3, 2.0, 3.0), _SPAQ)
def _over(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light too many: highlights clip channel by channel and spill over."""
    light = to_linear(x) * 2.0**stops
    spill = gaussian_blur((luma(light) - 1).clamp(0, 2), 3.0)
    return from_linear(light + 0.15 * spill)


@degradation("under-exposure", "exposure", (0.5, 1.0, 1.7, 2.6, 3.8), _SPAQ)
def _under(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light too few: shadows fall under the black point, and photons are rare."""
    light = to_linear(x) * 2.0**-stops
    noisy = shot(light, _PHOTONS**-0.5, normal(x, generator)) + _READ / _PHOTONS * normal(x, generator)
    return from_linear(noisy - 0.0008 * stops)


@degradation("lifted-shadows", "exposure", (1.0, 2.0, 3.0, 4.2, 5.5), _SPAQ)
def _lifted(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light too few where it is dark, given back by a local tone curve: noise, flat greys, halos."""
    light = to_linear(x)
    dark = (-gaussian_blur(luma(light), 6.0) / 0.15).exp()
    photons = _PHOTONS * 2.0 ** (-stops * (0.35 + 0.65 * dark))
    noise = normal(x, generator)
    noise = 0.6 * noise + 0.9 * gaussian_blur(noise, 1.0)
    noisy = light + (light / photons).sqrt() * noise + _READ / photons * normal(x, generator)
    lift = 2.0 ** (0.25 * stops * dark)
    return from_linear(noisy.clamp_min(0) * lift + 0.004 * stops * dark)


@degradation("white-balance", "colour", (12.0, 28.0, 50.0, 85.0, 140.0), _SPAQ)
def _white_balance(x: Tensor, mired: float, generator: torch.Generator) -> Tensor:
    """Error of the light's colour temperature in mired, too warm or too cold (drawn), with a green or magenta tint."""
    warmer = x.new_tensor(_WARMER)[:, None, None] * sign(x, generator)
    tint = x.new_tensor((-0.25, 0.25, -0.25))[:, None, None] * uniform(x, generator, -1, 1)
    light = to_linear(x)
    wrong = light * 2.0 ** (mired / 100 * (warmer + tint))
    mean = luma(light).mean((2, 3), keepdim=True) / luma(wrong).mean((2, 3), keepdim=True).clamp_min(1e-6)
    return from_linear(wrong * mean)


@degradation("haze", "veil", (0.1, 0.25, 0.5, 0.95, 1.7), "Li et al., RESIDE, TIP 2019 (Koschmieder's law)")
def _haze(x: Tensor, thickness: float, generator: torch.Generator) -> Tensor:
    """Optical thickness in the farthest place; map of depths and the haze's colour drawn."""
    _, down = grid(x)
    height = x.shape[2]
    depth = 0.6 * (1 - down / (height - 1)) + 0.4 * smooth_field(x, generator, 3)
    white = uniform(x, generator, 0.65, 0.9) * (1 + x.new_tensor((-0.04, 0.0, 0.05))[:, None, None])
    seen = (-thickness * (0.25 + 0.75 * depth)).exp()
    return from_linear(to_linear(x) * seen + white * (1 - seen))


@degradation(
    "veiling-glare", "veil", (0.01, 0.025, 0.055, 0.11, 0.22), "dirty lenses and flare, as in Flare7K, NeurIPS 2022"
)
def _veil(x: Tensor, light: float, generator: torch.Generator) -> Tensor:
    """Light over white that is spread over the picture, more at a drawn place."""
    across, down = grid(x)
    side = min(x.shape[2:])
    far = torch.hypot(
        across - (x.shape[3] - 1) * uniform(x, generator, -0.2, 1.2),
        down - (x.shape[2] - 1) * uniform(x, generator, -0.2, 1.2),
    )
    tint = 1 + x.new_tensor((0.12, 0.0, -0.12))[:, None, None] * uniform(x, generator, -1, 1)
    return from_linear(to_linear(x) + light * tint * (0.5 + 1 / (1 + (far / (0.5 * side)).square())))


@degradation("backlight", "exposure", (0.5, 1.0, 1.7, 2.6, 4.0), "backlit scenes, as in BAID, CVPR 2023")
def _backlight(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops between a dark subject (a drawn ellipse) and a burnt background, whose light veils the subject."""
    across, down = grid(x)
    height, width = x.shape[2:]
    dx = (across / (width - 1) - uniform(x, generator, 0.35, 0.65)) / uniform(x, generator, 0.18, 0.35)
    dy = (down / (height - 1) - uniform(x, generator, 0.45, 0.75)) / uniform(x, generator, 0.3, 0.5)
    inside = torch.sigmoid(6 * (1 - torch.hypot(dx, dy)))
    light = to_linear(x)
    # what is bright is background wherever it lies
    inside = inside * (1 - gaussian_blur(luma(light), 0.02 * min(height, width)).clamp(0, 1).sqrt())
    light = light * 2.0 ** (stops * (0.4 - 1.6 * inside))
    spill = gaussian_blur(luma(light).clamp_max(2), 0.04 * min(height, width))
    noise = shot(light, _PHOTONS**-0.5, normal(x, generator)) - light
    return from_linear(light + noise + 0.02 * stops * spill)
