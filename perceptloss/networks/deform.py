"""Deformable convolution in plain torch.

Dai et al.: "Deformable Convolutional Networks", ICCV 2017. Numbers are those of
`torchvision.ops.deform_conv2d` with one group, no dilation and no modulation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.errors import InputError

__all__ = ["deform_conv2d"]


def deform_conv2d(
    h: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 1
) -> Tensor:
    """Convolution whose taps are moved, pixel by pixel, and read between pixels bilinearly.

    Works tap by tap: with a frozen weight, and offsets that carry no gradient, the backward pass
    keeps positions but no samples.

    Args:
        h: Feature maps, (N, C, H, W); 0 outside.
        offset: How far the taps are moved, in pixels, (N, 2 kh kw, H', W'): channels 2k and 2k + 1
            move tap k (row by row) down and to the right.
        weight: Kernel, (C', C, kh, kw).
        bias: Added to every pixel, (C',).
        stride: Step between the pixels of the result.
        padding: How far the first kernel reaches over the border.

    Returns:
        Maps, (N, C', H', W') with H' = (H + 2 padding - kh) // stride + 1.

    Raises:
        InputError: if the offsets do not fit.
    """
    n, _, height, width = h.shape
    made, _, kh, kw = weight.shape
    rows, columns = ((side + 2 * padding - k) // stride + 1 for side, k in ((height, kh), (width, kw)))
    if offset.shape != (n, 2 * kh * kw, rows, columns):
        raise InputError(f"expected offsets of shape {(n, 2 * kh * kw, rows, columns)}, got {tuple(offset.shape)}.")
    pixels = rearrange(h, "n c h w -> (n h w) c")
    top = torch.arange(-padding, rows * stride - padding, stride, dtype=h.dtype, device=h.device)[:, None]
    left = torch.arange(-padding, columns * stride - padding, stride, dtype=h.dtype, device=h.device)
    total = (h.new_zeros(made) if bias is None else bias).expand(n * rows * columns, made)
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        samples = _between(pixels, top + i + offset[:, 2 * tap], left + j + offset[:, 2 * tap + 1], height, width)
        total = torch.addmm(total, samples, weight[:, :, i, j].t())
    return rearrange(total, "(n h w) c -> n c h w", n=n, h=rows)


def _between(pixels: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear samples of images given as (N height width, C), at positions (N, ...) each: (positions, C)."""
    image = torch.arange(len(y), device=y.device).view(-1, *(1,) * (y.ndim - 1)) * (height * width)
    y, x = y.clamp(-1, height), x.clamp(-1, width)  # as far outside as still matters
    above, before = y.detach().floor(), x.detach().floor()
    total: Tensor | None = None
    for row, of_row in ((above, 1 - (y - above)), (above + 1, y - above)):
        for column, of_column in ((before, 1 - (x - before)), (before + 1, x - before)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            # clamped as integers: a position that is not a number must give NaN, not a wrong address
            place = image + row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
            share = (of_row * of_column * inside).flatten()[:, None]
            corner = F.embedding(place.flatten(), pixels) * share
            total = corner if total is None else total + corner
    assert total is not None
    return total
