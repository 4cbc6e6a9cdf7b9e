"""Shrinking and enlarging again by the filters that image software uses, well and badly."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from perceptloss.teach.degradations.core import (
    KADID,
    PIPAL,
    REAL_ESRGAN,
    Degradation,
    degradation,
    register_degradation,
)

__all__ = ["FILTERS", "resample_matrix", "resize"]


def _triangle(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp_min(0)


def _cubic(t: Tensor) -> Tensor:
    t = t.abs()
    near, far = (1.5 * t - 2.5) * t * t + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
    return torch.where(t <= 1, near, torch.where(t <= 2, far, 0))


def _mitchell(t: Tensor) -> Tensor:
    t = t.abs()
    near, far = (7 * t - 12) * t * t + 16 / 3, ((12 - 7 / 3 * t) * t - 20) * t + 32 / 3
    return torch.where(t <= 1, near, torch.where(t <= 2, far, 0)) / 6


def _spline(t: Tensor) -> Tensor:
    t = t.abs()
    return torch.where(t <= 1, 2 / 3 + (t / 2 - 1) * t * t, (2 - t).clamp_min(0) ** 3 / 6)


def _lanczos(t: Tensor) -> Tensor:
    return torch.sinc(t) * torch.sinc(t / 3) * (t.abs() < 3)


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos": _lanczos,
    "mitchell": _mitchell,
    "b-spline": _spline,
}


@lru_cache(maxsize=256)
def resample_matrix(old: int, new: int, name: str, antialias: bool) -> Tensor:
    """Weights (new, old) of a one-dimensional resampling, pixel areas aligned, rows of sum 1.

    Args:
        old: Samples before.
        new: Samples after.
        name: "nearest", "area" (mean over the new pixel's extent) or one of `FILTERS`.
        antialias: Widen the filters of `FILTERS` when shrinking.
    """
    step = old / new
    centre = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * step
    place = torch.arange(old, dtype=torch.float64)
    if name == "nearest":
        weights = (place == centre.floor()).double()
    elif name == "area":
        ends = torch.minimum(centre + step / 2, place + 1) - torch.maximum(centre - step / 2, place)
        weights = ends.clamp_min(0)
    else:
        weights = FILTERS[name]((place + 0.5 - centre) / (max(step, 1.0) if antialias else 1.0))
    return (weights / weights.sum(1, keepdim=True)).float()


def resize(x: Tensor, size: tuple[int, int], name: str, *, antialias: bool = True) -> Tensor:
    """Images (..., H, W) resampled to `size`; names as in `resample_matrix`."""
    rows, columns = (
        resample_matrix(old, new, name, antialias).to(x.device) for old, new in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


_SHARP = (1.5, 2.2, 3.2, 4.8, 8.0)
_WHAT = "factor of shrinking before it is enlarged again"


def _there_and_back(
    x: Tensor, factor: float, generator: torch.Generator, *, down: str, up: str, antialias: bool = True
) -> Tensor:
    height, width = x.shape[-2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    return resize(resize(x, small, down, antialias=antialias), (height, width), up)


@degradation("mixed-resize", "resize", _SHARP, REAL_ESRGAN, identity=1.0)
def _mixed(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Factor of shrinking before it is enlarged again; both filters drawn."""
    names = ("area", "bilinear", "bicubic", "lanczos")
    picks = torch.randint(len(names), (x.shape[0], 2), generator=generator).tolist()
    return torch.cat(
        [
            _there_and_back(image[None], factor, generator, down=names[a], up=names[b])
            for image, (a, b) in zip(x, picks, strict=True)
        ]
    )


def _register(name: str, values: tuple[float, ...], source: str, down: str, up: str, antialias: bool = True) -> None:
    function = partial(_there_and_back, down=down, up=up, antialias=antialias)
    how = f"{_WHAT}; {down} down{'' if antialias else ' without antialiasing'}, {up} up"
    register_degradation(Degradation(name, "resize", how, values, function, identity=1.0, source=source))


_register("bilinear-resize", (1.25, 1.7, 2.5, 4.0, 7.0), REAL_ESRGAN, "bilinear", "bilinear")
_register("bicubic-resize", _SHARP, REAL_ESRGAN, "bicubic", "bicubic")
_register("lanczos-resize", _SHARP, KADID, "lanczos", "lanczos")
_register("area-resize", _SHARP, REAL_ESRGAN, "area", "bicubic")
_register("pixelate", (1.15, 1.5, 2.2, 3.2, 5.5), KADID, "area", "nearest")
_register("nearest-resize", (1.1, 1.3, 1.9, 2.8, 5.0), PIPAL, "nearest", "nearest")
_register("aliased-resize", (1.3, 1.8, 2.6, 4.0, 7.0), "OpenCV's INTER_CUBIC", "bicubic", "bicubic", antialias=False)
