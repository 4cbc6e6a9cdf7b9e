"""How far apart one formula may come out twice: a processor sums in the order that suits its registers.

The order of a sum depends on the kernel, and the kernel on shape, layout, graph and processor. So bits can be
asked for only of the same call on the same shape; the samples of a batch, a crop, a micro-batch or another
gradient mode agree to the rounding of the sums in between.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["are_apart", "assert_same", "rounding"]


def rounding(dtype: torch.dtype, terms: int = 4608, layers: int = 16) -> float:
    """Relative error of `layers` sums of `terms` products in another order: eps sqrt(terms) each, at worst aligned.

    The defaults are a VGG's: 512 channels under a 3x3 kernel, 16 weighted layers. About 1.3e-4 in fp32 and 2.4e-13
    in float64; a wrong sample, scale or sign is thousands of times that.
    """
    return layers * math.sqrt(terms) * torch.finfo(dtype).eps


def assert_same(found: Tensor, expected: Tensor, terms: int = 4608, layers: int = 16) -> None:
    """Equal but for the order of sums, whose error is a share of the largest entry and not of each."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(expected.dtype, terms, layers) * scale)


def are_apart(found: Tensor, other: Tensor) -> Tensor:
    """Which entries differ by far more than another order of sums could make them, boolean."""
    scale = torch.maximum(found.abs().max(), other.abs().max())
    return (found - other).abs() > 100 * rounding(found.dtype) * scale
