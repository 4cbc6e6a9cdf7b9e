"""Pictures taken through water: light lost by colour and distance, veil, scatter, snow, and bad enhancement.

The image formation is Jaffe-McGlamery's with the separate coefficients of Akkaynak and Treibitz ("A revised
underwater image formation model", CVPR 2018): in linear light, I = J exp(-a z) + B (1 - exp(-b z)) for each
channel, z a smooth random distance. Attenuation is that of Jerlov's water types, as transmission per metre at
red, green and blue (after Li, Anwar, Porikli, "Underwater scene prior inspired deep underwater image and video
enhancement", Pattern Recognition 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import smooth_field
from perceptloss.teach.degradations.operations import from_linear, gaussian_blur, luma, to_linear, uniform

__all__ = ["COASTAL", "OCEANIC", "attenuation", "formation"]

OCEANIC = {
    "I": (0.805, 0.961, 0.982),
    "IA": (0.804, 0.955, 0.975),
    "IB": (0.830, 0.950, 0.968),
    "II": (0.800, 0.925, 0.940),
    "III": (0.750, 0.885, 0.890),
}
"""Transmission per metre at red, green and blue in the open sea: blue goes farthest."""

COASTAL = {"1": (0.750, 0.885, 0.875), "3": (0.710, 0.820, 0.800), "5": (0.670, 0.730, 0.670)}
"""The same near a coast, where green goes farthest."""

_BLUE = {name: OCEANIC[name] for name in ("I", "IA", "IB", "II")}  # type III is as green as blue
_DOWN = 12.0  # metres of water over the scene, which colour the veil


_REVISED = "Akkaynak, Treibitz, CVPR 2018"


def attenuation(water: dict[str, tuple[float, float, float]]) -> Tensor:
    """Coefficients per metre of each type of water, (types, 3)."""
    return -torch.tensor(list(water.values())).log()


def formation(x: Tensor, distance: Tensor, direct: Tensor, back: Tensor, veil: Tensor) -> Tensor:
    """A scene seen through water.

    Args:
        x: Clear images, (N, 3, H, W), sRGB in [0, 1].
        distance: In metres, (N, 1, H, W).
        direct: Attenuation of the scene's light per metre, (N, 3, 1, 1).
        back: The veil's coefficient per metre, (N, 3, 1, 1).
        veil: Light of water without end, linear, (N, 3, 1, 1).

    Returns:
        sRGB images in [0, 1].
    """
    return from_linear(to_linear(x) * (-direct * distance).exp() + veil * (1 - (-back * distance).exp()))


def _water(
    x: Tensor, generator: torch.Generator, water: dict[str, tuple[float, float, float]]
) -> tuple[Tensor, Tensor]:
    """Coefficients of a drawn type of water and the colour of its veil, both (N, 3, 1, 1)."""
    pick = torch.randint(len(water), (x.shape[0],), generator=generator)
    lost = attenuation(water)[pick][..., None, None].to(x.device)
    colour = (-_DOWN * lost).exp()
    return lost, colour / colour.amax(1, keepdim=True) * uniform(x, generator, 0.15, 0.4)


def _distance(x: Tensor, mean: float, generator: torch.Generator) -> Tensor:
    return mean * (0.4 + 1.2 * smooth_field(x, generator))


@degradation("underwater-attenuation", "underwater", (0.4, 1.0, 2.2, 4.5, 9.0), _REVISED)
def _attenuated(x: Tensor, metres: float, generator: torch.Generator) -> Tensor:
    """Mean distance in metres; oceanic water drawn, no veil."""
    lost, veil = _water(x, generator, OCEANIC)
    return formation(x, _distance(x, metres, generator), lost, lost, 0 * veil)


@degradation("underwater-veil", "underwater", (0.08, 0.2, 0.45, 0.9, 1.8), _REVISED)
def _veiled(x: Tensor, thickness: float, generator: torch.Generator) -> Tensor:
    """Mean optical thickness of backscatter; its colour drawn."""
    lost, veil = _water(x, generator, {**OCEANIC, **COASTAL})
    even = torch.ones_like(lost)
    return formation(x, _distance(x, thickness, generator), even, even, veil)


@degradation(
    "underwater-blur", "underwater", (0.7, 1.2, 1.9, 3.0, 5.0), "Jaffe, IEEE Journal of Oceanic Engineering 1990"
)
def _scattered(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Mean standard deviation of forward scatter in pixels, half as much near, 1.5 times as much far."""
    near = gaussian_blur(x, 0.5 * sigma)
    far = gaussian_blur(near, math.sqrt(1.5**2 - 0.5**2) * sigma)
    return near.lerp(far, smooth_field(x, generator))


