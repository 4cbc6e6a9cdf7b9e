"""Colour: too much, too little, the wrong one, in the wrong place, or in too few steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.networks.functional import mix_channels
from perceptloss.teach.degradations.core import Degradation
from perceptloss.teach.degradations.operations import (
    direction,
    from_linear,
    from_ycbcr,
    gaussian_blur,
    grid,
    luma,
    sign,
    to_linear,
    to_ycbcr,
    uniform,
    warp,
)

__all__ = ["DEGRADATIONS", "from_lab", "to_lab"]

# linear sRGB to XYZ (IEC 61966-2-1), each row over its sum, the D65 white
_XYZ = tuple(
    tuple(weight / sum(row) for weight in row)
    for row in ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
)


def to_lab(x: Tensor) -> Tensor:
    """CIELAB of sRGB in [0, 1], D65, 2 degrees: L in [0, 100], a and b in about [-110, 110]."""
    t = mix_channels(to_linear(x), _XYZ)
    f = torch.where(t > (6 / 29) ** 3, t.clamp_min(1e-4) ** (1 / 3), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return mix_channels(f, ((0, 116, 0), (500, -500, 0), (0, 200, -200))) - x.new_tensor([16, 0, 0])[:, None, None]


def from_lab(x: Tensor) -> Tensor:
    """SRGB of CIELAB, clamped to the gamut."""
    light, a, b = x.unbind(1)
    middle = (light + 16) / 116
    f = torch.stack([middle + a / 500, middle, middle - b / 200], 1)
    t = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return from_linear(mix_channels(t, torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).tolist()))


def _scaled_chroma(x: Tensor, factor: float) -> Tensor:
    grey = luma(x)
    return grey + factor * (x - grey)


def _less_saturation(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return _scaled_chroma(x, 1 - amount)


def _more_saturation(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return _scaled_chroma(x, 1 + amount)


def _hue(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    y, blue, red = to_ycbcr(x).split(1, 1)
    angle = math.radians(degrees) * sign(x, generator)
    cosine, sine = angle.cos(), angle.sin()
    return from_ycbcr(torch.cat([y, cosine * blue - sine * red, sine * blue + cosine * red], 1))


def _cast(x: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    across, down = direction(x, generator).unbind(1)
    # warm-cold lies along red against blue, tint along green against both; none changes the mean exponent
    gains = torch.stack([across + down / 2, -down, down / 2 - across], 1)[..., None, None]
    return from_linear(to_linear(x) * 2 ** (stops * gains))


def _diffusion(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    light, chroma = to_lab(x).split((1, 2), 1)
    return from_lab(torch.cat([light, gaussian_blur(chroma, sigma)], 1))


def _aberration(x: Tensor, zoom: float, generator: torch.Generator) -> Tensor:
    height, width = x.shape[-2:]
    middle_across = (width - 1) * uniform(x, generator, 0.3, 0.7)[:, 0]
    middle_down = (height - 1) * uniform(x, generator, 0.3, 0.7)[:, 0]
    across, down = grid(x)
    zooms = zoom * sign(x, generator)[:, 0]

    def zoomed(channel: Tensor, factor: Tensor) -> Tensor:
        return warp(
            channel, middle_across + (across - middle_across) / factor, middle_down + (down - middle_down) / factor
        )

    red, green, blue = x.split(1, 1)
    return torch.cat([zoomed(red, 1 + zooms), green, zoomed(blue, 1 - zooms)], 1)


def _shifted(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    steps = pixels * direction(x, generator)[..., None, None]
    across, down = grid(x)
    green = warp(x[:, 1:2], across + steps[:, 0], down + steps[:, 1])
    return torch.cat([x[:, :1], green, x[:, 2:]], 1)


def _quantised(x: Tensor, step: float, generator: torch.Generator) -> Tensor:
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


def _blocks(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
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


_KADID = "KADID-10k, QoMEX 2019"
_TID = "TID2013, Signal Processing: Image Communication 2015"

DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation(
        "saturation-down",
        "colour",
        "share of the chroma taken away",
        (0.2, 0.4, 0.6, 0.8, 1.0),
        _less_saturation,
        source=_KADID,
    ),
    Degradation(
        "saturation-up",
        "colour",
        "share of the chroma added",
        (0.25, 0.6, 1.2, 2.2, 4.0),
        _more_saturation,
        source=_KADID,
    ),
    Degradation(
        "hue-shift",
        "colour",
        "rotation of the chroma in degrees, direction drawn",
        (10.0, 22.0, 42.0, 75.0, 130.0),
        _hue,
        source="ImageNet-C, ICLR 2019",
    ),
    Degradation(
        "colour-cast",
        "colour",
        "white balance error in stops, tint drawn",
        (0.1, 0.25, 0.5, 0.9, 1.6),
        _cast,
        source="SPAQ, CVPR 2020 (observed in smartphone photographs)",
    ),
    Degradation(
        "colour-diffusion",
        "colour",
        "standard deviation of the blur of a* and b* in pixels",
        (2.0, 4.5, 9.0, 15.0, 24.0),
        _diffusion,
        source=_KADID,
    ),
    Degradation(
        "chromatic-aberration",
        "colour",
        "zoom of red over green over blue; centre and direction drawn",
        (0.005, 0.011, 0.022, 0.042, 0.08),
        _aberration,
        source=_TID,
    ),
    Degradation(
        "colour-shift",
        "colour",
        "shift of green in pixels, direction drawn",
        (0.35, 0.8, 1.6, 3.2, 7.0),
        _shifted,
        source=_KADID,
    ),
    Degradation(
        "colour-quantisation",
        "colour",
        "step between the values left, ordered dither",
        (0.06, 0.11, 0.2, 0.33, 0.5),
        _quantised,
        source=_TID,
    ),
    Degradation(
        "colour-blocks",
        "colour",
        "share of the cells that carry a coloured block",
        (0.01, 0.03, 0.07, 0.15, 0.3),
        _blocks,
        source=_KADID,
    ),
)
