"""Plain trunks: short layer tables whose state dicts are those of torchvision.

Sources: Simonyan and Zisserman, ICLR 2015 (VGG); Krizhevsky, 2014 (AlexNet, "one weird trick");
Iandola et al., 2016 (SqueezeNet 1.1). Weights come from torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.layers import L2Pool
from perceptloss.networks.lean import conv, max_pool
from perceptloss.networks.trunks.trunk import IMAGENET, Keep, Normalisation, Trunk

__all__ = ["PlainTrunk", "alexnet", "squeezenet", "vgg16", "vgg19", "vgg_layers"]


class Fire(nn.Module):
    """SqueezeNet's block: squeeze 1x1, then expand 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)


class PlainTrunk(Trunk):
    """Layers in a row, at their torchvision positions; see `Trunk`."""

    def __init__(
        self, arch: str, layers: Sequence[nn.Module], taps: dict[str, int], normalise: Normalisation | None
    ) -> None:
        super().__init__(arch, taps, normalise)
        self.features = nn.Sequential(*layers)
        self.finish()

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(layer,) for layer in self.features]

    def starts(self, last: int) -> Sequence[int]:
        return [i for i, m in enumerate(self.features) if isinstance(m, (nn.MaxPool2d, L2Pool)) and 0 < i <= last]

    def reach(self, tap: str) -> tuple[int, int]:
        step, before, after = 1, 0, 0
        for layer in self.features[: self.tap_at[tap] + 1]:
            window = layer.expand3x3 if isinstance(layer, Fire) else layer
            if isinstance(window, (nn.Conv2d, nn.MaxPool2d)):
                size, stride, padding = (_side(value) for value in (window.kernel_size, window.stride, window.padding))
                before, after = before + padding * step, after + (size - 1 - padding) * step
                step *= stride
            elif isinstance(window, L2Pool):
                before, after, step = before + step, after + step, step * window.stride
            elif not isinstance(window, nn.ReLU):
                return super().reach(tap)
        return step, max(before, after)

    def run(self, h: Tensor, first: int, end: int, reads: Sequence[int], keep: Keep) -> tuple[Tensor, ...]:
        found = []
        position = first
        while position < end:
            # a ReLU may overwrite the convolution's output unless that output is a tap
            layer = self.features[position]
            has_relu = position + 1 < end and isinstance(self.features[position + 1], nn.ReLU)
            fused = has_relu and isinstance(layer, nn.Conv2d) and position not in reads
            h = _layer(h, layer, relu=fused, lean=keep == "lean")
            position += fused
            if position in reads:
                found.append(h)
            position += 1
        return (h, *found)


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _layer(h: Tensor, layer: nn.Module, *, relu: bool, lean: bool) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return conv(h, layer, relu=relu, lean=lean)
    if isinstance(layer, Fire):
        return _fire(h, layer, lean=lean)
    return max_pool(h, layer, lean=lean) if isinstance(layer, nn.MaxPool2d) else layer(h)


def _fire(h: Tensor, fire: Fire, *, lean: bool) -> Tensor:
    h = conv(h, fire.squeeze, relu=True, lean=lean)
    branches = (fire.expand1x1, fire.expand3x3)
    return torch.cat([conv(h, branch, relu=True, lean=lean) for branch in branches], 1)


def vgg_layers(plan: Sequence[int | str], pool: Literal["max", "l2"] = "max") -> list[nn.Module]:
    """3x3 convolutions of so many channels with their ReLUs, and poolings where the plan has a letter."""
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2, 2) if pool == "max" else L2Pool(channels))
        else:
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU()]
            channels = step
    return layers


_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_WIDTHS = (64, 128, 256, 512, 512)


def _vgg_taps(plan: Sequence[int | str]) -> dict[str, int]:
    """Names such as `conv3_2` and `relu3_2` (third block, second convolution) and their torchvision positions."""
    taps: dict[str, int] = {}
    position, block, number = 0, 1, 1
    for step in plan:
        if isinstance(step, str):
            position, block, number = position + 1, block + 1, 1
        else:
            taps |= {f"conv{block}_{number}": position, f"relu{block}_{number}": position + 1}
            position, number = position + 2, number + 1
    return taps


def vgg16(pool: Literal["max", "l2"] = "max", normalise: Normalisation | None = IMAGENET) -> Trunk:
    """VGG16 up to `relu5_3`; taps `conv1_1`, `relu1_1` ... `relu5_3`; 14.7 M parameters."""
    return PlainTrunk(f"vgg16-{pool}", vgg_layers(_VGG16, pool), _vgg_taps(_VGG16), normalise)


class _Bordered(PlainTrunk):
    """Its first convolution sees the outermost pixels repeated around the image, where others see zeros."""

    def run(self, h: Tensor, first: int, end: int, reads: Sequence[int], keep: Keep) -> tuple[Tensor, ...]:
        return super().run(F.pad(h, (1, 1, 1, 1), mode="replicate") if first == 0 else h, first, end, reads, keep)


def vgg19(
    normalise: Normalisation | None = IMAGENET,
    widths: Sequence[int] = _WIDTHS,
    border: Literal["zeros", "replicate"] = "zeros",
) -> Trunk:
    """VGG19 up to `relu5_4`; taps `conv1_1`, `relu1_1` ... `relu5_4`; 20.0 M parameters with the published widths."""
    arch = "vgg19" if tuple(widths) == _WIDTHS else f"vgg19-{'-'.join(map(str, widths))}"
    blocks = [(width,) * count for width, count in zip(widths, (2, 2, 4, 4, 4), strict=True)]
    plan: list[int | str] = []
    for block in blocks:
        plan += ["M", *block] if plan else block
    layers = vgg_layers(plan)
    if border == "zeros":
        return PlainTrunk(arch, layers, _vgg_taps(plan), normalise)
    layers[0] = nn.Conv2d(3, widths[0], 3)
    return _Bordered(f"{arch}-replicate", layers, _vgg_taps(plan), normalise)


def alexnet(normalise: Normalisation | None = IMAGENET) -> Trunk:
    """AlexNet (the single-tower form of 2014); taps `relu1` ... `relu5`; 2.5 M parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for channels, width in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    return PlainTrunk("alexnet", layers, {"relu1": 1, "relu2": 4, "relu3": 7, "relu4": 9, "relu5": 11}, normalise)


def squeezenet(normalise: Normalisation | None = IMAGENET) -> Trunk:
    """SqueezeNet 1.1; taps `relu1`, `fire3`, `fire5`, `fire6` ... `fire9`; 0.7 M parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    taps = {"relu1": 1, "fire3": 4, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}
    return PlainTrunk("squeezenet1_1", layers, taps, normalise)
