"""Parts that two critics or more use."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

__all__ = ["L2Pool", "draw", "mean_and_variance", "moments", "pixels", "unit_differences", "unit_distance", "unit_norm"]

_EPS = 1e-10  # LPIPS adds it to every norm
_FLOOR = 1e-3  # slopes of unit vectors are limited to 1 / _FLOOR
_CACHED = 1 << 17  # features per thread that are worked on together


class _UnitNorm(torch.autograd.Function):
    """v / (|v| + eps) over channels, with the slope limited to 1 / floor.

    The published form has an infinite slope where every channel is zero (flat black crops in
    ReLU features), hence NaN. The value is kept; only the gradient is limited, there and where
    the norm is below the floor.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.floor = floor
        return v / (torch.linalg.vector_norm(v, dim=1, keepdim=True) + _EPS)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        norm = v.square().sum(1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny).sqrt()
        inverse = (norm + _EPS).reciprocal()
        v, inverse, g = (t.movedim(1, -1) for t in (v, inverse, grads[0]))
        return _through_unit_norm(v, inverse, g, ctx.floor).movedim(-1, 1), None


def _through_unit_norm(v: Tensor, inverse: Tensor, g: Tensor, floor: float = _FLOOR) -> Tensor:
    """Gradient g of v / norm, taken to v; channels last, inverse = 1 / norm of shape (..., 1)."""
    limited = inverse.clamp_max(1 / floor)
    along = (v * g).sum(-1, keepdim=True) * inverse * limited
    return torch.addcmul(g, v, along, value=-1) * limited


def unit_norm(v: Tensor, floor: float = _FLOOR) -> Tensor:
    """Unit vectors over channels: (N, C, ...) to the same shape, slopes at most 1 / floor."""
    return _UnitNorm.apply(v, floor)


def _unit_differences_plain(fx: Tensor, fy: Tensor) -> Tensor:
    return (unit_norm(fx) - unit_norm(fy)).square().mean((2, 3))


class _UnitDifferences(torch.autograd.Function):
    """The same as the plain form, differentiable in fx alone.

    On a CPU all passes over one block of pixels follow each other while it is in the cache: three
    times faster, and no temporary of the size of the features.
    """

    @staticmethod
    def forward(ctx: Any, fx: Tensor, fy: Tensor) -> Tensor:
        x, y = pixels(fx), pixels(fy)
        inverses = x.new_empty(2, *x.shape[:2], 1)
        total = x.new_zeros(len(x), x.shape[2])
        for part in _cached_parts(x):
            for f, inverse in zip((x, y), inverses, strict=True):
                inverse[:, part] = torch.linalg.vector_norm(f[:, part], dim=2, keepdim=True).add_(_EPS).reciprocal_()
            total += _unit_difference(x, y, inverses, part).square_().sum(1)
        ctx.save_for_backward(fx, fy, inverses)
        return total / x.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        fx, fy, inverses = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this gradient is wanted: use the form that has one
            plain = _unit_differences_plain(fx, fy)
            return torch.autograd.grad(plain, fx, grads[0], create_graph=True)[0], None
        x, y = pixels(fx), pixels(fy)
        factor = ((2 / x.shape[1]) * grads[0])[:, None]
        out = _like(fx)
        for part in _cached_parts(x):
            g = _unit_difference(x, y, inverses, part).mul_(factor)
            pixels(out)[:, part] = _through_unit_norm(x[:, part], inverses[0, :, part], g)
        return out, None


def pixels(f: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C), without a copy if f is channels-last."""
    return f.permute(0, 2, 3, 1).flatten(
        1, 2
    )  # not by einops, which takes twice the time; called dozens of times a step


def _like(f: Tensor) -> Tensor:
    """Room for a gradient of f: no view of anything, so that autograd may add to it in place."""
    return torch.empty_like(f, memory_format=torch.channels_last)


def _cached_parts(pixels: Tensor) -> list[slice]:
    """Ranges of pixels that fit the caches of a CPU; all of them on other devices, and for a compiler, which fuses."""
    n, count, channels = pixels.shape
    if torch.compiler.is_compiling() or pixels.device.type != "cpu":
        return [slice(0, count)]
    step = max(1, _CACHED * torch.get_num_threads() // (n * channels))
    return [slice(start, start + step) for start in range(0, count, step)]


def _unit_difference(x: Tensor, y: Tensor, inverses: Tensor, part: slice) -> Tensor:
    # two rounded products, so that equal features differ by exactly nothing
    return torch.mul(x[:, part], inverses[0, :, part]).sub_(torch.mul(y[:, part], inverses[1, :, part]))


def unit_differences(fx: Tensor, fy: Tensor) -> Tensor:
    """Mean over pixels of (u_c - v_c)^2, u and v the unit vectors of two feature maps, channel by channel.

    Args:
        fx: Features of the judged images, (N, C, H, W).
        fy: Features of the references, same shape.

    Returns:
        (N, C); exactly 0 for equal features.
    """
    if torch.is_grad_enabled() and fy.requires_grad:
        return _unit_differences_plain(fx, fy)
    return _UnitDifferences.apply(fx, fy)


def unit_distance(fx: Tensor, fy: Tensor, weight: Tensor) -> Tensor:
    """`unit_differences`, weighed by one weight per channel, (C,), and added up: (N,)."""
    return (unit_differences(fx, fy) * weight).sum(1)


def draw(
    *parts: nn.Module,
    slope: float | None = 0.0,
    kinds: tuple[type[nn.Conv2d | nn.Linear], ...] = (nn.Conv2d, nn.Linear),
) -> None:
    """Random weights for the layers of some kinds inside these parts; biases 0.

    Args:
        parts: In whose order the numbers are drawn.
        slope: He's rule, for leaky ReLUs of this slope; None for Glorot's uniform one.
        kinds: Of layers.
    """
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, kinds):
                if slope is None:
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, slope)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class L2Pool(nn.Module):
    """Anti-aliased pooling of DISTS, DeepWSD and TReS: sqrt(blur(x^2) + 1e-12).

    Divides the sides by the stride (rounding up). The 3x3 kernel is binomial; a constant c stays |c| inside.
    """

    eps = 1e-12
    filter: Tensor

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row[None, :] / 16).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("filter", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _L2Pool.apply(x, self.filter.to(x.dtype), self.eps, self.stride)


class _L2Pool(torch.autograd.Function):
    """Keeps only its input and its result, which the neighbouring layers keep anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, eps: float, stride: int) -> Tensor:
        out = F.conv2d(x.square(), kernel, stride=stride, padding=1, groups=x.shape[1]).add_(eps).sqrt_()
        ctx.save_for_backward(x, kernel, out)
        ctx.stride = stride
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, kernel, out = ctx.saved_tensors
        squared = conv2d_input(x.shape, kernel, grads[0] / out, stride=ctx.stride, padding=1, groups=x.shape[1])
        return x * squared, None, None, None


