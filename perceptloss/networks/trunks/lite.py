"""EfficientNet-lite0 without aliasing, seen from three distances: the trunk that our own critics share.

Tan, Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, in the lite form of
TensorFlow's repository: no gates, ReLU6 instead of SiLU. Two things are ours. Strided convolutions are blurred by a
2x2 mean before their ReLU6 (Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019), which a kernel
one pixel larger does at once: every input counts equally often, so that no gradient prints the grid of the strides.
And an image is seen as it is, halved, and halved again: taps `full.*`, `near.*` and `far.*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.filters import halve
from perceptloss.networks.trunks.trunk import Keep, Normalisation, Trunk

__all__ = ["LITE_TAPS", "Lite", "lite_state"]

_EPS = 1e-3
_CACHED = 1 << 19  # numbers of a widened part, 2 MiB
_LITE: Normalisation = ((0.498,) * 3, (0.502,) * 3)
# of every stage: how many times wider its blocks are inside, blocks, side of the kernel, stride of the first, channels
_STAGES = (
    (1, 1, 3, 1, 16),
    (6, 2, 3, 2, 24),
    (6, 2, 5, 2, 40),
    (6, 3, 3, 2, 80),
    (6, 3, 5, 1, 112),
    (6, 4, 5, 2, 192),
    (6, 1, 3, 1, 320),
)
_ENDS = {"block0": 16, "block2": 24, "block4": 40, "block7": 80, "block10": 112, "block14": 192, "block15": 320}
_VIEWS = ("full", "near", "far")

LITE_TAPS: Mapping[str, int] = {f"{view}.{tap}": width for view in _VIEWS for tap, width in _ENDS.items()}
"""The taps at the ends of the stages, with their channels."""


class _Block(nn.Module):
    """Widen, convolve every channel alone, narrow; plus the input where it fits."""

    expand: nn.Conv2d | None

    def __init__(self, channels: int, out: int, ratio: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide, side = channels * ratio, kernel + stride - 1
        self.stride, self.padding = stride, (side - 1) // 2
        self.is_residual = stride == 1 and channels == out
        self.expand = nn.Conv2d(channels, wide, 1) if ratio > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, side, stride, self.padding, groups=wide)
        self.project = nn.Conv2d(wide, out, 1)

    def forward(self, h: Tensor, keep: Keep = "all") -> Tensor:
        if self.stride > 1 and 1 in h.shape[2:]:  # the kernel needs two
            h = F.pad(h, (0, int(h.shape[3] == 1), 0, int(h.shape[2] == 1)), mode="replicate")
        tensors = _tensors(h.dtype, self.expand, self.depthwise, self.project)
        place = (self.stride, self.padding, self.is_residual)
        if any(t.requires_grad for t in tensors):
            return _plain(h, tensors, place)
        out: Tensor = _Narrow.apply(h, place, keep == "lean", *tensors)
        return out


def _tensors(dtype: torch.dtype, *layers: nn.Conv2d | None) -> list[Tensor]:
    """Weight and bias of every layer that there is."""
    return [t.to(dtype) for layer in layers if layer is not None for t in (layer.weight, layer.bias) if t is not None]


Place = tuple[int, int, bool]  # stride and padding of the middle, and whether the input is added


def _plain(h: Tensor, tensors: list[Tensor], place: Place) -> Tensor:
    stride, padding, is_residual = place
    *first, weight, bias, narrow, offset = tensors
    wide = F.relu6(F.conv2d(h, first[0], first[1])) if first else h
    wide = F.relu6(F.conv2d(wide, weight, bias, stride, padding, groups=len(weight)))
    out = F.conv2d(wide, narrow, offset)
    return out + h if is_residual else out


def _mixed(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution of channels-last features as a matrix product, three times as fast on a CPU."""
    rows = h.permute(0, 2, 3, 1)
    matrix = weight.flatten(1)
    flat = rows.reshape(-1, rows.shape[-1])
    product = flat @ matrix.T if bias is None else torch.addmm(bias, flat, matrix.T)
    return product.view(*rows.shape[:-1], -1).permute(0, 3, 1, 2)


class _Stem(torch.autograd.Function):
    """The frozen first convolution, of four by four pixels with a stride of two, and its ReLU6.

    Its gradient is that of a convolution of two by two over the pixels of every two by two as channels: more than twice
    as fast as over three channels. It has a gradient again.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = F.conv2d(h, weight, bias, 2, 1).clamp_(0, 6)
        ctx.save_for_backward(weight, out)
        ctx.sides = h.shape[2:]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, out = ctx.saved_tensors
        g = F.conv_transpose2d(_through(grads[0], out), F.pixel_unshuffle(weight, 2))
        height, width = ctx.sides
        return F.pixel_shuffle(g, 2)[..., 1 : 1 + height, 1 : 1 + width], None, None


class _Narrow(torch.autograd.Function):
    """A frozen block, a few images after another, so that what it widens stays in the processor's cache.

    It keeps what its two ReLU6 give, or, if lean, its input alone. Its gradient has a gradient again.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, place: Place, is_lean: bool, *tensors: Tensor) -> Tensor:
        ctx.place, ctx.parts, ctx.count = place, _parts(h, tensors, place), len(tensors)
        ctx.keeps = ctx.needs_input_grad[0] and not is_lean
        found, kept = [], []
        for part in ctx.parts:
            *middles, out = _forth(h[part], tensors, place)
            found.append(out)
            kept += middles if ctx.keeps else []
        ctx.save_for_backward(*tensors, *(kept if ctx.keeps else [h]))
        out = found[0] if len(found) == 1 else torch.cat(found)
        return out.add_(h) if place[2] else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once, or a checkpoint objects
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        found = []
        for i, part in enumerate(ctx.parts):
            with torch.no_grad():  # where ReLU6 lets through is constant
                middles = kept[2 * i :][:2] if ctx.keeps else _forth(kept[0][part], tensors, ctx.place)[:-1]
            found.append(_back(grads[0][part], middles, tensors, ctx.place))
        g = found[0] if len(found) == 1 else torch.cat(found)
        return g + grads[0] if ctx.place[2] else g, None, None, *([None] * ctx.count)


