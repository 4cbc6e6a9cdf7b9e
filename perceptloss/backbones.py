"""Trunks with named taps: short layer tables whose state dicts are those of torchvision.

A trunk owns its input normalisation, stops at the deepest tap asked for, and is told what to
keep for the backward pass. Sources: Simonyan and Zisserman, ICLR 2015 (VGG); Krizhevsky, 2014
(AlexNet, "one weird trick"); Iandola et al., 2016 (SqueezeNet 1.1). Weights come from torchvision.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.layers import L2Pool, conv_relu_lean, max_pool_lean

__all__ = ["IMAGENET", "Keep", "Trunk", "alexnet", "squeezenet", "vgg16"]

Keep = Literal["all", "stages", "lean"]
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Fire(nn.Module):
    """SqueezeNet's block: squeeze 1x1, then expand 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)


class Trunk(nn.Module):
    """A frozen-friendly feature extractor.

    Args:
        arch: Name of the architecture and its pooling; two trunks of one arch, normalisation and
            state compute the same thing and may be shared.
        layers: Layers at their torchvision positions.
        taps: Tap name to the position after whose layer it is read.
        normalise: Mean and standard deviation per channel, or None for raw [0, 1] images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, arch: str, layers: Sequence[nn.Module], taps: dict[str, int], normalise: Normalisation | None
    ) -> None:
        super().__init__()
        self.arch, self.tap_at, self.normalise = arch, dict(taps), normalise
        self.features = nn.Sequential(*layers)
        mean, std = normalise or ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._seeded_init()
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def _seeded_init(self) -> None:
        """He initialisation decided by the architecture alone, so that random trunks agree."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.arch.split("-")[0].encode()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Taps of (N, 3, H, W) images in [0, 1], each (N, C, h, w).

        Args:
            image: Images in the type of the weights.
            taps: Names to return.
            keep: What is kept for the backward: `all` activations, only the inputs of `stages`
                (recomputed), or `lean`: ReLU masks and pooling positions (first order only).
            dtype: Type in which the convolutions run and the taps come out, if not the image's.
        """
        wanted = {self.tap_at[name]: name for name in taps}
        last = max(wanted)
        h = image if self.normalise is None else (image - self.mean) / self.std
        h = h.to(dtype or h.dtype).contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        for first, end in self._stages(last):
            reads = [i for i in range(first, end) if i in wanted]
            if keep == "stages":
                outputs = checkpoint(self._run, h, first, end, reads, keep, use_reentrant=False)
            else:
                outputs = self._run(h, first, end, reads, keep)
            h = outputs[0]
            found.update(zip((wanted[i] for i in reads), outputs[1:], strict=True))
        return found

    def _stages(self, last: int) -> list[tuple[int, int]]:
        """Half-open ranges of layers up to `last`, cut before each pooling."""
        pools = [i for i, m in enumerate(self.features) if isinstance(m, (nn.MaxPool2d, L2Pool)) and 0 < i <= last]
        return list(zip([0, *pools], [*pools, last + 1], strict=True))

    def _run(self, h: Tensor, first: int, end: int, reads: list[int], keep: Keep) -> tuple[Tensor, ...]:
        found = []
        position = first
        while position < end:
            layer = self.features[position]
            if isinstance(layer, nn.Conv2d):
                # a ReLU may overwrite the convolution's output unless that output is a tap
                has_relu = position + 1 < end and isinstance(self.features[position + 1], nn.ReLU)
                fused = has_relu and position not in reads
                h = _conv(h, layer, relu=fused, lean=keep == "lean")
                position += fused
            elif isinstance(layer, Fire):
                h = _fire(h, layer, lean=keep == "lean")
            elif isinstance(layer, nn.MaxPool2d) and keep == "lean":
                h = max_pool_lean(h, layer)
            else:
                h = layer(h)
            if position in reads:
                found.append(h)
            position += 1
        return (h, *found)

    def same_as(self, other: Trunk) -> bool:
        """Whether the two compute the same features, so that one can stand for both."""
        if (self.arch, self.normalise) != (other.arch, other.normalise) or self is other:
            return self is other
        mine, theirs = self.state_dict(), other.state_dict()
        return all(
            a.device == theirs[k].device and a.dtype == theirs[k].dtype and torch.equal(a, theirs[k])
            for k, a in mine.items()
        )


def _weights(conv: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weights of a convolution in another type, cast once per version of the weights."""
    if conv.weight.dtype == dtype:
        return conv.weight, conv.bias
    if conv.weight.requires_grad:
        return conv.weight.to(dtype), None if conv.bias is None else conv.bias.to(dtype)
    stamp = (conv.weight.data_ptr(), conv.weight._version, conv.weight.device, dtype)
    cached = conv.__dict__.get("_low")
    if cached is None or cached[0] != stamp:
        with torch.inference_mode(False):  # else a validation pass would leave weights that no backward can use
            bias = None if conv.bias is None else conv.bias.detach().to(dtype)
            cached = (stamp, conv.weight.detach().to(dtype), bias)
        conv.__dict__["_low"] = cached
    return cached[1], cached[2]


def _conv(h: Tensor, conv: nn.Conv2d, *, relu: bool, lean: bool) -> Tensor:
    weight, bias = _weights(conv, h.dtype)
    if lean and relu and h.requires_grad:
        return conv_relu_lean(h, conv, weight, bias)
    out = nn.functional.conv2d(h, weight, bias, conv.stride, conv.padding)
    return out.relu_() if relu else out


def _fire(h: Tensor, fire: Fire, *, lean: bool) -> Tensor:
    h = _conv(h, fire.squeeze, relu=True, lean=lean)
    branches = (fire.expand1x1, fire.expand3x3)
    return torch.cat([_conv(h, branch, relu=True, lean=lean) for branch in branches], 1)


def _vgg_layers(plan: Sequence[int | str], pool: Literal["max", "l2"]) -> list[nn.Module]:
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


def _relu_taps(plan: Sequence[int | str]) -> dict[str, int]:
    """Names such as `relu3_2` (third block, second convolution) and their torchvision positions."""
    taps, position, block, conv = {}, 0, 1, 1
    for step in plan:
        if isinstance(step, str):
            position, block, conv = position + 1, block + 1, 1
        else:
            taps[f"relu{block}_{conv}"] = position + 1
            position, conv = position + 2, conv + 1
    return taps


def vgg16(pool: Literal["max", "l2"] = "max", normalise: Normalisation | None = IMAGENET) -> Trunk:
    """VGG16 up to `relu5_3`; taps `relu1_1` ... `relu5_3`; 14.7 M parameters."""
    return Trunk(f"vgg16-{pool}", _vgg_layers(_VGG16, pool), _relu_taps(_VGG16), normalise)


def alexnet(normalise: Normalisation | None = IMAGENET) -> Trunk:
    """AlexNet (the single-tower form of 2014); taps `relu1` ... `relu5`; 2.5 M parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for channels, width in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    return Trunk("alexnet", layers, {"relu1": 1, "relu2": 4, "relu3": 7, "relu4": 9, "relu5": 11}, normalise)


def squeezenet(normalise: Normalisation | None = IMAGENET) -> Trunk:
    """SqueezeNet 1.1; taps `relu1`, `fire3`, `fire5`, `fire6` ... `fire9`; 0.7 M parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)]
    layers += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    taps = {"relu1": 1, "fire3": 4, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}
    return Trunk("squeezenet1_1", layers, taps, normalise)
