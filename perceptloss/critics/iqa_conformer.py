"""IQA-Conformer: convolution-augmented transformer blocks on Inception features and their difference.

Conde, Burchi, Timofte: "Conformer and Blind Noisy Students for Improved Image Quality Assessment",
CVPR Workshops 2022. Original: https://github.com/burchim/IQA-Conformer-BNS (commit ccf4744, file
headers say Apache-2.0). Ours: the trunk is differentiable (the original runs it without a
gradient), no dropout, and images larger than a crop are judged by several.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.attention import attend
from perceptloss.networks.batchnorm import BatchStats
from perceptloss.networks.inception_tokens import InceptionTokens
from perceptloss.networks.patches import crops_note
from perceptloss.networks.trunks import inception_rules
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "IQAConformer"]


class FeedForward(nn.Module):
    """Expansion with Swish; every module of a block normalises its input."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, ratio * width)
        self.reduce = nn.Linear(ratio * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.reduce(F.silu(self.expand(self.norm(h))))


class Attention(nn.Module):
    """Every place of a map attends to every place of another, which is taken as it is; or of itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        tokens = self.norm(h).flatten(1, 2)
        others = tokens if other is None else other.flatten(1, 2)
        found = attend(self.query(tokens), self.key(others), self.value(others), self.heads)
        return self.out(found).view_as(h)


class Convolution(nn.Module):
    """A gate, a depthwise convolution with its normalisation, and Swish."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.stats = BatchStats(width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        h = F.glu(self.gate(rearrange(self.norm(h), "n h w c -> n c h w")), 1)
        return rearrange(self.mix(F.silu(self.stats(self.depthwise(h)))), "n c h w -> n h w c")


class Block(nn.Module):
    """A conformer block on maps, (N, h, w, width); attention to another map is added if it crosses."""

    def __init__(self, width: int, heads: int, ratio: int, kernel: int, crosses: bool) -> None:
        super().__init__()
        self.ff_module1, self.ff_module2 = FeedForward(width, ratio), FeedForward(width, ratio)
        self.self_att_module = Attention(width, heads)
        self.cross_attention_module = Attention(width, heads) if crosses else None
        self.conv_module = Convolution(width, kernel)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        h = h + 0.5 * self.ff_module1(h)
        h = h + self.self_att_module(h)
        if self.cross_attention_module is not None:
            h = h + self.cross_attention_module(h, other)
        h = h + self.conv_module(h)
        return self.norm(h + 0.5 * self.ff_module2(h))


_RENAMED = {
    r"ff_module[12]": {"layers.0": "norm", "layers.1": "expand", "layers.4": "reduce"},
    r"conv_module": {
        "layers.0": "norm",
        "layers.1": "gate",
        "layers.3": "depthwise",
        "layers.4": "stats",
        "layers.6": "mix",
    },
    r"(?:self_att|cross_attention)_module": {
        "attention.query_layer": "query",
        "attention.key_layer": "key",
        "attention.value_layer": "value",
        "attention.output_layer": "out",
    },
}
_STEM = {0: "conv2d_1a", 1: "conv2d_2a", 2: "conv2d_2b", 4: "conv2d_3b", 5: "conv2d_4a", 7: "mixed_5b"}
_BLOCK = r"(encoder|decoder)\.blocks\.(\d+)\."
_RULES = (
    *inception_rules(),
    *(Rule(rf"mixed5b\.{n}\.(.+)", rf"trunk.{name}.\1") for n, name in _STEM.items()),
    *(Rule(rf"block35_{n - n % 2 + 2}\.{n % 2}\.(.+)", rf"trunk.repeat.{n}.\1") for n in range(10)),
    *(
        Rule(rf"{_BLOCK}({module})\.{theirs}\.(.+)", rf"\1.\2.\3.{ours}.\4")
        for module, parts in _RENAMED.items()
        for theirs, ours in parts.items()
    ),
    Rule(rf"{_BLOCK}((?:\w+_module\.)?norm\..+)", r"\1.\2.\3"),
    Rule(r"emb_p\.weight", "positions"),
    Rule(r"head\.1\.(.+)", r"head.0.\1"),
    Rule(r"head\.3\.(.+)", r"head.2.\1"),
)


class IQAConformer(InceptionTokens):
    """IQA-Conformer score in standard deviations of PIPAL; higher is better, without a fixed score at identity.

    Elo score = 121.5351 * score + 1448.9595, by the authors' constants.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of the crops, in pixels.
        width: Channels of a token.
        heads: Heads of every attention, which share the width.
        ratio: How many times wider the feed-forward layers are.
        kernel: Side of the depthwise convolutions, odd.
        layers: Conformer blocks of the encoder, and of the decoder.
        blocks: Residual blocks of the trunk, even.

    Example:
        >>> critic = create_critic("iqa-conformer", weights=None)
        >>> x = torch.rand(1, 3, 192, 192, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 192, 192)).sum().backward()
    """

    rules = _RULES

    def __init__(
        self,
        card: Card,
        *,
        side: int = 192,
        width: int = 128,
        heads: int = 4,
        ratio: int = 4,
        kernel: int = 7,
        layers: int = 1,
        blocks: int = 10,
    ) -> None:
        super().__init__(card, side, blocks)
        self.conv_proj = nn.Conv2d(self.channels, width, 1)
        self.positions = nn.Parameter(torch.randn(self.map_side**2, width))
        self.encoder, self.decoder = (
            nn.ModuleList(Block(width, heads, ratio, kernel, crosses) for _ in range(layers))
            for crosses in (False, True)
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def judge(self, difference: Tensor, reference: Tensor) -> Tensor:
        decoded = self.decode(reference, self.encode(difference))
        return self.head(decoded.mean((1, 2))).squeeze(1)

    def embed(self, features: Tensor) -> Tensor:
        """Projected features with their positions, (N, h, w, width)."""
        positions = rearrange(self.positions, "(h w) c -> h w c", h=self.map_side)
        return rearrange(self.conv_proj(features), "n c h w -> n h w c") + positions

    def encode(self, difference: Tensor) -> Tensor:
        """Encoded difference, (N, h, w, width)."""
        h = self.embed(difference)
        for block in self.encoder:
            h = block(h)
        return h

    def decode(self, reference: Tensor, encoded: Tensor) -> Tensor:
        """Reference that attended to the encoded difference, (N, h, w, width)."""
        h = self.embed(reference)
        for block in self.decoder:
            h = block(h, encoded)
        return h


_CARD = opinion_card(
    name="iqa-conformer",
    summary="Opinion score of GAN-like artefacts by conformer blocks on Inception features; 4th of NTIRE 2022.",
    kind="fr",
    min_size=192,
    licence_code="none stated (file headers say Apache-2.0)",
    licence_weights="none stated",
    weights=("iqa-conformer",),
    paper="Conde et al., Conformer and Blind Noisy Students for Improved Image Quality Assessment, CVPR Workshops 2022",
    source="https://github.com/burchim/IQA-Conformer-BNS commit ccf4744",
    notes=(
        "the original runs its trunk without a gradient, so that none reaches the image; here it does",
        "Elo score = 121.5351 * score + 1448.9595; the authors average the ten crops of torchvision's TenCrop, flips "
        "included",
        crops_note(192),
        "the score of an image against itself depends on the image; scores are not symmetric",
        "convolutions of the trunk's stem are not padded: the outermost pixels of a crop weigh least",
        "the authors' checkpoint holds the trunk too; a head of your own takes timm's file of the trunk beside it",
    ),
)

ENTRIES = {"iqa-conformer": Entry(_CARD, IQAConformer)}
