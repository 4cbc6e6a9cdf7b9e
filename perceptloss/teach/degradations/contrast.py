"""Brightness and contrast: curves, shifts, clipping and the fall-off of a lens."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import KADID, TID2013, degradation
from perceptloss.teach.degradations.operations import (
    from_linear,
    from_ycbcr,
    grid,
    luma,
    sign,
    to_linear,
    to_ycbcr,
    uniform,
)

__all__ = []


@degradation("brighten", "contrast", (1.2, 1.5, 2.0, 2.9, 5.0), KADID, identity=1.0)
def _brighten(x: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """Power of the inverted luma, black and white kept."""
    return 1 - _darken(1 - x, power, generator)


@degradation("darken", "contrast", (1.15, 1.4, 1.8, 2.5, 4.5), KADID, identity=1.0)
def _darken(x: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """Power of the luma, black and white kept."""
    y, chroma = to_ycbcr(x).split((1, 2), 1)
    return from_ycbcr(torch.cat([y.clamp(0, 1) ** power, chroma], 1))


@degradation("mean-shift", "contrast", (0.04, 0.09, 0.16, 0.26, 0.4), KADID)
def _mean_shift(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """Value added or taken, drawn."""
    return x + shift * sign(x, generator)


def _about_mean(x: Tensor, factor: float) -> Tensor:
    mean = luma(x).mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


@degradation("contrast-down", "contrast", (0.12, 0.28, 0.46, 0.62, 0.78), KADID)
def _less_contrast(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Share of the distance from the mean taken away."""
    return _about_mean(x, 1 - amount)


@degradation("contrast-up", "contrast", (0.15, 0.4, 0.9, 2.0, 5.0), TID2013)
def _more_contrast(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Share of the distance from the mean added."""
    return _about_mean(x, 1 + amount)


@degradation("gamma", "contrast", (0.25, 0.5, 0.85, 1.3, 2.0), "BAPPS, CVPR 2018")
def _gamma(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Log2 of the exponent, sign drawn."""
    return x ** (2 ** (stops * sign(x, generator)))


@degradation(
    "exposure-clip", "contrast", (0.2, 0.5, 1.0, 1.7, 2.8), "SPAQ, CVPR 2020 (observed in smartphone photographs)"
)
def _clip(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Stops of light by which highlights burn out or (drawn) shadows drown."""
    gain = 2.0**stops
    burnt = from_linear(gain * to_linear(x))
    crushed = 1 - from_linear(gain * to_linear(1 - x))
    return torch.where(sign(x, generator) > 0, burnt, crushed)


@degradation("vignetting", "contrast", (0.5, 0.8, 1.2, 1.7, 2.6), "LIVE in the Wild, TIP 2016 (observed)")
def _vignetting(x: Tensor, tangent: float, generator: torch.Generator) -> Tensor:
    """Tangent of the field angle in the corner (cos^4 law)."""
    height, width = x.shape[-2:]
    across, down = grid(x)
    half = (height**2 + width**2) ** 0.5 / 2
    dx = across - (width - 1) * uniform(x, generator, 0.4, 0.6)
    dy = down - (height - 1) * uniform(x, generator, 0.4, 0.6)
    fall_off = (1 + tangent**2 * (dx.square() + dy.square()) / half**2) ** -2
    return from_linear(to_linear(x) * fall_off)
