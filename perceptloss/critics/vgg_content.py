"""Content and style losses of Johnson et al. on VGG16: `vgg-content` and `vgg-style`.

Johnson, Alahi, Fei-Fei: "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
ECCV 2016, after Gatys et al. 2015. Original: https://github.com/jcjohnson/fast-neural-style
(commit 0c45b3c, non-commercial; nothing is taken from it). Ours: ImageNet normalisation and
torchvision's weights instead of the Caffe ones, as everywhere in today's toolboxes. Both share
their trunk with `lpips-vgg`, so in one loss they cost next to nothing beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Area, Entry, given
from perceptloss.networks.layers import pixels
from perceptloss.networks.trunks import Features, TrunkCritic, vgg16
from perceptloss.weights.rules import TORCHVISION_TRUNK

__all__ = ["ENTRIES", "VGGContent", "VGGStyle", "gram"]


class _Gram(torch.autograd.Function):
    """F^T F over pixels; its gradient is one product instead of two, because the result is symmetric."""

    @staticmethod
    def forward(ctx: Any, f: Tensor) -> Tensor:
        ctx.save_for_backward(f)
        rows = pixels(f)
        return rows.transpose(1, 2) @ rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (f,) = ctx.saved_tensors
        with torch.autocast(f.device.type, enabled=False):  # a backward may be called inside one
            rows = pixels(f) @ (grads[0] + grads[0].transpose(1, 2))
        return rearrange(rows, "n (h w) c -> n c h w", h=f.shape[2])


def gram(f: Tensor) -> Tensor:
    """Correlations of channels: (N, C, H, W) to (N, C, C), divided by C H W."""
    return _Gram.apply(f) / f[0].numel()


class _OnVGG(TrunkCritic):
    rules = TORCHVISION_TRUNK

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.trunk = vgg16()


class VGGContent(_OnVGG):
    """Mean squared difference of relu3_3; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("vgg-content", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    taps = ("relu3_3",)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return torch.stack([(fx[tap] - fy[tap]).square().mean((1, 2, 3)) for tap in self.taps]).sum(0)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        fx, fy = self.look_at(x, given(y))
        apart = [area.of(fx[tap] - fy[tap], self.trunk.stride(tap)).square() for tap in self.taps]
        cells = [own.new_full((len(x),), own[0].numel()) for own in apart]
        return torch.stack([*(own.sum((1, 2, 3)) for own in apart), *cells], 1)

    def settle(self, sums: Tensor) -> Tensor:
        totals, cells = sums.chunk(2, 1)
        return (totals / cells).sum(1)


class VGGStyle(_OnVGG):
    """Squared Frobenius distance of Gram matrices, summed over four taps; lower is better.

    Example:
        >>> critic = create_critic("vgg-style", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    taps = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return torch.stack([(gram(fx[tap]) - gram(fy[tap])).square().sum((1, 2)) for tap in self.taps]).sum(0)


def _card(name: str, summary: str, note: str, **facts: Any) -> Card:
    return distance_card(
        **facts,
        name=name,
        summary=summary,
        min_size=32,
        low_precision=True,
        fidelity="paper",
        licence_code="Apache-2.0 (ours, from the paper)",
        licence_weights="BSD-3-Clause (torchvision trunk)",
        weights=("vgg16",),
        paper="Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016",
        source="https://github.com/jcjohnson/fast-neural-style (formulas only)",
        notes=(note, "not a quality metric: use it as a loss, judge by something else"),
    )


_CONTENT = _card(
    "vgg-content", "Squared difference of VGG16 relu3_3 features.", "unbounded", tiling="exact", halo=24, stride=4
)
_STYLE = _card("vgg-style", "Squared difference of Gram matrices of VGG16 features.", "ignores where a texture is")

ENTRIES = {"vgg-content": Entry(_CONTENT, VGGContent), "vgg-style": Entry(_STYLE, VGGStyle)}