class _Moments(torch.autograd.Function):
    """The same as the plain form, block by block on a CPU; differentiable in fx alone."""

    @staticmethod
    def forward(ctx: Any, fx: Tensor, fy: Tensor) -> tuple[Tensor, ...]:
        x, y = pixels(fx), pixels(fy)
        mx, my = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        sums = x.new_zeros(3, len(x), x.shape[2])
        for part in _cached_parts(x):
            dx, dy = x[:, part] - mx, y[:, part] - my
            for total, product in zip(sums, ((dx, dx), (dy, dy), (dx, dy)), strict=True):
                total += torch.mul(*product).sum(1)
        vx, vy, covariance = (sums / x.shape[1]).unbind()
        ctx.save_for_backward(fx, fy, mx, my)
        results = mx.squeeze(1), my.squeeze(1), vx, vy, covariance
        ctx.mark_non_differentiable(results[1], vy)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        fx, fy, mx, my = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this gradient is wanted: use the form that has one
            outputs = _moments_plain(fx, fy)
            wanted = [0, 2, 4]
            chosen = [outputs[i] for i in wanted], fx, [grads[i] for i in wanted]
            return torch.autograd.grad(*chosen, create_graph=True)[0], None
        x, y = pixels(fx), pixels(fy)
        of_mean, _, of_variance, _, of_covariance = (g[:, None] / x.shape[1] for g in grads)
        out = _like(fx)
        for part in _cached_parts(x):
            g = (x[:, part] - mx).mul_(2 * of_variance).addcmul_(y[:, part] - my, of_covariance)
            torch.add(g, of_mean, out=pixels(out)[:, part])
        return out, None


def _moments_plain(fx: Tensor, fy: Tensor) -> tuple[Tensor, ...]:
    mx, my = fx.mean((2, 3)), fy.mean((2, 3))
    dx, dy = fx - mx[:, :, None, None], fy - my[:, :, None, None]
    return mx, my, dx.square().mean((2, 3)), dy.square().mean((2, 3)), (dx * dy).mean((2, 3))


def moments(fx: Tensor, fy: Tensor) -> tuple[Tensor, ...]:
    """Means of x and y over pixels, their variances, and their covariance, each (N, C).

    Args:
        fx: Features of the judged images, (N, C, H, W).
        fy: Features of the references, same shape.
    """
    if torch.is_grad_enabled() and fy.requires_grad:
        return _moments_plain(fx, fy)
    return _Moments.apply(fx, fy)


class _MeanAndVariance(torch.autograd.Function):
    """With a gradient of two passes, which has a gradient again."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> tuple[Tensor, Tensor]:
        means = [m.mean((2, 3), keepdim=True) for m in maps]
        variances = [(m - mean).square_().mean((2, 3)) for m, mean in zip(maps, means, strict=True)]
        mean = torch.cat(means, 1).flatten(1)
        ctx.save_for_backward(mean, *maps)
        return mean, torch.cat(variances, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        mean, *maps = ctx.saved_tensors
        sizes = [m.shape[1] for m in maps]
        of_mean, of_variance, means = (t[:, :, None, None].split(sizes, 1) for t in (*grads, mean))
        lines = zip(maps, means, of_mean, of_variance, strict=True)
        return tuple(
            torch.addcmul(lift / m[0, 0].numel(), m - centre, slope, value=2 / m[0, 0].numel())
            for m, centre, lift, slope in lines
        )


def mean_and_variance(*maps: Tensor) -> tuple[Tensor, Tensor]:
    """Over the pixels of maps (N, C, H, W), of one or more sizes, side by side: (N, all channels) each."""
    mean, variance = _MeanAndVariance.apply(*maps)
    return mean, variance
