"""Blur as cameras make it, in light rather than in picture values: missed focus, and hands that shake."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.teach.degradations.blur import disc_kernel
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import smooth_field
from perceptloss.teach.degradations.operations import filter_images, from_linear, to_linear

__all__ = ["shake_kernel"]

_POINTS = 96
_PLANES = 3


@degradation("missed-focus", "blur", (1.0, 1.8, 3.0, 5.0, 8.0), "SPAQ, CVPR 2020; CID2013 (out of focus)")
def _missed_focus(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Radius in pixels of the disc in the farthest plane; map of depths and the nearest plane's share drawn."""
    depth = smooth_field(x, generator, 2)
    nearest = 0.1 + 0.6 * float(torch.rand((), generator=generator))
    light = to_linear(x)
    place = (_PLANES - 1) * depth
    out = torch.zeros_like(x)
    for plane in range(_PLANES):
        share = (1 - (place - plane).abs()).clamp_min(0)
        spread = radius * (nearest + (1 - nearest) * plane / (_PLANES - 1))
        out += share * filter_images(light, disc_kernel(spread).to(x.device)[None])
    return from_linear(out)


def shake_kernel(path: Tensor, length: float) -> Tensor:
    """A path's light, spread bilinearly, (k, k), sum 1.

    Args:
        path: Places (across, down) over time, (T, 2), about 0 and of extent 1.
        length: Extent in pixels.
    """
    radius = math.ceil(length / 2) + 1
    taps = torch.arange(-radius, radius + 1, device=path.device, dtype=path.dtype)
    across, down = (1 - (length * path.T[..., None] - taps).abs()).clamp_min(0)
    kernel = down.T @ across
    return kernel / kernel.sum()


def _path(generator: torch.Generator) -> Tensor:
    """A hand's path: inertia, tremor, and now and then a jerk (after Boracchi, Foi, TIP 2012)."""
    pushes = torch.randn(_POINTS, 2, generator=generator)
    jerks = (torch.rand(_POINTS, 1, generator=generator) < 0.03) * 12.0
    speed, place, path = torch.randn(2, generator=generator) * 2, torch.zeros(2), []
    for push in pushes * (1 + jerks):
        speed = 0.95 * speed + 0.35 * push - 0.02 * place
        place = place + speed
        path.append(place)
    line = torch.stack(path)
    low, high = line.amin(0), line.amax(0)
    return (line - (low + high) / 2) / (high - low).amax()


@degradation("hand-shake", "blur", (3.0, 5.5, 10.0, 17.0, 28.0), "Boracchi, Foi, Modeling Motion Blur, TIP 2012")
def _hand_shake(x: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Extent in pixels of a random path during the exposure."""
    kernel = shake_kernel(_path(generator).to(x.device), length)
    return from_linear(filter_images(to_linear(x), kernel[None]))
