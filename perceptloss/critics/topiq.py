r"""TOPIQ: what an image shows, told by the last features of a network, looks for damage in the earlier ones.

After Chen, Mo, Hou, Wu, Liao, Sun, Yan, Lin: "TOPIQ: A Top-down Approach from Semantics to Distortions for Image
Quality Assessment", IEEE TIP 2024; architecture partly ours. The authors' code is for non-commercial use only and none
of it was used. The paper's are the ResNet-50 with five levels, gated local pooling to the size of the last one,
attention within each level, cross-scale attention from level to level downwards, and, with a reference, features of
both images and their difference in the gates. Ours are widths where the paper names none, and the heads.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry
from perceptloss.networks.attention import EncoderLayer, attend
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, resnet_rules

__all__ = ["ENTRIES", "TOPIQ", "CrossScale", "GatedPool"]

_TAPS = ("stem", "layer1", "layer2", "layer3", "layer4")


class GatedPool(nn.Module):
    """Gated local pooling: features reduced, weighed by a gate, and averaged to a smaller map.

    Args:
        channels: Of the features.
        width: To which they are reduced.
        gates: Channels of what the gate sees.
    """

    def __init__(self, channels: int, width: int, gates: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1)
        self.gate = nn.Sequential(nn.Conv2d(gates, width, 1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, features: Tensor, seen: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, channels, h, w) and (N, gates, h, w) to tokens (N, rows * columns, width)."""
        weighed = F.gelu(self.reduce(features)) * torch.sigmoid(self.gate(seen))
        return F.adaptive_avg_pool2d(weighed, size).flatten(2).mT


class CrossScale(nn.Module):
    """Tokens of one level, asked by those of the level above it, (N, T, width) both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_kv = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.both, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, above: Tensor, level: Tensor) -> Tensor:
        key, value = self.both(self.norm_kv(level)).chunk(2, -1)
        return above + self.out(attend(self.query(self.norm_q(above)), key, value, self.heads))


class TOPIQ(TrunkCritic):
    """Opinion read from the top down; higher is better.

    Args:
        card: Its card; of kind `fr`, references are seen too.
        widths: Channels of the trunk's stages.
        width: Of the tokens.
        heads: Of the attention.

    Example:
        >>> critic = create_critic("topiq-nr", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = _TAPS
    rules = resnet_rules(r"(?:trunk\.)?")

    def __init__(
        self,
        card: Card,
        *,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        width: int = 256,
        heads: int = 4,
    ) -> None:
        super().__init__(card)
        self.trunk = ResNet(50, widths=widths)
        channels = (widths[0], *(4 * w for w in widths))
        seen = 3 if card.needs_reference else 1
        self.pools = nn.ModuleList(GatedPool(seen * c, width, seen * c) for c in channels)
        self.within = nn.ModuleList(EncoderLayer(width, heads, 2 * width, 0.0) for _ in channels)
        self.across = nn.ModuleList(CrossScale(width, heads) for _ in channels[1:])
        self.last = EncoderLayer(width, heads, 2 * width, 0.0)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        draw(self.pools, self.within, self.across, self.last, self.head, slope=None)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        size = fx["layer4"].shape[2:]
        levels = []
        for tap, pool, within in zip(self.taps, self.pools, self.within, strict=True):
            seen = fx[tap]
            if fy:
                seen = torch.cat([fx[tap], fy[tap], (fx[tap] - fy[tap]).abs()], 1)
            levels.append(within(pool(seen, seen, (size[0], size[1]))))
        *lower, tokens = levels
        for level, across in zip(reversed(lower), self.across, strict=True):
            tokens = across(tokens, level)
        return self.head(self.last(tokens).mean(1)).squeeze(1)


_card = partial(
    after_paper_card,
    min_size=32,
    licence_code="none (the paper alone; the authors' code, which forbids commerce, is not used)",
    paper="Chen et al., TOPIQ: A Top-down Approach from Semantics to Distortions for Image Quality Assessment, "
    "IEEE TIP 2024",
    source="the paper; written anew, the authors' weights do not fit",
)
_NOTE = "after the paper: the authors' published weights do not fit, and numbers cannot be compared with the paper's"
_FR = _card(
    name="topiq-fr",
    summary="Opinion score beside a reference: what an image shows looks for what damaged it, level by level.",
    kind="fr",
    weights=("resnet50", "topiq-fr"),
    notes=(_NOTE,),
)
_NR = _card(
    name="topiq-nr",
    summary="Opinion score without reference: what an image shows looks for what damaged it, level by level.",
    kind="nr",
    weights=("resnet50", "topiq-nr"),
    notes=(_NOTE,),
)

ENTRIES = {"topiq-fr": Entry(_FR, TOPIQ), "topiq-nr": Entry(_NR, TOPIQ)}
