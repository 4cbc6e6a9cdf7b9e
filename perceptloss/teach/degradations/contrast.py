"""Brightness and contrast: curves, shifts, clipping and the fall-off of a lens."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import Degradation
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

__all__ = ["DEGRADATIONS"]


def _brighten(x: Tensor, power: float, generator: torch.Generator) -> Tensor:
    return 1 - _darken(1 - x, power, generator)


def _darken(x: Tensor, power: float, generator: torch.Generator) -> Tensor:
    y, chroma = to_ycbcr(x).split((1, 2), 1)
    return from_ycbcr(torch.cat([y.clamp(0, 1) ** power, chroma], 1))


def _mean_shift(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    return x + shift * sign(x, generator)


def _about_mean(x: Tensor, factor: float) -> Tensor:
    mean = luma(x).mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def _less_contrast(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return _about_mean(x, 1 - amount)


def _more_contrast(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return _about_mean(x, 1 + amount)


def _gamma(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    return x ** (2 ** (stops * sign(x, generator)))


def _clip(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    gain = 2.0**stops
    burnt = from_linear(gain * to_linear(x))
    crushed = 1 - from_linear(gain * to_linear(1 - x))
    return torch.where(sign(x, generator) > 0, burnt, crushed)


def _vignetting(x: Tensor, tangent: float, generator: torch.Generator) -> Tensor:
    height, width = x.shape[-2:]
    across, down = grid(x)
    half = (height**2 + width**2) ** 0.5 / 2
    dx = across - (width - 1) * uniform(x, generator, 0.4, 0.6)
    dy = down - (height - 1) * uniform(x, generator, 0.4, 0.6)
    fall_off = (1 + tangent**2 * (dx.square() + dy.square()) / half**2) ** -2
    return from_linear(to_linear(x) * fall_off)


_KADID = "KADID-10k, QoMEX 2019"

DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation(
        "brighten",
        "contrast",
        "power of the inverted luma, black and white kept",
        (1.2, 1.5, 2.0, 2.9, 5.0),
        _brighten,
        identity=1.0,
        source=_KADID,
    ),
    Degradation(
        "darken",
        "contrast",
        "power of the luma, black and white kept",
        (1.15, 1.4, 1.8, 2.5, 4.5),
        _darken,
        identity=1.0,
        source=_KADID,
    ),
    Degradation(
        "mean-shift",
        "contrast",
        "value added or taken, drawn",
        (0.04, 0.09, 0.16, 0.26, 0.4),
        _mean_shift,
        source=_KADID,
    ),
    Degradation(
        "contrast-down",
        "contrast",
        "share of the distance from the mean taken away",
        (0.12, 0.28, 0.46, 0.62, 0.78),
        _less_contrast,
        source=_KADID,
    ),
    Degradation(
        "contrast-up",
        "contrast",
        "share of the distance from the mean added",
        (0.15, 0.4, 0.9, 2.0, 5.0),
        _more_contrast,
        source="TID2013",
    ),
    Degradation(
        "gamma",
        "contrast",
        "log2 of the exponent, sign drawn",
        (0.25, 0.5, 0.85, 1.3, 2.0),
        _gamma,
        source="BAPPS, CVPR 2018",
    ),
    Degradation(
        "exposure-clip",
        "contrast",
        "stops of light by which highlights burn out or (drawn) shadows drown",
        (0.2, 0.5, 1.0, 1.7, 2.8),
        _clip,
        source="SPAQ, CVPR 2020 (observed in smartphone photographs)",
    ),
    Degradation(
        "vignetting",
        "contrast",
        "tangent of the field angle in the corner (cos^4 law)",
        (0.5, 0.8, 1.2, 1.7, 2.6),
        _vignetting,
        source="LIVE in the Wild, TIP 2016 (observed)",
    ),
)
