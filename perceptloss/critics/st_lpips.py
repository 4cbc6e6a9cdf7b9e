"""ST-LPIPS: LPIPS on trunks without aliasing, taught from human judgements to forgive a shift of a pixel.

Ghildyal, Liu: "Shift-tolerant Perceptual Similarity Metric", ECCV 2022. Original: the package
stlpips-pytorch 0.0.2 of https://github.com/abhijay9/ShiftTolerant-LPIPS (BSD-2-Clause; its blur
pooling, from another project, is CC BY-NC-SA 4.0 and is not used here). Trunk and heads were taught
together, so that these trunks are nobody else's. Ours: the gradient at positions whose features are
all zero is limited instead of NaN; the value is the authors'.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.distances import VGG16_CHANNELS, UnitDistanceCritic
from perceptloss.networks.trunks import IMAGENET, Trunk
from perceptloss.networks.trunks.plain import PlainTrunk
from perceptloss.weights.rules import LPIPS_HEADS, LPIPS_SCALING, Rule, constant

__all__ = ["ENTRIES", "STLPIPS", "BlurPool"]


class BlurPool(nn.Module):
    """Every second pixel of a binomial 3x3 blur of images that are mirrored two pixels beyond their borders.

    (N, C, H, W) to (N, C, (H + 1) // 2 + 1, (W + 1) // 2 + 1).
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row / 16).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("filter", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _BlurPool.apply(x, self.filter.to(x.dtype))


class _BlurPool(torch.autograd.Function):
    """Keeps no features for the backward, as it is linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.shape = x.shape
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        n, c, *sides = ctx.shape
        g = conv2d_input([n, c, *(side + 4 for side in sides)], kernel, grads[0], stride=2, groups=c)
        for axis, side in zip((2, 3), sides, strict=True):
            before, inside, after = g.split([2, side, 2], axis)
            inside = inside.clone()
            inside.narrow(axis, 1, 2).add_(before.flip(axis))
            inside.narrow(axis, side - 3, 2).add_(after.flip(axis))
            g = inside
        return g, None


def _pooled(size: int, channels: int) -> list[nn.Module]:
    return [nn.MaxPool2d(size, 1), BlurPool(channels)]


def _alexnet() -> Trunk:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU(), *_pooled(3, 64)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), *_pooled(3, 192)]
    for channels, width in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    taps = {"relu1": 2, "relu2": 6, "relu3": 10, "relu4": 12, "relu5": 14}
    return PlainTrunk("alexnet-blurred", layers, taps, IMAGENET)


def _vgg16() -> Trunk:
    layers: list[nn.Module] = []
    taps, channels = {}, 3
    for (tap, width), count in zip(VGG16_CHANNELS.items(), (2, 2, 3, 3, 3), strict=True):
        layers += _pooled(2, channels) if layers else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps[tap] = len(layers) - 1
    return PlainTrunk("vgg16-blurred", layers, taps, IMAGENET)


class STLPIPS(UnitDistanceCritic):
    """ST-LPIPS distance; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("st-lpips-alex", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    rules = (
        LPIPS_HEADS,
        Rule(r"net\.slice\d\.(\d+\.(?:weight|bias))", r"trunk.features.\1"),
        constant(r"net\.slice\d\.\d+\.filt", "the binomial blur", lambda c: BlurPool(1).filter),
        *LPIPS_SCALING,
    )


_ALEX = {"relu1": 64, "relu2": 192, "relu3": 384, "relu4": 256, "relu5": 256}


def _entry(net: str, trunk: Callable[[], Trunk], taps: dict[str, int], top: float, size: int) -> Entry:
    card = distance_card(
        name=f"st-lpips-{net}",
        summary=f"Shift-tolerant LPIPS: features of {net} without aliasing, taught from human judgements of patches.",
        bounds=(0.0, top),
        min_size=size,
        low_precision=True,
        licence_code="BSD-2-Clause",
        licence_weights="BSD-2-Clause",
        weights=(f"st-lpips-{net}",),
        paper="Ghildyal, Liu, Shift-tolerant Perceptual Similarity Metric, ECCV 2022",
        source="https://github.com/abhijay9/ShiftTolerant-LPIPS, package stlpips-pytorch 0.0.2, weights vST0.0",
        notes=(
            "bounds hold for the published heads, which are not negative",
            "a shift of one pixel costs little, so that a loss of it alone does not hold pixels in place",
            "insensitive to a global gain of the features: combine with a pixel loss",
        ),
    )
    build: Callable[[Card], Critic] = partial(STLPIPS, trunk=trunk, taps=taps)
    return Entry(card, build)


ENTRIES = {
    "st-lpips-alex": _entry("alex", _alexnet, _ALEX, 2.69, 21),
    "st-lpips-vgg": _entry("vgg", _vgg16, VGG16_CHANNELS, 2.16, 18),
}