@degradation(
    "underwater-snow",
    "underwater",
    (0.002, 0.005, 0.012, 0.028, 0.06),
    "Sato, Ueda, Tanaka, Marine snow removal benchmarking dataset, 2021",
)
def _snow(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of pixels with a particle of marine snow."""
    height, width = x.shape[2:]
    rank = torch.rand(x.shape[0], height * width, generator=generator).argsort(1).argsort(1) / (height * width)
    kind = torch.randint(3, rank.shape, generator=generator)
    light = (1 - rank / max(share, 1e-9)).clamp_min(0)  # a particle fades in, so that each level adds to the last
    veil = torch.zeros(x.shape[0], 1, height, width, device=x.device)
    for number, sigma in enumerate((0.6, 1.1, 2.0)):
        dots = torch.where(kind == number, light, 0).reshape(-1, 1, height, width).to(x.device)
        veil = veil + 4.0 * sigma * gaussian_blur(dots, sigma)
    tint = x.new_tensor([0.85, 0.95, 1.0])[:, None, None]
    return x + (tint - x) * veil.clamp_max(0.95)


def _cast(x: Tensor, metres: float, generator: torch.Generator, water: dict[str, tuple[float, float, float]]) -> Tensor:
    """Everything at once, exposed like the clear picture, as a camera would."""
    lost, veil = _water(x, generator, water)
    seen = to_linear(formation(x, _distance(x, metres, generator), lost, lost, veil))
    exposure = (luma(to_linear(x)).mean((2, 3), keepdim=True) + 1e-3) / (luma(seen).mean((2, 3), keepdim=True) + 1e-3)
    return from_linear(seen * exposure.clamp(1, 8))


@degradation("underwater-green-cast", "underwater", (0.4, 0.9, 1.9, 3.6, 6.5), _REVISED)
def _green_cast(x: Tensor, metres: float, generator: torch.Generator) -> Tensor:
    """Mean distance in metres of coastal water; attenuation, veil and exposure."""
    return _cast(x, metres, generator, COASTAL)


@degradation("underwater-blue-cast", "underwater", (0.5, 1.3, 2.8, 5.5, 11.0), _REVISED)
def _blue_cast(x: Tensor, metres: float, generator: torch.Generator) -> Tensor:
    """Mean distance in metres of oceanic water; attenuation, veil and exposure."""
    return _cast(x, metres, generator, _BLUE)


@degradation(
    "over-enhanced",
    "underwater",
    (0.12, 0.28, 0.55, 1.0, 1.8),
    "results of colour compensation and stretching, as in UIEB, TIP 2020",
)
def _over_enhanced(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Contrast and saturation added, with a red cast."""
    gains = 1 + strength * uniform(x, generator, 0.7, 1.3) * x.new_tensor([1.0, 0.8, 0.8])[:, None, None]
    mean = x.mean((2, 3), keepdim=True)
    stretched = mean + gains * (x - mean)
    red = x.new_tensor([0.16, -0.02, 0.04])[:, None, None] * strength * uniform(x, generator, 0.5, 1.5)
    stretched = stretched + red * (1 - (2 * mean - 1).square())
    grey = luma(stretched)
    return grey + (1 + strength) * (stretched - grey)
