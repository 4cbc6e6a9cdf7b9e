"""Linear operations of the formula critics whose gradients are written out: mixing, halving, sliding windows, edges.

They keep no tensor for the backward pass, work in place, and call no convolution or matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["edge_magnitude", "halve", "mix_channels", "slide"]

Rows = tuple[tuple[float, ...], ...]


class _Mix(torch.autograd.Function):
    """Keeps no tensor, as all linear ones here: the gradient is the transposed operation, differentiable again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        first, *others = x.unbind(1)
        out = x.new_empty(len(x), len(rows), *x.shape[2:])
        scaled = torch.empty_like(first)
        for plane, (weight, *weights) in zip(out.unbind(1), rows, strict=True):
            if torch.compiler.is_compiling():  # no graph has an `out` with gaps, as planes of two images are
                plane.copy_(first * weight)
            else:
                torch.mul(first, weight, out=plane)
            for other, w in zip(others, weights, strict=True):  # each product rounded, whatever the processor fuses
                plane.add_(torch.mul(other, w, out=scaled))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Mix.apply(grads[0], tuple(zip(*ctx.rows, strict=True))), None


def mix_channels(x: Tensor, rows: Sequence[Sequence[float]]) -> Tensor:
    """Linear colour conversion, (N, C, H, W) to (N, len(rows), H, W), each row with C weights."""
    out: Tensor = _Mix.apply(x, tuple(map(tuple, rows)))
    return out


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pairs = x[..., ::2, :] + x[..., 1::2, :]
        return (pairs[..., ::2] + pairs[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Double.apply(grads[0])


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        *planes, height, width = g.shape
        shared = (g * 0.25)[..., :, None, :, None].expand(*planes, height, 2, width, 2)
        return shared.reshape(*planes, 2 * height, 2 * width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Halve.apply(grads[0])


def halve(x: Tensor) -> Tensor:
    """2x2 averages; an odd side gets a line of zeros at its end before."""
    rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
    if rows or columns:
        x = F.pad(x, (0, columns, 0, rows))
    out: Tensor = _Halve.apply(x)
    return out


class _Slide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[float, ...], dim: int) -> Tensor:
        ctx.window, ctx.dim = window, dim
        size = x.shape[dim] - len(window) + 1
        out = x.narrow(dim, 0, size) * window[0]
        for i, weight in enumerate(window[1:], 1):
            out.add_(x.narrow(dim, i, size), alpha=weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(grads[0], ctx.window, ctx.dim), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, window: tuple[float, ...], dim: int) -> Tensor:
        ctx.window, ctx.dim = window, dim
        sides, size = list(g.shape), g.shape[dim]
        sides[dim] += len(window) - 1
        out = g.new_zeros(sides)
        for i, weight in enumerate(window):
            out.narrow(dim, i, size).add_(g, alpha=weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Slide.apply(grads[0], ctx.window, ctx.dim), None, None


def slide(x: Tensor, window: tuple[float, ...], dim: int) -> Tensor:
    """Correlation with a window of k taps along `dim`, -1 or -2, which shrinks by k - 1."""
    out: Tensor = _Slide.apply(x, window, dim)
    return out


def _derivative(p: Tensor, weights: tuple[float, float], dim: int) -> Tensor:
    """Central difference along `dim`, smoothed across it, of maps with a margin of one pixel, which is lost."""
    (side, centre), across = weights, -3 - dim
    length, width = p.shape[dim] - 2, p.shape[across] - 2
    steps = p.narrow(dim, 2, length) - p.narrow(dim, 0, length)
    out = (steps.narrow(across, 0, width) + steps.narrow(across, 2, width)).mul_(side)
    return out.add_(steps.narrow(across, 1, width) * centre)  # rounded alike, so that what cancels is exactly 0


class _Derivatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
        ctx.weights = weights
        p = F.pad(x, (1, 1, 1, 1))
        return _derivative(p, weights, -1), _derivative(p, weights, -2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            (across, _), (_, down) = (_Derivatives.apply(g, ctx.weights) for g in grads)
            return -(across + down), None
        across, down = (
            _derivative(F.pad(g, (1, 1, 1, 1)), ctx.weights, d) for g, d in zip(grads, (-1, -2), strict=True)
        )
        return across.add_(down).neg_(), None


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        out = (a * a).add_(b * b).sqrt_()
        ctx.save_for_backward(a, b, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b, out = ctx.saved_tensors
        share = grads[0] / out.clamp_min(torch.finfo(out.dtype).tiny ** 0.5)  # where both are 0, so is the gradient
        return a * share, b * share


def edge_magnitude(x: Tensor, weights: tuple[float, float]) -> Tensor:
    """Gradient magnitude by a 3x3 operator, zeros outside the image; same shape as `x`.

    Args:
        x: Maps, (..., H, W).
        weights: Side and centre weight across the derivative: `PREWITT` or `SCHARR`.
    """
    out: Tensor = _Magnitude.apply(*_Derivatives.apply(x, weights))
    return out
