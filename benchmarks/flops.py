"""Floating-point operations of one training step, a multiply-add counted as two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.memory import Loss
from perceptloss.networks.trunks.plain import PlainTrunk

__all__ = ["Flops", "count", "count_forward", "least", "operations", "trunk_forward"]

_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


@dataclass(frozen=True)
class Flops:
    """Operations of one forward and backward.

    Attributes:
        convolutions: Of convolutions, hence of trunks.
        total: With matrix products too; element-wise work is not counted.
    """

    convolutions: int
    total: int


class _Operations(TorchDispatchMode):
    """Torch's formulas per operator, without FlopCounterMode's module tracker, which refuses autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        if operator in flop_registry:
            self.by_operator[operator] += flop_registry[operator](*args, **(kwargs or {}), out_val=out)
        return out


def count(loss: Loss, x: Tensor, y: Tensor) -> Flops:
    """Count the operations of one forward and backward of a loss of judged images `x` and references `y`."""
    x = x.detach().requires_grad_()
    with _Operations() as counted:
        loss(x, y).backward()
    found = counted.by_operator
    return Flops(sum(found[operator] for operator in _CONVOLUTIONS), found.total())


def count_forward(score: Loss, x: Tensor, y: Tensor) -> int:
    """Operations of a call alone, matrix products included."""
    return operations(partial(score, x, y))


def operations(run: Callable[[], object]) -> int:
    """Of whatever a call does, backward included where it has one, matrix products too."""
    with _Operations() as counted:
        run()
    return counted.by_operator.total()


def trunk_forward(trunk: PlainTrunk, shape: torch.Size) -> int:
    """Operations of the convolutions of one forward: 2 N h w (kernel) C_in C_out each, summed.

    Args:
        trunk: The trunk; its convolutions must stand in a row (VGG16, AlexNet).
        shape: Of the images, (N, 3, H, W).
    """
    total, image = 0, torch.empty(shape, device="meta")
    for layer in trunk.features:
        if isinstance(layer, nn.Conv2d):
            weight = torch.empty_like(layer.weight, device="meta")
            image = nn.functional.conv2d(image, weight, None, layer.stride, layer.padding)
            total += 2 * image.numel() * weight[0].numel()
        elif isinstance(layer, nn.MaxPool2d):
            image = layer(image)
    return total


def least(trunk: PlainTrunk, shape: torch.Size) -> int:
    """Least a loss through a trunk can take: x forward, y forward, and x backward to its input.

    The gradient with respect to the input of a convolution takes what its forward takes.
    """
    return 3 * trunk_forward(trunk, shape)