def _parts(h: Tensor, tensors: Sequence[Tensor], place: Place) -> list[slice]:
    """Images that go through a block together; on a GPU all of them."""
    count, wide = len(h), tensors[-3].shape[0] * h.shape[2] * h.shape[3]
    together = count if h.is_cuda else max(1, min(count, _CACHED // wide))
    return [slice(start, start + together) for start in range(0, count, together)]


def _forth(h: Tensor, tensors: Sequence[Tensor], place: Place) -> tuple[Tensor, ...]:
    """What the two ReLU6 give, and the block without its shortcut."""
    *first, weight, bias, narrow, offset = tensors
    wide = _mixed(h, *first).clamp_(0, 6) if first else h
    middle = F.conv2d(wide, weight, bias, place[0], place[1], groups=len(weight)).clamp_(0, 6)
    return wide, middle, _mixed(middle, narrow, offset)


def _back(g: Tensor, middles: Sequence[Tensor], tensors: Sequence[Tensor], place: Place) -> Tensor:
    (wide, middle), (*first, weight, _, narrow, _) = middles, tensors
    g = _through(_mixed(g, narrow.flatten(1).T), middle)
    stride, padding = [place[0]] * 2, [place[1]] * 2
    g = torch.ops.aten.convolution_backward(  # not by conv2d_input, which forgets that channels are last
        g, wide, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), (True, False, False)
    )[0]
    return _mixed(_through(g, wide), first[0].flatten(1).T) if first else g


def _through(g: Tensor, out: Tensor) -> Tensor:
    """Gradient before a ReLU6 from that behind it and what it gave."""
    return torch.ops.aten.hardtanh_backward(g, out, 0.0, 6.0)


class Lite(Trunk):
    """See above; 2.9 M parameters.

    Taps, of each of the views `full`, `near` (half the size) and `far` (a quarter): `block0` ... `block15`, 16 to 320
    channels, at strides 2, then 4 from `block1`, 8 from `block3`, 16 from `block5` and 32 from `block11` of what the
    view shows. The last of each stage are `LITE_TAPS`.
    """

    ships = "lite0-smooth"

    def __init__(self) -> None:
        count = sum(repeats for _, repeats, *_ in _STAGES)
        taps = {f"{view}.block{k}": k + 1 for view in _VIEWS for k in range(count)}
        super().__init__("efficientnet_lite0_smooth", taps, _LITE)
        self.stem = nn.Conv2d(3, 32, 4, 2, 1)
        self.blocks = nn.ModuleList()
        channels = 32
        for ratio, repeats, kernel, stride, width in _STAGES:
            for place in range(repeats):
                self.blocks.append(_Block(channels, width, ratio, kernel, 1 if place else stride))
                channels = width
        self.finish()

    def parts(self) -> list[tuple[nn.Module, ...]]:
        return [(self.stem,), *((block,) for block in self.blocks)]

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        if position:
            out: Tensor = self.blocks[position - 1](h, keep)
            return out
        weight, bias = _tensors(h.dtype, self.stem)
        if weight.requires_grad or bias.requires_grad:
            return F.relu6(F.conv2d(h, weight, bias, 2, 1))
        first: Tensor = _Stem.apply(h, weight, bias)
        return first

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        taps, found = tuple(dict.fromkeys(taps)), {}
        for view in _VIEWS:
            wanted = [tap for tap in taps if tap.startswith(f"{view}.")]
            if wanted:
                found.update(super().forward(image, wanted, keep, dtype))
            if len(found) == len(taps):
                break
            image = halve(image)
        return {tap: found[tap] for tap in taps}


def lite_state(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `Lite` from one of efficientnet-lite-pytorch 0.1, with normalisations and blur folded in.

    Args:
        file: Tensors by that package's names.
    """

    def layer(conv: str, norm: str, *, is_strided: bool = False) -> dict[str, Tensor]:
        weight, shift, mean, variance = (
            file[name].float()
            for name in (f"{conv}.weight", *(f"{norm}.{n}" for n in ("bias", "running_mean", "running_var")))
        )
        gain = file[f"{norm}.weight"].float() / (variance + _EPS).sqrt()
        weight = weight * gain[:, None, None, None]
        if is_strided:  # each output is the mean of four neighbouring ones
            weight = F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, 1)
        return {"weight": weight, "bias": shift - mean * gain}

    found = {f"stem.{name}": t for name, t in layer("_conv_stem", "_bn0", is_strided=True).items()}
    number = 0
    for ratio, repeats, _, stride, _ in _STAGES:
        for place in range(repeats):
            theirs = f"_blocks.{number}."
            parts = {"depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}
            parts |= {"expand": ("_expand_conv", "_bn0")} if ratio > 1 else {}
            for ours, (conv, norm) in parts.items():
                is_strided = ours == "depthwise" and stride == 2 and not place
                made = layer(theirs + conv, theirs + norm, is_strided=is_strided)
                found |= {f"blocks.{number}.{ours}.{name}": t for name, t in made.items()}
            number += 1
    return found
