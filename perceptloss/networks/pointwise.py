"""Pointwise operations of the formula critics whose gradients are written out, finite, and second-order too.

On a CPU a temporary of the size of an image costs more than the arithmetic that fills it, so these work in place and
keep little. Nothing here calls a convolution or a matrix product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["bounded_power", "power_above", "root", "root_lifted", "similarity", "soften"]

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


class _RootLifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, lift: float) -> Tensor:
        out = s.clamp_min(0).add_(lift).sqrt_()
        ctx.save_for_backward(s, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        s, out = ctx.saved_tensors
        through = torch.ops.aten.threshold_backward(grads[0], s, -torch.finfo(s.dtype).tiny)
        return (through / out).mul_(0.5), None


def root_lifted(s: Tensor, lift: float) -> Tensor:
    """sqrt(max(s, 0) + lift), lift > 0: deviations from variances that rounding may leave below 0."""
    out: Tensor = _RootLifted.apply(s, lift)
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
