"""One network that scores with a reference and without: ResNet-50 tokens in a small transformer encoder.

After Zeng and Kwong: "Learning Transformer Features for Image Quality Assessment", arXiv 2112.00485,
2021, of which the idea alone is public: one structure, trained on both tasks. The rest is ours.
Nearest public relative: Yun and Lin, arXiv 2310.09560, whose code states no licence and is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry
from perceptloss.networks.attention import EncoderLayer, by_row_and_column
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, Stages, TrunkCritic, TrunkName, resnet_rules, staged

__all__ = ["ENTRIES", "Unified", "UnifiedCritic", "UnifiedFR", "UnifiedNR"]

Scale = Literal["fr", "nr"]


def sine_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column of a square grid, half of the channels each: (grid * grid, width)."""
    steps = torch.arange(grid, dtype=torch.float32)[:, None]
    angles = steps * torch.exp(torch.arange(0, width // 2, 2) * (-math.log(1e4) / (width // 2)))
    return by_row_and_column(torch.cat([angles.sin(), angles.cos()], 1))


class Unified(nn.Module):
    """The network behind the trunk: maps of an image, and of its reference if there is one, to a score.

    Every map is averaged to `grid` x `grid` cells and projected to tokens t. Beside each t stands e: the
    absolute difference from the reference's map, averaged and projected likewise, or a learned null token where there
    is no reference. (Differences of averages, which the paper does not rule out, do not see what averages out in a
    cell: noise, for one.) The pair becomes one token, told its place and level; a quality token reads them all in the
    encoder and is read out. Labels of the two kinds of data have two scales, hence two gains and offsets at the end.

    Args:
        channels: Of the maps.
        width: Of the tokens, a multiple of 4 and of `heads`.
        grid: Cells along a side.
        layers: Of the encoder.
        heads: Of its attention.
        inner: Units of its feed-forward branch.
        hidden: Units of the read-out.
        dropout: Of the encoder, while it learns.
    """

    positions: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (256, 512, 1024, 2048),
        *,
        width: int = 128,
        grid: int = 7,
        layers: int = 2,
        heads: int = 4,
        inner: int = 512,
        hidden: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.ModuleList(nn.Linear(c, width) for c in channels)
        self.mix = nn.Linear(2 * width, width)
        self.null = nn.Parameter(torch.empty(width))
        self.quality = nn.Parameter(torch.empty(width))
        self.level = nn.Parameter(torch.empty(len(channels), width))
        self.encoder = nn.Sequential(*(EncoderLayer(width, heads, inner, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.affine = nn.ParameterDict({scale: torch.tensor([1.0, 0.0]) for scale in ("fr", "nr")})
        self.register_buffer("positions", sine_positions(grid, width), persistent=False)
        draw(self, slope=None)
        for token in (self.null, self.quality, self.level):
            nn.init.normal_(token, std=0.02)

    def tokens(self, maps: Sequence[Tensor]) -> Tensor:
        """Tokens of one image's maps, level by level, row by row: (N, levels * grid * grid, width)."""
        # averaging before the projection, which commutes with it, leaves little to project
        cells = zip(self.project, self._cells(maps), strict=True)
        return torch.cat([project(cell) for project, cell in cells], 1)

    def differences(self, maps: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """The e beside each t, of one shape: exactly 0 where image and reference agree."""
        found = self._cells([(m - r).abs() for m, r in zip(maps, reference, strict=True)])
        cells = zip(self.project, found, strict=True)
        return torch.cat([F.linear(cell, project.get_parameter("weight")) for project, cell in cells], 1)

    def _cells(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [rearrange(F.adaptive_avg_pool2d(m, self.grid), "n c h w -> n (h w) c") for m in maps]

    def forward(
        self, maps: Sequence[Tensor], reference: Sequence[Tensor] | None = None, scale: Scale | None = None
    ) -> Tensor:
        """Scores, (N,), higher is better.

        Args:
            maps: Of the judged images, (N, C, h, w) per level.
            reference: Of the references, same shapes; None to judge without.
            scale: Of the labels: `fr` or `nr`, by default the one that goes with `reference`.
                Training that drops references at random asks for `fr` without one.
        """
        t = self.tokens(maps)
        places = (self.level[:, None] + self.positions).flatten(0, 1)
        e = self.null.expand_as(t) if reference is None else self.differences(maps, reference)
        mixed = self.mix(torch.cat([t, e], 2)) + places
        h = self.encoder(torch.cat([self.quality.expand(len(t), 1, -1), mixed], 1))
        read = self.head(self.norm(h[:, 0])).squeeze(1)
        gain, offset = self.affine[scale or ("nr" if reference is None else "fr")]
        return gain * read + offset


class UnifiedCritic(TrunkCritic):
    """After Zeng and Kwong 2021; architecture partly ours. Unbounded score; higher is better, identity depends on y.

    The base of both modes, which have the same state dict: one checkpoint serves both. `twin` gives
    the critic of the other mode on the same weights, for joint training, or for a loss with both terms;
    `net` can also be called itself. The gradient goes through the attention, which is no pooling here.

    Args:
        card: What it is; its kind decides the mode.
        trunk: `resnet` or `lite0-smooth`, to make one; or one to hold.
        widths: Of the four stages of a new ResNet-50 (a quarter of the channels that leave them).
        net: Options of a new network behind it; or one to hold, which must fit the trunk's channels.

    Example:
        >>> critic = create_critic("unified-fr", weights=None)
        >>> loss_fn = CriticLoss([{"critic": critic, "weight": 1.0}, {"critic": critic.twin(), "weight": 0.1}])
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> loss_fn(x, torch.rand(1, 3, 64, 64)).backward()
    """

    rules = resnet_rules()

    def __init__(
        self,
        card: Card,
        trunk: TrunkName | Stages = "resnet",
        net: Unified | Mapping[str, Any] | None = None,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(card)
        self.trunk, self.taps, channels = staged(trunk, 50, widths) if isinstance(trunk, str) else trunk
        self.net = net if isinstance(net, Unified) else Unified(channels, **(net or {}))
        self.family: list[UnifiedCritic] = [self]

    def twin(self) -> UnifiedCritic:
        """The critic of the other mode on this very trunk and network.

        Always the same one. What one learns, the other knows; both freeze and unfreeze together. It is
        told the fingerprint of the weights when it is made: load them before.
        """
        for critic in self.family:
            if critic.card.kind != self.card.kind:
                return critic
        kind, name = (UnifiedNR, "unified-nr") if self.card.needs_reference else (UnifiedFR, "unified-fr")
        twin = kind(ENTRIES[name].card, Stages(self.trunk, self.taps, ()), self.net)
        twin.is_frozen, twin.weights_id, twin.precision = self.is_frozen, self.weights_id, self.precision
        twin.family = self.family
        self.family.append(twin)
        return twin.train(self.training)

    def freeze(self) -> UnifiedCritic:
        for critic in self.family:
            super(UnifiedCritic, critic).freeze()
        return self

    def unfreeze(self) -> UnifiedCritic:
        for critic in self.family:
            super(UnifiedCritic, critic).unfreeze()
        return self

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        reference = [fy[tap] for tap in self.taps] if self.card.needs_reference else None
        return self.net([fx[tap] for tap in self.taps], reference)


class UnifiedFR(UnifiedCritic):
    """`UnifiedCritic` with a reference."""

    unused = (r"net\.affine\.nr", r"net\.null")


class UnifiedNR(UnifiedCritic):
    """`UnifiedCritic` without a reference."""

    unused = (r"net\.affine\.fr",)


def _card(kind: Literal["fr", "nr"], summary: str, *notes: str) -> Card:
    return after_paper_card(
        name=f"unified-{kind}",
        summary=summary,
        kind=kind,
        min_size=32,
        multiple_of=32,
        licence_weights="BSD-3-Clause (torchvision trunk); the rest is the user's own",
        weights=("resnet50", "unified"),
        paper="Zeng and Kwong, Learning Transformer Features for Image Quality Assessment, arXiv 2112.00485, 2021",
        source="no code published; nearest relative https://github.com/BarCodeReader/YOTO (no licence, not used)",
        notes=(
            "not a reproduction: backbone, tokens, merging, depth and head are our choice",
            "unified-fr and unified-nr are one network in two modes: the same checkpoint loads in both",
            "meant for crops of 192 to 256 pixels, whose 7x7 cells dilute what is small: keep a pixel loss beside it",
            *notes,
        ),
    )


_FR = _card(
    "fr",
    "Opinion score from tokens of an image and their differences from the reference; one network with unified-nr.",
    "such networks tend to ignore the reference: see that a wrong one lowers the score before you trust it",
)
_NR = _card(
    "nr",
    "Opinion score from tokens of an image alone, for data without ground truth; one network with unified-fr.",
    "easily fooled (grain, over-sharpening, tint): its loss stops at the score of the reference; give it little weight",
)
ENTRIES = {"unified-fr": Entry(_FR, UnifiedFR), "unified-nr": Entry(_NR, UnifiedNR)}
