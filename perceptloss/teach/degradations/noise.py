"""Noise: of sensors, of channels, of colour, alone or with a grain size."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import KADID, TID2013, degradation
from perceptloss.teach.degradations.operations import (
    from_linear,
    from_ycbcr,
    gaussian_blur,
    normal,
    to_linear,
    to_ycbcr,
    uniform,
)

__all__ = ["shot"]

_READ = 0.15  # read noise over the shot noise at white
_GAINS = (1.9, 1.0, 1.6)  # white balance of a daylight sensor: red and blue are amplified, their noise with them


def shot(light: Tensor, relative: float, noise: Tensor) -> Tensor:
    """Photon noise made from a normal field, so that every strength sees the same field.

    The Cornish-Fisher expansion of a Poisson variable: n + sqrt(n - 1/18) z + (z^2 - 1) / 6 has the mean n, the
    variance n and nearly the third moment n; below 1/18 photons the deviation is scaled to keep the variance.

    Args:
        light: Linear light, any shape, 0 or more.
        relative: Standard deviation at light 1, that is 1 / sqrt(photons at white); above 0.
        noise: Standard normal numbers, light's shape.

    Returns:
        Light of the same shape; may fall below 0 where a photon is rare.
    """
    photons = light.clamp_min(0) / relative**2
    deviation = (photons - 1 / 18).clamp_min(0).sqrt() * noise + (noise.square() - 1) / 6
    return relative**2 * (photons + (18 * photons).clamp_max(1).sqrt() * deviation)


@degradation("white-noise", "noise", (0.02, 0.045, 0.08, 0.14, 0.24), TID2013)
def _white(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation."""
    return x + std * normal(x, generator)


@degradation("chroma-noise", "noise", (0.03, 0.07, 0.12, 0.2, 0.32), TID2013)
def _chroma(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation in Cb and Cr."""
    y, chroma = to_ycbcr(x).split((1, 2), 1)
    return from_ycbcr(torch.cat([y, chroma + std * normal(x, generator, 2)], 1))


@degradation("shot-noise", "noise", (0.03, 0.065, 0.12, 0.21, 0.36), "ImageNet-C, ICLR 2019")
def _shot(x: Tensor, relative: float, generator: torch.Generator) -> Tensor:
    """Relative standard deviation at white, 1 / sqrt(photons)."""
    return shot(x, max(relative, 1e-4), normal(x, generator))


@degradation(
    "camera-noise",
    "noise",
    (0.03, 0.06, 0.11, 0.19, 0.33),
    "Foi et al., Practical Poissonian-Gaussian Noise Modeling, TIP 2008",
)
def _camera(x: Tensor, relative: float, generator: torch.Generator) -> Tensor:
    """Relative standard deviation of the light at white, before white balance and tone curve."""
    gains = x.new_tensor(_GAINS)[:, None, None]
    raw = to_linear(x) / gains
    raw = shot(raw, max(relative, 1e-4), normal(x, generator)) + _READ * relative * normal(x, generator)
    return from_linear(raw * gains)


@degradation("impulse-noise", "noise", (0.002, 0.008, 0.03, 0.08, 0.2), TID2013)
def _impulse(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of values set to 0 or 1."""
    draw = torch.rand(x.shape, generator=generator).to(x.device)
    return torch.where(draw < share / 2, 0, torch.where(draw > 1 - share / 2, 1, x))


@degradation("speckle-noise", "noise", (0.045, 0.1, 0.18, 0.32, 0.55), KADID)
def _speckle(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of the factor."""
    return x * (1 + std * normal(x, generator))


@degradation("correlated-noise", "noise", (0.015, 0.027, 0.048, 0.08, 0.14), TID2013)
def _correlated(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation; grain between 0.8 and 2 pixels drawn."""
    coarse, mix = gaussian_blur(normal(x, generator), 2.0), uniform(x, generator)
    fine = gaussian_blur(normal(x, generator), 0.8)
    return x + std * _unit((1 - mix) * _unit(fine) + mix * _unit(coarse))


@degradation("high-frequency-noise", "noise", (0.025, 0.055, 0.1, 0.17, 0.28), TID2013)
def _high_frequency(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of the noise less its local mean."""
    noise = normal(x, generator)
    return x + std * _unit(noise - gaussian_blur(noise, 0.8))


def _unit(noise: Tensor) -> Tensor:
    return noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
