"""Choosing textured crops of a photograph."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from perceptloss.compare.images import read
from perceptloss.compare.pixels import shrink
from perceptloss.networks.functional import LUMA
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.sets.plan import Plan, content_name
from perceptloss.teach.sets.schedule import derived

__all__ = ["crops_of"]

Pixels = NDArray[np.uint8]
Place = tuple[int, int]

_CANDIDATES: Final = 4
_TRIES: Final = 32
_SHARED: Final = 0.25  # part of a crop that an earlier one may cover
_BIG: Final = 1024  # long side, in pixels, above which a photograph is also seen from farther away
_WEIGHTS: Final = np.array(LUMA, dtype=np.float32)


def crops_of(plan: Plan, index: int) -> list[Pixels]:
    """Clean crops of the plan's photograph `index`, each (3, S, S) uint8.

    Of four places that earlier crops leave free, as far as there is room, the one whose luma deviates most is taken.
    A photograph with a side above 1024 gives every other crop from its halved version (means of 2x2 pixels).
    """
    photo = plan.photos[index]
    full: Pixels = read(photo, TAUGHT).astype(np.uint8, copy=False)
    generator = torch.Generator().manual_seed(derived(plan.seed, "crops", content_name(photo)))
    sides = full.shape[:2]
    scales = [full]
    if max(sides) > _BIG and min(sides) // 2 >= plan.crop:
        scales.append(shrink(full, 2))
    first = int(torch.randint(len(scales), (), generator=generator))
    taken: list[list[Place]] = [[] for _ in scales]
    found = []
    for number in range(plan.crops_per_photo):
        scale = (first + number) % len(scales)
        top, left = _place(scales[scale], plan.crop, taken[scale], generator)
        taken[scale].append((top, left))
        window = scales[scale][top : top + plan.crop, left : left + plan.crop]
        found.append(np.ascontiguousarray(window.transpose(2, 0, 1)))
    return found


def _place(pixels: Pixels, side: int, taken: list[Place], generator: torch.Generator) -> Place:
    height, width = pixels.shape[:2]
    high = torch.tensor([height - side + 1, width - side + 1], dtype=torch.float64)
    draws = (torch.rand(_TRIES, 2, generator=generator, dtype=torch.float64) * high).long().tolist()
    covered = [max((_overlap(draw, other, side) for other in taken), default=0.0) for draw in draws]
    order = sorted(range(_TRIES), key=lambda i: max(covered[i], _SHARED))  # stable: free places in the order drawn
    top, left = max((draws[i] for i in order[:_CANDIDATES]), key=lambda place: _deviation(pixels, place, side))
    return int(top), int(left)


def _overlap(a: Place, b: Place, side: int) -> float:
    down, across = (max(0, side - abs(p - q)) for p, q in zip(a, b, strict=True))
    return down * across / side**2


def _deviation(pixels: Pixels, place: Place, side: int) -> float:
    top, left = place
    return float((pixels[top : top + side, left : left + side].astype(np.float32) @ _WEIGHTS).std())
