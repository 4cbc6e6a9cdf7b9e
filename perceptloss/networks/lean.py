"""Frozen layers: convolutions that absorb a normalisation and a lower precision, and keep little for the backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from perceptloss.networks.batchnorm import BatchStats, folded

__all__ = ["add_relu", "central_difference", "conv", "max_pool"]


def conv(
    h: Tensor,
    layer: nn.Module,
    norm: nn.Module | None = None,
    *,
    relu: bool = False,
    lean: bool = False,
    theta: float = 0.0,
) -> Tensor:
    """A convolution with the normalisation and ReLU behind it, in the type of `h`.

    Args:
        h: Features, (N, C, H, W).
        layer: The convolution.
        norm: The normalisation behind it, folded into its weights.
        relu: Whether a ReLU follows.
        lean: Keep one byte per output (its sign) for the backward, not the input; frozen layers only.
        theta: Share of the central difference (see `central_difference`).
    """
    assert isinstance(layer, nn.Conv2d) and isinstance(norm, BatchStats | None)
    weight, bias = _effective(layer, norm, theta, h.dtype)
    if lean and h.requires_grad and not weight.requires_grad:
        return _LeanConv.apply(h, weight, bias, layer.stride, layer.padding, layer.groups, relu)
    out = F.conv2d(h, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return out.relu_() if relu else out


def add_relu(h: Tensor, shortcut: Tensor, *, lean: bool = False) -> Tensor:
    """ReLU of a sum; overwrites `h`, which must be nobody's tap."""
    total = h.add_(shortcut)
    return _LeanReLU.apply(total) if lean and total.requires_grad else total.relu_()


def max_pool(h: Tensor, pool: nn.MaxPool2d, *, lean: bool = False) -> Tensor:
    """Max pooling; if lean, keeps an 8-bit position per output for the backward."""
    if not lean:
        return pool(h)
    return _LeanMaxPool.apply(h, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def central_difference(weight: Tensor, theta: float) -> Tensor:
    """Fold a central difference convolution into a plain one.

    y(p) = sum_n w_n x(p + n) - theta x(p) sum_n w_n: the centre tap loses theta times the sum of the taps.
    Yu et al., Searching Central Difference Convolutional Networks for Face Anti-Spoofing, CVPR 2020.

    Args:
        weight: (out, in, k, k), k odd.
        theta: 0 gives the plain convolution, 1 pure differences.
    """
    centre = torch.zeros(weight.shape[-2:], dtype=weight.dtype, device=weight.device)
    centre[weight.shape[-2] // 2, weight.shape[-1] // 2] = theta
    return weight - weight.sum((2, 3), keepdim=True) * centre


def _effective(
    layer: nn.Conv2d, norm: BatchStats | None, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias to convolve with; made once per version of what they are made of, unless that learns."""
    is_plain = norm is None and (theta == 0 or layer.kernel_size == (1, 1))
    if is_plain and layer.weight.dtype == dtype:
        return layer.weight, layer.bias
    made_of = [
        layer.weight,
        layer.bias,
        *((norm.weight, norm.bias, norm.running_mean, norm.running_var) if norm else ()),
    ]
    learns = any(tensor is not None and tensor.requires_grad for tensor in made_of)
    if learns or torch.compiler.is_compiling():  # which would break its graph at every stamp
        return _made(layer, norm, theta, dtype)
    stamps = [(t.data_ptr(), t._version, t.device) for t in made_of if t is not None]
    stamp = (tuple(stamps), theta, dtype)
    cached = layer.__dict__.get("_effective")
    if cached is None or cached[0] != stamp:
        # not in inference mode: else a validation pass would leave weights that no backward can use
        with torch.inference_mode(False), torch.no_grad():
            cached = (stamp, *_made(layer, norm, theta, dtype))
        layer.__dict__["_effective"] = cached
    return cached[1], cached[2]


def _made(layer: nn.Conv2d, norm: BatchStats | None, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    weight, bias = layer.weight, layer.bias
    if theta and layer.kernel_size != (1, 1):
        weight = central_difference(weight, theta)
    if norm is not None:
        weight, bias = folded(weight, bias, norm)
    layout = torch.channels_last if weight.shape[1] > 1 else torch.preserve_format
    return weight.to(dtype, memory_format=layout), None if bias is None else bias.to(dtype)


class _LeanConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
        relu: bool,
    ) -> Tensor:
        out = F.conv2d(h, weight, bias, stride, padding, groups=groups)
        if relu:
            out = out.relu_()
        ctx.save_for_backward(weight, *((out > 0,) if relu else ()))
        ctx.shape, ctx.stride, ctx.padding, ctx.groups = h.shape, stride, padding, groups
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *mask = ctx.saved_tensors
        grad = grad * mask[0] if mask else grad
        gradient = conv2d_input(ctx.shape, weight, grad, ctx.stride, ctx.padding, groups=ctx.groups)
        return gradient, None, None, None, None, None, None


class _LeanReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        out = h.relu()
        ctx.save_for_backward(out > 0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (mask,) = ctx.saved_tensors
        return grad * mask


class _LeanMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, kernel: int, stride: int, padding: int, ceil: bool) -> Tensor:
        out, index = F.max_pool2d(h, kernel, stride, padding, ceil_mode=ceil, return_indices=True)
        row, column = index // h.shape[3], index % h.shape[3]
        row -= (torch.arange(out.shape[2], device=h.device) * stride - padding)[:, None]
        column -= torch.arange(out.shape[3], device=h.device) * stride - padding
        ctx.save_for_backward((row * kernel + column).to(torch.uint8))
        ctx.shape, ctx.kernel, ctx.stride, ctx.padding = h.shape, kernel, stride, padding
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (local,) = ctx.saved_tensors
        n, c, height, width = ctx.shape
        local = local.long()
        top = torch.arange(grad.shape[2], device=grad.device) * ctx.stride - ctx.padding
        left = torch.arange(grad.shape[3], device=grad.device) * ctx.stride - ctx.padding
        row = local // ctx.kernel + top[:, None]
        column = local % ctx.kernel + left
        out = grad.new_zeros(n, c, height * width)
        out.scatter_add_(2, (row * width + column).flatten(2), grad.flatten(2))
        return out.view(n, c, height, width), None, None, None, None
