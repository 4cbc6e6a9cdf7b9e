"""Enlargement that fits: a picture is looked for that shrinks to the small one and is sharp, flat, or like itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.denoisers import total_variation
from perceptloss.teach.degradations.operations import luma
from perceptloss.teach.degradations.resize import resize

__all__ = ["back_projected", "flattened", "self_similar"]

_ROUNDS = 8
_STEP = 1.5  # above 1 overshoots, as implementations in a hurry do
_WEIGHT = 0.012  # of the total variation, for each factor of enlargement
_REACH = 1
_ZOOM = 1.6  # in one step: what is alike at two scales is alike only if these are near
_PATCH = 5
_ALIKE = 1e-4  # mean squared difference of patches that still count as alike


def back_projected(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, then what is missing when it is shrunk again is added, again and again: sharp, with overshoot.

    After Irani, Peleg, "Improving resolution by image registration", CVGIP 1991.

    Args:
        small: (N, C, h, w).
        size: Height and width that are wanted.
    """
    large = resize(small, size, "bicubic")
    for _ in range(_ROUNDS):
        large = large + _STEP * resize(small - resize(large, _size(small), "area"), size, "bicubic")
    return large


def flattened(small: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture of little total variation that shrinks to the small one: sharp edges, texture gone flat.

    After Marquina, Osher, "Image super-resolution by TV-regularization and Bregman iteration", J. Sci. Comput. 2008;
    arguments as of `back_projected`.
    """
    large = resize(small, size, "bicubic")
    for _ in range(3):
        large = total_variation(large, _WEIGHT * size[0] / small.shape[-2], rounds=5)
        large = large + resize(small - resize(large, _size(small), "area"), size, "bilinear")
    return total_variation(large, _WEIGHT, rounds=5)


def self_similar(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Detail taken from patches of the small picture that look like the blurred large one, in small steps.

    After Freedman, Fattal, "Image and video upscaling from local self-examples", ACM TOG 2011; arguments as of
    `back_projected`.
    """
    zoom = max(new / old for new, old in zip(size, small.shape[-2:], strict=True))
    steps = max(1, math.ceil(math.log(zoom) / math.log(_ZOOM) - 1e-6))
    start, large = _size(small), small
    for turn in range(1, steps + 1):
        wanted = (round(start[i] * (size[i] / start[i]) ** (turn / steps)) for i in range(2))
        large = _with_detail(large, (next(wanted), next(wanted)))
    return large


def _with_detail(small: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = small.shape[-2:]
    large = resize(small, size, "bicubic")
    inner = (max(1, round(height * height / size[0])), max(1, round(width * width / size[1])))
    soft = resize(resize(small, inner, "bicubic"), (height, width), "bicubic")
    detail = (small - soft).flatten(2)
    wanted, known = _patches(large), _patches(soft)
    rows, columns = (
        ((torch.arange(new, device=small.device) + 0.5) * old / new).long()
        for new, old in zip(size, (height, width), strict=True)
    )
    total, weight = torch.zeros_like(large).flatten(2), torch.zeros_like(large[:, :1]).flatten(2)
    for down in range(-_REACH, _REACH + 1):
        for across in range(-_REACH, _REACH + 1):
            row, column = (rows + down).clamp(0, height - 1), (columns + across).clamp(0, width - 1)
            at = (row[:, None] * width + column).flatten()
            alike = (-(wanted - known[..., at]).square().mean(1, keepdim=True) / _ALIKE).exp() + 1e-8
            total, weight = total + alike * detail[..., at], weight + alike
    return large + (total / weight).unflatten(2, size)


def _patches(x: Tensor) -> Tensor:
    """The luma round each pixel at 9 places, (N, 9, H W)."""
    return F.unfold(F.pad(luma(x), (_PATCH // 2,) * 4, mode="replicate"), 3, dilation=_PATCH // 2)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
