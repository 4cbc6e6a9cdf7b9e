"""Operations of the formula critics whose gradients are written out, finite, and second-order too.

On a CPU a temporary of the size of an image costs more than the arithmetic that fills it, so these work in place and
keep little. Nothing here calls a convolution or a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "bounded_power",
    "edge_magnitude",
    "halve",
    "mix_channels",
    "power_above",
    "root",
    "similarity",
    "slide",
    "soften",
]

Rows = tuple[tuple[float, ...], ...]
Line = tuple[float, float]  # gain, lift


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        out = s.clamp_min(0).sqrt_()
        ctx.save_for_backward(s, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        s, out = ctx.saved_tensors
        return out / s.clamp_min(torch.finfo(s.dtype).tiny).mul_(2) * grads[0]


def root(s: Tensor) -> Tensor:
    """Square root of values >= 0 whose gradient is 0, not infinite, where the value is 0.

    Bounded when `s` is a sum of squares: its own slope vanishes as fast as that of the root grows.
    """
    out: Tensor = _Root.apply(s)
    return out


def _power(v: Tensor, p: float) -> Tensor:
    """In place; in float32 by logarithms, which are four times faster and exact enough."""
    return v.pow_(p) if v.dtype == torch.float64 else v.log_().mul_(p).exp_()


class _BoundedPower(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, p: float, floor: float) -> Tensor:
        ctx.p, ctx.floor = p, floor
        ctx.save_for_backward(v)
        return _power(v.clone(), p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (v,) = ctx.saved_tensors
        slope = v.clamp_min(ctx.floor).log().mul_(ctx.p - 1).add_(math.log(ctx.p)).exp_()
        return slope * grads[0], None, None


def bounded_power(v: Tensor, p: float, floor: float) -> Tensor:
    """`v ** p` for v >= 0 and p > 0, with the slope below `floor` held at its value there."""
    out: Tensor = _BoundedPower.apply(v, p, floor)
    return out


class _PowerAbove(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, edge: float, p: float, inside: Line, below: Line) -> Tensor:
        ctx.edge, ctx.p, ctx.inside, ctx.below = edge, p, inside, below
        is_above = (v - edge).sign_().clamp_min_(0)  # not by `where`, whose branches are slow on pictures
        base = v.clamp_min(edge)
        if inside != (1, 0):
            base.mul_(inside[0]).add_(inside[1])
        out = v * below[0]
        if below[1]:
            out.add_(below[1])
        out.lerp_(_power(base, p), is_above)
        ctx.save_for_backward(v, is_above, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, is_above, out = ctx.saved_tensors
        gain, lift = ctx.inside
        base = v.clamp_min(ctx.edge) * (1 / ctx.p) + lift / (gain * ctx.p)
        line = torch.full((), ctx.below[0], dtype=v.dtype, device=v.device)
        return torch.lerp(line, out / base, is_above) * grads[0], None, None, None, None


def power_above(v: Tensor, edge: float, p: float, inside: Line, below: Line) -> Tensor:
    """A curve of colour spaces: a line to a power above an edge, another line up to it.

    Args:
        v: Any values; those under the edge may be negative.
        edge: Where the power begins, above 0.
        p: Of the power.
        inside: The line under the power, gain v + lift.
        below: The other line.
    """
    out: Tensor = _PowerAbove.apply(v, edge, p, inside, below)
    return out


class _Faded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, size: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward((size / floor).clamp_(max=1).square_())
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.saved_tensors[0], None, None


def soften(value: Tensor, size: Tensor, floor: float) -> Tensor:
    """The same value, with its gradient faded by (size / floor)^2 where size < floor.

    For quotients by `size`: there the slope grows without bound and follows rounding noise.
    """
    out: Tensor = _Faded.apply(value, size.detach(), floor)
    return out


class _Similarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: float, mask: float) -> Tensor:
        ctx.c, ctx.mask = c, mask
        product = a * b
        below = (a * a).add_(b * b)  # two rounded squares, so that equal maps are exactly 1
        if mask:
            below.sub_(product, alpha=mask)
        below.add_(c)
        out = product.mul_(2 - mask).add_(c).div_(below)
        ctx.save_for_backward(a, b, below, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b, below, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this gradient is wanted: use the form that has one
            wanted = [v for v, needed in zip((a, b), ctx.needs_input_grad, strict=False) if needed]
            plain = _similarity_plain(a, b, ctx.c, ctx.mask)
            found = iter(torch.autograd.grad(plain, wanted, grads[0], create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None, None
        share = grads[0] / below

        def toward(a: Tensor, b: Tensor) -> Tensor:
            slope = (out * a).mul_(-2).add_(b, alpha=2 - ctx.mask)
            return (slope.addcmul_(out, b, value=ctx.mask) if ctx.mask else slope).mul_(share)

        here, there, *_ = ctx.needs_input_grad
        return toward(a, b) if here else None, toward(b, a) if there else None, None, None


def _similarity_plain(a: Tensor, b: Tensor, c: float, mask: float) -> Tensor:
    product = a * b
    return ((2 - mask) * product + c) / (a.square() + b.square() - mask * product + c)


def similarity(a: Tensor, b: Tensor, c: float, mask: float = 0.0) -> Tensor:
    """(2ab - mask ab + c) / (a^2 + b^2 - mask ab + c), elementwise, at most 1 for mask < 2.

    Args:
        a: One map, any shape.
        b: The other, same shape.
        c: Stabiliser, in squared units of the maps.
        mask: Masking coefficient of MS-GMSD; 0 elsewhere.
    """
    out: Tensor = _Similarity.apply(a, b, c, mask)
    return out


class _Mix(torch.autograd.Function):
    """Keeps no tensor, as all linear ones here: the gradient is the transposed operation, differentiable again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        first, *others = x.unbind(1)
        out = x.new_empty(len(x), len(rows), *x.shape[2:])
        scaled = torch.empty_like(first)
        for plane, (weight, *weights) in zip(out.unbind(1), rows, strict=True):
            plane.copy_(first).mul_(weight)
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
        ends = (len(ctx.window) - 1,) * 2
        g = F.pad(grads[0], ends if ctx.dim == -1 else (0, 0, *ends))
        return _Slide.apply(g, ctx.window[::-1], ctx.dim), None, None


def slide(x: Tensor, window: tuple[float, ...], dim: int) -> Tensor:
    """Correlation with a window of k taps along `dim`, -1 or -2, which shrinks by k - 1."""
    out: Tensor = _Slide.apply(x, window, dim)
    return out


def _derivative(p: Tensor, weights: tuple[float, float], dim: int) -> Tensor:
    """Central difference along `dim`, smoothed across it, of maps with a margin of one pixel, which is lost."""
    (side, centre), across = weights, -3 - dim
    length, width = p.shape[dim] - 2, p.shape[across] - 2
    steps = p.narrow(dim, 2, length) - p.narrow(dim, 0, length)
    out = steps.narrow(across, 0, width) + steps.narrow(across, 2, width)
    return out.mul_(side).add_(steps.narrow(across, 1, width), alpha=centre)


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
