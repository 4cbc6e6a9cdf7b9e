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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.distances import VGG16_CHANNELS, UnitDistanceCritic
from perceptloss.networks.trunks import IMAGENET, Trunk
from perceptloss.networks.trunks.plain import PlainTrunk
from perceptloss.weights.rules import LPIPS_HEADS, Rule, constant

__all__ = ["ENTRIES", "STLPIPS", "BlurPool"]

_ROW = torch.tensor([1.0, 2.0, 1.0]) / 4


class BlurPool(nn.Module):
    """Every second pixel of a binomial 3x3 blur of images that are mirrored two pixels beyond their borders.

    (N, C, H, W) to (N, C, (H + 1) // 2 + 1, (W + 1) // 2 + 1). Sums of slices, so that the backward keeps nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (2, 2, 2, 2), mode="reflect")
        for axis in (2, 3):
            count = (x.shape[axis] - 1) // 2
            left, middle, right = (x[(slice(None),) * axis + (slice(k, k + 2 * count - 1, 2),)] for k in range(3))
            x = (left + right) / 4 + middle / 2
        return x


def _pooled(size: int) -> list[nn.Module]:
    return [nn.MaxPool2d(size, 1), BlurPool()]


def _alexnet() -> Trunk:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, padding=2), BlurPool(), nn.ReLU(), *_pooled(3)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), *_pooled(3)]
    for channels, width in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    taps = {"relu1": 2, "relu2": 6, "relu3": 10, "relu4": 12, "relu5": 14}
    return PlainTrunk("alexnet-blurred", layers, taps, IMAGENET)


def _vgg16() -> Trunk:
    layers: list[nn.Module] = []
    taps, channels = {}, 3
    for (tap, width), count in zip(VGG16_CHANNELS.items(), (2, 2, 3, 3, 3), strict=True):
        layers += _pooled(2) if layers else []
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
        constant(r"net\.slice\d\.\d+\.filt", "the binomial blur", lambda c: torch.outer(_ROW, _ROW)[None, None]),
        constant(r"scaling_layer\.shift", "the ImageNet mean on [-1, 1]", lambda c: 2 * c.trunk.mean - 1, 1e-5),
        constant(r"scaling_layer\.scale", "the ImageNet deviation on [-1, 1]", lambda c: 2 * c.trunk.std, 1e-5),
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
