"""Colour: too much, too little, the wrong one, in the wrong place, or in too few steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import KADID, TID2013, degradation
from perceptloss.teach.degradations.operations import (
    direction,
    from_lab,
    from_linear,
    from_ycbcr,
    gaussian_blur,
    luma,
    place,
    shift,
    sign,
    to_lab,
    to_linear,
    to_ycbcr,
    zoomed,
)


def _scaled_chroma(x: Tensor, factor: float) -> Tensor:
    grey = luma(x)
    return grey + factor * (x - grey)


@degradation("saturation-down", "colour", (0.2, 0.4, 0.6, 0.8, 1.0), KADID)
def _less_saturation(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Share of the chroma taken away."""
    return _scaled_chroma(x, 1 - amount)


@degradation("saturation-up", "colour", (0.25, 0.6, 1.2, 2.2, 4.0), KADID)
def _more_saturation(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Share of the chroma added."""
    return _scaled_chroma(x, 1 + amount)


@degradation("hue-shift", "colour", (10.0, 22.0, 42.0, 75.0, 130.0), "ImageNet-C, ICLR 2019")
def _hue(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotation of the chroma in degrees, direction drawn."""
    y, blue, red = to_ycbcr(x).split(1, 1)
    angle = math.radians(degrees) * sign(x, generator)
    cosine, sine = angle.cos(), angle.sin()
    return from_ycbcr(torch.cat([y, cosine * blue - sine * red, sine * blue + cosine * red], 1))


@degradation(
    "colour-cast", "colour", (0.1, 0.25, 0.5, 0.9, 1.6), "SPAQ, CVPR 2020 (observed in smartphone photographs)"
)
def _cast(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """White balance error in stops, tint drawn."""
    across, down = direction(x, generator).unbind(1)
    # warm-cold lies along red against blue, tint along green against both; none changes the mean exponent
    gains = torch.stack([across + down / 2, -down, down / 2 - across], 1)[..., None, None]
    return from_linear(to_linear(x) * 2 ** (stops * gains))


@degradation("colour-diffusion", "colour", (2.0, 4.5, 9.0, 15.0, 24.0), KADID)
def _diffusion(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of the blur of a* and b* in pixels."""
    light, chroma = to_lab(x).split((1, 2), 1)
    return from_lab(torch.cat([light, gaussian_blur(chroma, sigma)], 1))


@degradation("chromatic-aberration", "colour", (0.005, 0.011, 0.022, 0.042, 0.08), TID2013)
def _aberration(x: Tensor, zoom: float, generator: torch.Generator) -> Tensor:
    """Zoom of red over green over blue; centre and direction drawn."""
    middle = place(x, generator, 0.3, 0.7)
    zooms = zoom * sign(x, generator).flatten()
    red, green, blue = x.split(1, 1)
    return torch.cat([zoomed(red, middle, 1 + zooms), green, zoomed(blue, middle, 1 - zooms)], 1)


@degradation("colour-shift", "colour", (0.35, 0.8, 1.6, 3.2, 7.0), KADID)
def _shifted(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Shift of green in pixels, direction drawn."""
    green = shift(x[:, 1:2], pixels * direction(x, generator))
    return torch.cat([x[:, :1], green, x[:, 2:]], 1)


@degradation("colour-quantisation", "colour", (0.06, 0.11, 0.2, 0.33, 0.5), TID2013)
def _quantised(x: Tensor, step: float, generator: torch.Generator) -> Tensor:
    """Step between the values left, ordered dither."""
    step = max(step, 1e-4)
    height, width = x.shape[-2:]
    threshold = _bayer(3).to(x).repeat(-(-height // 8), -(-width // 8))[:height, :width]
    return (x / step + threshold).floor() * step


def _bayer(order: int) -> Tensor:
    """Ordered-dither thresholds in (0, 1), (2^order, 2^order) (Bayer, ICC 1973)."""
    ranks = torch.zeros(1, 1)
    for _ in range(order):
        ranks = torch.cat([torch.cat([4 * ranks, 4 * ranks + 2], 1), torch.cat([4 * ranks + 3, 4 * ranks + 1], 1)])
    return (ranks + 0.5) / ranks.numel()


@degradation("colour-blocks", "colour", (0.01, 0.03, 0.07, 0.15, 0.3), KADID)
def _blocks(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of the cells that carry a coloured block."""
    count, _, height, width = x.shape
    cell = min(height, width) // 8
    rows, columns = -(-height // cell), -(-width // cell)
    order = torch.rand(count, rows * columns, generator=generator).argsort(1).argsort(1).unflatten(1, (rows, columns))
    colours = torch.rand(count, 3, rows, columns, generator=generator)
    across, down = torch.arange(width), torch.arange(height)
    row, column = (down // cell)[:, None], across // cell
    inside = (down % cell < 0.75 * cell)[:, None] & (across % cell < 0.75 * cell)
    # the last block fades in, so that the damage rises without jumps
    cover = ((share * rows * columns - order[:, row, column]).clamp(0, 1) * inside)[:, None].to(x.device)
    return x + cover * (colours[:, :, row, column].to(x.device) - x)
