"""Damage to a stereo pair, left RGB and right RGB in six channels: one view worse, or the two at odds.

`stereo_pair` makes pairs from photographs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import SMALLEST_SIDE, degradation, summary
from perceptloss.teach.degradations.fields import smooth_field
from perceptloss.teach.degradations.generative import wrong_texture
from perceptloss.teach.degradations.operations import gaussian_blur, grid, normal, shift_rows, sign, uniform, warp

__all__ = ["stereo_pair"]

_SURFACES = 4
_KOOI = "Kooi, Toet, Visual comfort of binocular and 3D displays, Displays 2004"


def stereo_pair(x: Tensor, seed: int, max_disparity: float, disparity: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A synthetic pair of views of a photograph: a few surfaces at distances of their own, none of them flat.

    The right view at column u shows what the left view shows at column u + d, with d >= 0 as between parallel
    cameras. The pair is narrower than x by the largest disparity, so that every pixel is the photograph's.

    Args:
        x: Photographs, (N, 3, H, W) in [0, 1].
        seed: Of the surfaces.
        max_disparity: In pixels; 0 gives equal views.
        disparity: A map to use instead of a drawn one, in the right view, (N, 1, H, W - ceil(max_disparity)).

    Returns:
        Pairs, (N, 6, H, W - ceil(max_disparity)), and their disparity d, (N, 1, ...), in the right view, in pixels.

    Raises:
        InputError: x is no batch of images, too narrow for such a disparity, or the map does not fit.
    """
    margin = math.ceil(max_disparity) if math.isfinite(max_disparity) and max_disparity >= 0 else None
    if x.ndim != 4 or x.shape[1] != 3 or margin is None or min(x.shape[2], x.shape[3] - margin) < SMALLEST_SIDE:
        raise InputError(
            f"stereo_pair needs images (N, 3, H, W) of at least {SMALLEST_SIDE} rows and as many columns more than "
            f"max_disparity >= 0; got {tuple(x.shape)} and max_disparity={max_disparity}."
        )
    left = x[..., : x.shape[3] - margin]
    expected = (x.shape[0], 1, *left.shape[2:])
    if disparity is None:
        disparity = max_disparity * _surfaces(left, torch.Generator().manual_seed(seed))
    elif disparity.shape != expected or not bool(((disparity >= 0) & (disparity <= max_disparity)).all()):
        raise InputError(
            f"disparity: expected {expected} in [0, {max_disparity}], got {tuple(disparity.shape)} "
            f"from {disparity.min():.4g} to {disparity.max():.4g}."
        )
    whole = disparity.floor()
    columns = (torch.arange(left.shape[3], device=x.device) + whole.long()).expand(-1, 3, -1, -1)
    near, far = x.gather(3, columns), x.gather(3, (columns + 1).clamp_max(x.shape[3] - 1))
    return torch.cat([left, near.lerp(far, disparity - whole)], 1), disparity


def _surfaces(x: Tensor, generator: torch.Generator) -> Tensor:
    """Nearness from 0 to 1 of a few sloping, wavy surfaces in front of each other, (N, 1, H, W)."""
    region = smooth_field(x, generator, 3, channels=_SURFACES).argmax(1, keepdim=True)
    height, width = x.shape[2:]
    across, down = (place.expand(height, width) for place in grid(x))
    offset, right, below = torch.rand(3, x.shape[0], _SURFACES, 1, 1, generator=generator).to(x.device)
    plane = offset + 0.3 * (right - 0.5) * across / width + 0.3 * (below - 0.5) * down / height
    near = (plane + 0.15 * smooth_field(x, generator, 3, channels=_SURFACES)).gather(1, region)
    near = gaussian_blur(near, 0.7)
    low, high = near.amin((2, 3), keepdim=True), near.amax((2, 3), keepdim=True)
    return ((near - low) / (high - low)).clamp(0, 1)


View = Callable[[Tensor, float, torch.Generator], Tensor]


def _one_view(x: Tensor, value: float, generator: torch.Generator, *, change: View) -> Tensor:
    """One view of each pair changed, drawn which."""
    left, right = x.split(3, 1)
    is_left = uniform(x, generator) < 0.5
    changed = change(torch.where(is_left, left, right), value, generator)
    return torch.cat([torch.where(is_left, changed, left), torch.where(is_left, right, changed)], 1)


def _in_one_view(
    name: str, values: tuple[float, ...], source: str = "LIVE 3D phase II (asymmetric), 2013", identity: float = 0.0
) -> Callable[[View], View]:
    """Register the change of a view below it; its docstring as for `degradation`."""

    def registered(change: View) -> View:
        function = partial(_one_view, change=change)
        function.__doc__ = f"{summary(change)}; in one view, drawn which."
        degradation(name, "stereo", values, source, identity=identity, channels=6)(function)
        return change

    return registered


@_in_one_view("asymmetric-blur", (0.7, 1.3, 2.1, 3.4, 5.5), identity=0.3)
def _blurred(view: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Standard deviation in pixels."""
    return gaussian_blur(view, sigma)


@_in_one_view("asymmetric-noise", (0.03, 0.06, 0.11, 0.19, 0.32))
def _noisy(view: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation."""
    return view + std * normal(view, generator)


@_in_one_view("asymmetric-jpeg", (50.0, 28.0, 16.0, 9.0, 4.0), identity=100.0)
def _coded(view: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality, 1 to 100."""
    return jpeg(view, quality)


@_in_one_view("asymmetric-brightness", (0.08, 0.2, 0.4, 0.75, 1.4), "Middlebury 2014 (exposure changes), GCPR 2014")
def _brighter(view: Tensor, stops: float, generator: torch.Generator) -> Tensor:
    """Factor on the sRGB values in stops, sign drawn."""
    return view * 2.0 ** (stops * sign(view, generator))


@_in_one_view("vertical-misalignment", (0.5, 1.0, 2.0, 4.0, 8.0), _KOOI)
def _misaligned(view: Tensor, rows: float, generator: torch.Generator) -> Tensor:
    """Rows, up or down drawn."""
    return shift_rows(view, rows * sign(view, generator))


@_in_one_view("disparity-scale", (0.005, 0.012, 0.025, 0.05, 0.09), _KOOI)
def _stretched(view: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share by which the view is wider or narrower about its middle."""
    across, down = grid(view)
    middle = (view.shape[3] - 1) / 2
    return warp(view, middle + (across - middle) / (1 + share * sign(view, generator)[:, 0]), down)


_in_one_view(
    "texture-mismatch",
    (0.08, 0.25, 0.6, 1.2, 4.0),
    "views restored one by one, as in NTIRE stereo super-resolution, CVPRW 2022",
)(wrong_texture)


@degradation(
    "crosstalk",
    "stereo",
    (0.03, 0.07, 0.13, 0.22, 0.36),
    "IVY LAB crosstalk studies; Kooi, Toet, Displays 2004",
    channels=6,
)
def _crosstalk(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of each view that the other eye sees."""
    left, right = x.split(3, 1)
    return torch.cat([left + share * (right - left), right + share * (left - right)], 1)
