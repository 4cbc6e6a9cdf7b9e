"""Enlargement along edges: the missing pixels are made of the neighbours that lie along an edge, not across it.

Both methods double a picture in two passes: first the pixels in the middle of four known ones, then the rest, which
stand in a lattice of the same kind turned by 45 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import slide
from perceptloss.teach.degradations.operations import luma
from perceptloss.teach.degradations.resize import FILTERS

__all__ = ["by_covariance", "by_gradient", "doubled_until"]

_MARGIN = 4  # known pixels round the picture that its border is made of
_POWER = 2.5  # of squared gradients; the paper weighs by the fifth power of gradients
_NOISE = 1e-6  # variance below which the four neighbours count alike
_WINDOW = 7

Fill = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Takes pictures (1, C, H, W), their luma, a mask of the pixels to fill, (1, 1, H, W), and which of `_AXES`."""

_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_STRAIGHT = ((0, -1), (-1, 0), (1, 0), (0, 1))
_AXES = (_DIAGONAL, _STRAIGHT)  # each: a, b, -b, -a


def _moved(x: Tensor, down: int, across: int, by: int = 1) -> Tensor:
    """What stands so many pixels away; wraps round, which the margin hides."""
    return x.roll((-by * down, -by * across), (-2, -1))


def _box(maps: Tensor, size: int) -> Tensor:
    padded = F.pad(maps, (size // 2,) * 4, mode="replicate")
    return slide(slide(padded, (1.0,) * size, -1), (1.0,) * size, -2)


def by_gradient(x: Tensor, grey: Tensor, missing: Tensor, turn: int) -> Tensor:
    """Cubic interpolation along the direction of the smaller gradients.

    After Zhou, Shen, Dong, "Image zooming using directional cubic convolution interpolation", IET Image Processing
    2012; arguments as of `Fill`.
    """
    found, weights = [], []
    for step in _AXES[turn][:2]:
        ahead, behind = _moved(grey, *step), _moved(grey, *step, by=-1)
        gradient = _box((ahead - behind).abs() * missing, 5)
        weights.append(1 / (gradient.square() + 1e-3) ** _POWER)
        near = _moved(x, *step) + _moved(x, *step, by=-1)
        far = _moved(x, *step, by=3) + _moved(x, *step, by=-3)
        found.append((9 * near - far) / 16)
    return (weights[0] * found[0] + weights[1] * found[1]) / (weights[0] + weights[1])


def by_covariance(x: Tensor, grey: Tensor, missing: Tensor, turn: int) -> Tensor:
    """Four neighbours weighted by least squares over the known pixels nearby and their neighbours twice as far.

    After Li, Orchard, "New edge-directed interpolation", TIP 2001; arguments as of `Fill`.
    """
    known = _known(missing, turn)
    mean = _box(grey * known, 2 * _WINDOW + 1) / _box(known, 2 * _WINDOW + 1)
    far = [_moved(grey, *step, by=2) - mean for step in _AXES[turn]]
    own = grey - mean
    products = [far[a] * far[b] for a in range(4) for b in range(a + 1)] + [own * f for f in far]
    sums = _box(torch.cat(products, 1) * known, 2 * _WINDOW + 1)
    rows, columns = missing[0, 0].nonzero(as_tuple=True)
    values = sums[0, :, rows, columns].T
    lower = torch.tril_indices(4, 4)
    matrix = values.new_zeros(len(values), 4, 4)
    matrix[:, lower[0], lower[1]] = values[:, :10]
    matrix[:, lower[1], lower[0]] = values[:, :10]
    prior = _NOISE * (2 * _WINDOW + 1) ** 2
    matrix = matrix + prior * torch.eye(4, device=x.device)
    weights = torch.linalg.solve(matrix, values[:, 10:] + prior / 4).clamp(-1, 1.5)
    weights = weights + (1 - weights.sum(1, keepdim=True)) / 4
    near = torch.stack([_moved(x, *step)[0, :, rows, columns] for step in _AXES[turn]], -1)
    out = x.clone()
    # an ill-posed fit must not leave the range of what it is made of
    out[0, :, rows, columns] = (near * weights).sum(-1).clamp(near.amin(-1), near.amax(-1))
    return out


def _known(missing: Tensor, turn: int) -> Tensor:
    """Pixels known before a pass: every second of every second row, then the quincunx of these and the first pass's."""
    if turn:
        return 1 - missing
    return missing.roll((1, 1), (-2, -1))


def _doubled(x: Tensor, fill: Fill) -> Tensor:
    """Twice as many samples along both axes; known ones stay where they are, at even places."""
    height, width = x.shape[-2:]
    out = x.new_zeros(*x.shape[:2], 2 * height, 2 * width)
    out[..., ::2, ::2] = x
    middle, rest = x.new_zeros(2, 1, 1, 2 * height, 2 * width)
    middle[..., 1::2, 1::2] = 1
    rest[..., ::2, 1::2] = rest[..., 1::2, ::2] = 1
    for turn, missing in enumerate((middle, rest)):
        out = torch.where(missing > 0, fill(out, luma(out), missing, turn), out)
    return out


def doubled_until(small: Tensor, size: tuple[int, int], fill: Fill) -> Tensor:
    """Pictures doubled until they are as large as `size` or larger, then resampled to it, pixel areas aligned.

    Args:
        small: (N, C, h, w).
        size: Height and width that are wanted.
        fill: `by_gradient` or `by_covariance`.
    """
    height, width = small.shape[-2:]
    times = max(1, math.ceil(math.log2(max(size[0] / height, size[1] / width)) - 1e-6))
    done = []
    for image in small.split(1) if len(small) else ():
        large = F.pad(image, (_MARGIN,) * 4, mode="replicate")
        for _ in range(times):
            large = _doubled(large, fill)
        rows, columns = (_sampling(old, new, times).to(large) for old, new in zip((height, width), size, strict=True))
        done.append(rows @ large @ columns.T)
    return torch.cat(done) if done else small.new_zeros(0, small.shape[1], *size)


def _sampling(old: int, new: int, times: int) -> Tensor:
    """Cubic weights (new, samples): sample j of a line doubled so often lies j / 2^times after the first known one."""
    scale = 2**times
    place = torch.arange(scale * (old + 2 * _MARGIN), dtype=torch.float64)
    wanted = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5 + _MARGIN) * scale
    weights = FILTERS["bicubic"]((place - wanted[:, None]) / max(1.0, scale * old / new))
    return (weights / weights.sum(1, keepdim=True)).float()
