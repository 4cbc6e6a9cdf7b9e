"""MANIQA: attention among channels, then among neighbouring patches, over late tokens of a vision transformer.

Yang, Wu, Shi, Lao, Gong, Cao, Wang, Yang: "MANIQA: Multi-dimension Attention Network for
No-Reference Image Quality Assessment", CVPR Workshops 2022. Original:
https://github.com/IIGROUP/MANIQA (commit f573d86, Apache-2.0). Ours: images larger than 224x224 are
judged by evenly spaced crops (the authors draw 20 at random), losses read the tokens' values before
their last ReLU, and the tokens' weights are held constant in the gradient.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.critics.maniqa.swin import SwinBlock
from perceptloss.networks.attention import attend
from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import HALF, Features, TrunkCritic, VisionTransformer, vit_rules
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "MANIQA", "ScaledSwin", "TransposedAttention"]

_TAPS = tuple(f"block{k}" for k in range(6, 10))
_SCALE = 0.8
_LAYERS = 2
_PATCH = 8  # side of a token, in pixels


class TransposedAttention(nn.Module):
    """Attention of channels to channels, each described by its values at all places. Added to what it is given.

    Args:
        places: Number of tokens.
    """

    def __init__(self, places: int) -> None:
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(places, places) for _ in range(3))

    def forward(self, h: Tensor) -> Tensor:
        """Channels by places, (N, C, places), to the same."""
        mixed = attend(self.c_q(h), self.c_k(h), self.c_v(h), 1)
        # as published: transposed, but read again as if it were not, so that channels and places are shuffled
        return h + mixed.mT.reshape(h.shape)


class SwinLayer(nn.Module):
    """Two Swin blocks, the second one shifted, a 3x3 convolution and a ReLU."""

    def __init__(self, dim: int, size: int, side: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, (size, size), side, heads, hidden, shift) for shift in (0, side // 2)
        )
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        tokens = rearrange(h, "n c h w -> n h w c")
        for block in self.blocks:
            tokens = block(tokens)
        return self.conv(rearrange(tokens, "n h w c -> n c h w")).relu()


class ScaledSwin(nn.Module):
    """Swin layers, whose results are scaled before they are added.

    Args:
        dim: Channels.
        size: Side of the map, in tokens, a multiple of `side`.
        side: Of a window, in tokens.
        heads: Of every attention.
        hidden: Units of the feed-forward layers.
    """

    def __init__(self, dim: int, size: int, side: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SwinLayer(dim, size, side, heads, hidden) for _ in range(_LAYERS))

    def forward(self, h: Tensor, scale: float) -> Tensor:
        """Maps to maps, (N, dim, size, size)."""
        for layer in self.layers:
            h = h + scale * layer(h)
        return h


def _is_our(name: str, critic: Critic, tensor: Tensor) -> bool:
    """Whether a stored table of the windows is the one that we compute."""
    tables = [getattr(module, name, None) for module in critic.modules()]
    return any(table is not None and torch.equal(table.to(tensor), tensor) for table in tables)


class MANIQA(CropCritic, TrunkCritic):
    """MANIQA opinion score, fitted to 0 ... 1, never below 0; higher is better.

    Every token of 8x8 pixels has a value v and a weight w: score = sum(w relu(v)) / sum(w), mean over
    crops. Where all v are negative that is 0 and flat, so `linear`, which relative losses read, is
    sum(w v) / sum(w); the score does not follow from it alone.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of the images that the network fits, a multiple of 8 * `window`.
        embed_dim: Channels of a token; a multiple of twice `heads`.
        vit_heads: Heads of the vision transformer.
        heads: Heads of the Swin blocks.
        hidden: Units of their feed-forward layers.
        window: Side of their windows, in tokens.
        tabs: Blocks of channel attention per stage.
        scale: Of the Swin layers; 0.8, or 0.13 for the checkpoint fitted to PIPAL. Also an attribute
            that may be set after loading.

    Example:
        >>> critic = create_critic("maniqa", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> (-critic.linear(x)).sum().backward()
    """

    taps = _TAPS
    rules = (
        *vit_rules(r"(?:vit\.)?", blocks=10),
        Rule(r"fc_(score|weight)\.3\.(.+)", r"fc_\1.2.\2"),
        Rule(r"swintransformer[12]\.downsample\..+", None, "a convolution that the published network never runs"),
        Rule(r".+\.relative_position_index", None, "the places in a window", lambda c, t: _is_our("index", c, t)),
        Rule(r".+\.attn_mask", None, "the windows that a shift joins", lambda c, t: _is_our("mask", c, t)),
    )

    def __init__(
        self,
        card: Card,
        *,
        side: int = 224,
        embed_dim: int = 768,
        vit_heads: int = 12,
        heads: int = 4,
        hidden: int = 768,
        window: int = 4,
        tabs: int = 2,
        scale: float = _SCALE,
    ) -> None:
        super().__init__(card, side)
        self.scale = scale
        vit = {"embed_dim": embed_dim, "num_heads": vit_heads, "img_size": side}
        self.trunk = VisionTransformer("vit_base_patch8_224", 10, HALF, **vit)
        size, half = side // _PATCH, embed_dim // 2
        self.tablock1, self.tablock2 = (
            nn.ModuleList(TransposedAttention(size**2) for _ in range(tabs)) for _ in range(2)
        )
        self.conv1, self.conv2 = nn.Conv2d(len(_TAPS) * embed_dim, embed_dim, 1), nn.Conv2d(embed_dim, half, 1)
        self.swintransformer1 = ScaledSwin(embed_dim, size, window, heads, hidden)
        self.swintransformer2 = ScaledSwin(half, size, window, heads, hidden)
        self.fc_score, self.fc_weight = (
            nn.Sequential(nn.Linear(half, half), nn.ReLU(), nn.Linear(half, 1)) for _ in range(2)
        )
        nn.init.constant_(self.fc_score[2].get_parameter("bias"), 0.5)  # amid the range of the labels

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.read_taps(x, y, fx, fy)[1]

    def read_taps(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        values, weights = self.judge(fx)
        weights = self.held(weights)
        published, linear = (self.averaged(weighted_mean(v, weights), x) for v in (values.relu(), values))
        return published, linear

    def judge(self, fx: Features) -> tuple[Tensor, Tensor]:
        """Value before the ReLU, and weight from 0 to 1, of every token, row by row, (crops, (side / 8) ** 2) each."""
        h = torch.cat([fx[tap] for tap in _TAPS], 1)
        stages = (
            (self.tablock1, self.conv1, self.swintransformer1),
            (self.tablock2, self.conv2, self.swintransformer2),
        )
        for blocks, narrow, swin in stages:
            tokens = rearrange(h, "n c h w -> n c (h w)")
            for block in blocks:
                tokens = block(tokens)
            h = swin(narrow(tokens.view_as(h)), self.scale)
        tokens = rearrange(h, "n c h w -> n (h w) c")
        return self.fc_score(tokens).squeeze(2), self.fc_weight(tokens).sigmoid().squeeze(2)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Published value of every token of 8x8 pixels, (N, 1, h, w) in units of the score; higher is better.

        The maps of several crops lie beside each other as the crops do, which overlap in the image.
        """
        values, _ = self.judge(self.look(x))
        return self.beside(rearrange(values.relu(), "crops (h w) -> crops h w", h=self.side // _PATCH), x)

    @property
    def signature(self) -> str:
        """As of any critic, and the scale if it is not that of the default checkpoint."""
        return super().signature + ("" if self.scale == _SCALE else f"|scale:{self.scale}")


_CARD = opinion_card(
    name="maniqa",
    summary="Opinion score learned from late vision-transformer tokens by attention among channels and patches.",
    kind="nr",
    bounds=(0.0, math.inf),
    min_size=224,
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0",
    weights=("maniqa",),
    paper="Yang et al., MANIQA: Multi-dimension Attention Network for No-Reference Image Quality Assessment, "
    "CVPR Workshops 2022",
    source="https://github.com/IIGROUP/MANIQA commit f573d86",
    notes=(
        crops_note(224),
        "easily fooled: a generator that only follows its gradient raises the score past 1 in a few steps without "
        "better pictures, so keep a pixel or LPIPS term beside it and watch another critic",
        "scores of pictures lie between 0 and 1, the range of its labels, but only 0 is a bound",
        "the value of a token ends in a ReLU; relative losses read it before, where it always has a slope",
        "the weights of the tokens are constants of the gradient unless critic.hold_weights = False",
        "tokens are 8x8 pixels without overlap, so gradients can show a pattern of period 8: move the crops by 0 to 7 "
        "pixels from step to step, as random crops do",
        "the default checkpoint is that for KonIQ-10k; the one for KADID-10k loads as well; the one for PIPAL is a "
        "whole pickled network, which is refused: save its state dict, and set critic.scale = 0.13",
        "among the most expensive critics: 114 M parameters, ViT-B/8 with 785 tokens, attention of 3072 channels",
    ),
)

ENTRIES = {"maniqa": Entry(_CARD, MANIQA)}
