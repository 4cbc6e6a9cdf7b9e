"""TReS: a transformer over ResNet features of four scales, trained to rank and to be consistent under mirroring.

Golestaneh, Dadsetan, Kitani: "No-Reference Image Quality Assessment via Transformers, Relative
Ranking, and Self-Consistency", WACV 2022. Original: https://github.com/isalirezag/TReS (commit
1fb1e40; Carnegie Mellon University, non-commercial research only, ours is written from the
description). Ours: no dropout, fixed crops instead of random ones, and a bounded slope of the
unit vectors where all channels of a feature are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.attention import attend, by_row_and_column
from perceptloss.networks.layers import L2Pool, unit_norm
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, features, resnet_rules
from perceptloss.weights.rules import Rule, constant

__all__ = ["ENTRIES", "TReS", "sine_positions"]

_STRIDE = 32  # of the last stage


def sine_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column, one channel each in turn, rows first: (grid * grid, width).

    A side is one turn of the slowest wave (Carion et al., End-to-End Object Detection with Transformers, ECCV 2020).
    """
    place = torch.arange(1, grid + 1, dtype=torch.float32)
    angle = place[:, None] / (place[-1] + 1e-6) * (2 * math.pi)
    channel = torch.arange(width // 2, dtype=torch.float32)
    angle = angle / 1e4 ** (2 * (channel // 2) / (width // 2))
    waves = [angle[:, 0::2].sin(), angle[:, 1::2].cos()]
    return by_row_and_column(rearrange(waves, "phase place channel -> place (channel phase)"))


class EncoderLayer(nn.Module):
    """Transformer layer, normalised before each branch; queries and keys are told their place, values are not."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens (N, T, width) to the same shape; positions are (T, width)."""
        values = self.norm1(tokens)
        cut_at = 2 * tokens.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q, k = F.linear(values + positions, weight[:cut_at], bias[:cut_at]).chunk(2, -1)
        v = F.linear(values, weight[cut_at:], bias[cut_at:])
        tokens = tokens + self.out_proj(attend(q, k, v, self.heads))
        return tokens + self.linear2(self.linear1(self.norm2(tokens)).relu())


class TReS(CropCritic, TrunkCritic):
    """TReS score on the label scale of its training set, unbounded; higher is better for opinion scores.

    Maps of the four stages become unit vectors over channels, are L2-pooled and averaged to one grid;
    its cells are the tokens of a transformer. The score is linear in the mean token and the mean of
    the last map. Mean over crops.

    Args:
        card: What it is; `side` becomes its `min_size`.
        depth: Of the ResNet: 50, 34 or 18.
        side: Side of a crop in pixels, a multiple of 32; weights fit any.
        widths: Channels of the ResNet's stages; all four maps together are as wide as a token, a multiple
            of 4 and of `heads`.
        heads: Of the attention.
        layers: Of the transformer.
        hidden: Units of its feed-forward branches.

    Example:
        >>> critic = create_critic("tres-resnet18", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("layer1", "layer2", "layer3", "layer4")
    positions: Tensor
    rules = (
        *resnet_rules(r"model\."),
        Rule(r"transformer\.encoder\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)", r"layers.\1.in_proj.\2"),
        Rule(r"transformer\.encoder\.layers\.(\d+)\.(?:self_attn\.)?(\w+\.(?:weight|bias))", r"layers.\1.\2"),
        Rule(r"transformer\.encoder\.norm\.(.+)", r"norm.\1"),
        Rule(r"fc2\.(.+)", r"reduce.\1"),
        Rule(r"fc\.(.+)", r"head.\1"),
        constant(r"L2pooling_l\d\.filter", "the binomial pooling filter", lambda critic: critic.pools[0].filter[:1]),
    )

    def __init__(
        self,
        card: Card,
        *,
        depth: int = 50,
        side: int = 224,
        widths: Sequence[int] = (64, 128, 256, 512),
        heads: int = 16,
        layers: int = 2,
        hidden: int = 64,
    ) -> None:
        channels = [width * (4 if depth >= 50 else 1) for width in widths]
        width = sum(channels)
        if side % _STRIDE or width % math.lcm(4, heads):
            problem = f"side must be a multiple of {_STRIDE}, got {side}, and tokens, {width}, of 4 and heads, {heads}"
            raise ConfigError([problem], card.name)
        super().__init__(card, side)
        self.cells = side // _STRIDE
        self.trunk = ResNet(depth, widths=widths)
        self.pools = nn.ModuleList(L2Pool(c, stride=1) for c in channels)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.reduce = nn.Linear(width, channels[-1])
        self.head = nn.Linear(2 * channels[-1], 1)
        self.register_buffer("positions", sine_positions(self.cells, width), persistent=False)

    def tokens(self, maps: Features) -> Tensor:
        """What the transformer reads, from the trunk's taps: (N K, cells, width), cells row by row."""
        pooled = [pool(unit_norm(maps[tap])) for tap, pool in zip(self.taps, self.pools, strict=True)]
        cells = [F.avg_pool2d(m, m.shape[-1] // self.cells) for m in pooled]
        return rearrange(torch.cat(cells, 1), "n c h w -> n (h w) c")

    def encode(self, maps: Features) -> Tensor:
        """Tokens behind the transformer, from the trunk's taps: (N K, cells, width)."""
        tokens = self.tokens(maps)
        for layer in self.layers:
            tokens = layer(tokens, self.positions)
        return self.norm(tokens)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        whole = self.reduce(self.encode(fx).mean(1))
        scores = self.head(torch.cat([whole, fx["layer4"].mean((2, 3))], 1))
        return self.averaged(scores.squeeze(1), x)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What each cell of 32x32 pixels gives to the score, in its units; the mean of a map is the score.

        A cell's token has seen the whole crop. Where crops overlap, their cells lie side by side, crop by crop.

        Returns:
            (N, 1, h, w), with 7 rows and columns per crop.
        """
        found = self.look(x)
        of_token, of_map = self.head.weight[0].chunk(2)
        constant = self.head.bias + of_token @ self.reduce.bias
        values = self.encode(found) @ (of_token @ self.reduce.weight) + constant
        values = rearrange(values, "crops (h w) -> crops h w", h=self.cells)
        return self.beside(values + found["layer4"].movedim(1, -1) @ of_map, x)

    def consistency(self, x: Tensor) -> Tensor:
        """How differently the network sees an image and its mirror image, (N,), at least 0; lower is better.

        The mean absolute difference of the encoded tokens plus that of the last map, which the authors
        train towards 0. The maps are not mirrored back, so that it is 0 for symmetric images only.
        A large value means that the score is not to be trusted. Differentiable on both sides.

        Args:
            x: Images, as for `score`.
        """
        x, _ = self.admit(x)
        with torch.autocast(x.device.type, enabled=False):
            crops = self.prepare(x)
            here, there = (features(self.trunk, c, self.taps, self.precision) for c in (crops, crops.flip(-1)))
            tokens = (self.encode(here) - self.encode(there)).abs().mean((1, 2))
            last = (here["layer4"] - there["layer4"]).abs().mean((1, 2, 3))
        return self.averaged(tokens + last, x)


_CARD = opinion_card(
    name="tres",
    summary="Opinion score without reference by a transformer on four scales of ResNet-50 features.",
    kind="nr",
    min_size=224,
    licence_code="Carnegie Mellon University, academic non-commercial",
    licence_weights="Carnegie Mellon University, academic non-commercial",
    weights=("tres",),
    paper="Golestaneh et al., No-Reference Image Quality Assessment via Transformers, Relative Ranking, and "
    "Self-Consistency, WACV 2022",
    source="https://github.com/isalirezag/TReS commit 1fb1e40",
    notes=(
        crops_note(224, authors="average 50 random crops"),
        "for KonIQ the authors shrink images to 512x384 (height 512) before they crop, for FLIVE to 512x512; nothing "
        "is resized here",
        "the label scale is that of the training set, about 0 to 100 for KonIQ and FLIVE; weights trained on LIVE or "
        "CSIQ predict differences of opinion: give better='lower'",
        "cells know their place in the crop, so the score changes a little when the image is shifted",
        "the authors trained with dropout, which is left out here",
        "critic.consistency(x) is large where the score is not to be trusted; critic.maps(x) gives the share of a cell",
        "152 M parameters with ResNet-50, most of them the transformer's; tres-resnet18 has 20 M, tres-resnet34 30 M",
    ),
)


def _variant(depth: int) -> Entry:
    name = f"tres-resnet{depth}"
    summary = f"Opinion score without reference by a transformer on four scales of ResNet-{depth} features."
    return Entry(replace(_CARD, name=name, summary=summary, weights=(name,)), partial(TReS, depth=depth))


ENTRIES = {"tres": Entry(_CARD, TReS), "tres-resnet34": _variant(34), "tres-resnet18": _variant(18)}
