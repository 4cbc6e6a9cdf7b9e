"""URanker: ranks underwater pictures by a transformer on four scales that also reads their colour histogram.

Guo, Wu, Jin, Han, Zhang, Chai, Li: "Underwater Ranker: Learn Which Is Better and How to Be Better",
AAAI 2023. Original: https://github.com/RQ-Wu/UnderwaterRanker (commit f9bf350, CC BY-NC 4.0); our
code is written from the paper and from facts. Ours: tensors that the authors store under several
names are stored once, and a histogram that carries a gradient, as an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.critics.uranker.coat import ParallelBlock, Positions, RelativePositions, SerialBlock, joined, parted
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "Histogram", "Stage", "URanker", "histogram", "padded"]

Histogram = Literal["hard", "soft"]
_STRIDE = 32
_WINDOWS = {3: 2, 5: 3, 7: 3}  # side of a window to heads that look through it


def padded(x: Tensor) -> Tensor:
    """Zeros around images until the sides are multiples of 32, the smaller half above and on the left."""
    height, width = (-n % _STRIDE for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def histogram(x: Tensor, bins: int = 64, kind: Histogram = "hard") -> Tensor:
    """How many pixels of each channel are in each of the equal bins of [0, 1]; values beyond are in the end bins.

    Args:
        x: Images, (N, C, H, W).
        bins: Bins per channel.
        kind: `hard` counts whole pixels and has no gradient. `soft` shares a pixel among the two bins whose
            centres are next to it, as triangular windows do; its gradient is 0 in the outer halves of the end bins.

    Returns:
        Counts, channel by channel, (N, C * bins); each channel sums to H * W.
    """
    if kind == "hard":
        x = x.detach()
        below = (bins * x).floor().clamp(0, bins - 1)
        share = torch.zeros_like(x)
    else:
        place = (bins * x - 0.5).clamp(0, bins - 1)
        below = place.detach().floor().clamp(max=bins - 2)
        share = place - below
    counts = x.new_zeros(*x.shape[:2], bins)
    index, share = below.long().flatten(2), share.flatten(2)
    counts = counts.scatter_add(2, index, 1 - share)
    if kind == "soft":
        counts = counts.scatter_add(2, index + 1, share)
    return counts.flatten(1)


class Stage(nn.Module):
    """One scale: patches of the scale before become tokens, join a class and a histogram token, and pass blocks.

    Args:
        inputs: Channels of the map that is cut into patches.
        dim: Channels of a token.
        patch: Side of a patch.
        counts: Length of the histogram.
        depth: Serial blocks.
        windows: Of the relative positions; the heads are as many as they share.
        ratio: How many times wider hidden layers are.
    """

    def __init__(
        self, inputs: int, dim: int, patch: int, counts: int, depth: int, windows: Mapping[int, int], ratio: int
    ) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.proj, self.norm = nn.Conv2d(inputs, dim, patch, patch), nn.LayerNorm(dim)
        self.counts = nn.Linear(counts, dim)
        self.positions, self.relative = Positions(dim), RelativePositions(dim, windows)
        heads = sum(windows.values())
        self.blocks = nn.ModuleList(SerialBlock(dim, heads, ratio) for _ in range(depth))

    def forward(self, image: Tensor, counts: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, inputs, H, W) and histogram (N, counts) to tokens (N, 2 + h w, dim) and the size (h, w)."""
        patches = self.proj(image)
        size = (patches.shape[2], patches.shape[3])
        image = rearrange(self.norm(rearrange(patches, "n d h w -> n h w d")), "n h w d -> n d h w")
        extra = torch.cat([self.token.expand(len(image), -1, -1), self.counts(counts)[:, None]], 1)
        tokens = joined(extra, image)
        for block in self.blocks:
            tokens = block(tokens, size, self.positions, self.relative)
        return tokens, size


def _rules() -> tuple[Rule, ...]:
    """The authors' names; those of encodings and of hidden layers that blocks share lead to one tensor."""
    rules = [Rule(r"norm1\..+", None, "the normalisation of a scale that the score does not read")]
    for n in range(4):
        stage, serial, parallel = f"stages.{n}", rf"serial_blocks{n + 1}\.(\d+)", r"parallel_blocks\.(\d+)"
        rules += [
            Rule(rf"cls_token{n + 1}", f"{stage}.token"),
            Rule(rf"historgram_embed{n + 1}\.(.+)", rf"{stage}.counts.\1"),
            Rule(rf"patch_embed{n + 1}\.(.+)", rf"{stage}.\1"),
            Rule(rf"(?:{serial}\.cpe|cpe{n + 1})\.(.+)", rf"{stage}.positions.\2"),
            Rule(rf"(?:{serial}\.factoratt_crpe\.crpe|crpe{n + 1})\.(.+)", rf"{stage}.relative.\2"),
            Rule(rf"{parallel}\.factoratt_crpe{n + 1}\.crpe\.(.+)", rf"{stage}.relative.\2"),
            Rule(rf"{serial}\.factoratt_crpe\.(.+)", rf"{stage}.blocks.\1.attention.\2"),
            Rule(rf"{serial}\.(.+)", rf"{stage}.blocks.\1.\2"),
        ]
        if n:
            rules += [
                Rule(rf"{parallel}\.factoratt_crpe{n + 1}\.(.+)", rf"parallel.\1.attention.{n - 1}.\2"),
                Rule(rf"{parallel}\.norm([12]){n + 1}\.(.+)", rf"parallel.\1.norm\2.{n - 1}.\3"),
                Rule(rf"{parallel}\.mlp{n + 1}\.(.+)", r"parallel.\1.mlp.\2"),
                Rule(rf"norm{n + 1}\.(.+)", rf"norms.{n - 1}.\1"),
                Rule(rf"head{n + 1}\.(.+)", rf"heads.{n - 1}.\1"),
            ]
    rules += [Rule(rf"parallel_blocks\.(\d+)\.alpha{n + 1}", rf"parallel.\1.gains.{n}") for n in range(6)]
    return tuple(rules)


class URanker(Critic):
    """URanker score, unbounded, about -1 to 2 on pictures; higher is better. Not for commercial use.

    Args:
        card: What it is.
        dims: Channels of the tokens of four scales; the last three are equal.
        depth: Serial blocks per scale.
        parallel: Blocks that exchange among the last three scales.
        windows: Sides of the windows of relative positions, to the heads that look through each.
        ratio: How many times wider hidden layers are.
        bins: Of the histogram, per channel.
        histogram: `hard` as published, seen by the score but without a gradient, or `soft`, see `histogram`;
            also an attribute that may be set after loading.

    Example:
        >>> critic = create_critic("uranker", weights=None)
        >>> x = torch.rand(1, 3, 64, 96, requires_grad=True)
        >>> (-critic(x)).sigmoid().sum().backward()
    """

    rules = _rules()

    def __init__(
        self,
        card: Card,
        *,
        dims: tuple[int, int, int, int] = (152, 320, 320, 320),
        depth: int = 2,
        parallel: int = 6,
        windows: Mapping[int, int] = _WINDOWS,
        ratio: int = 4,
        bins: int = 64,
        histogram: Histogram = "hard",
    ) -> None:
        super().__init__(card)
        self.bins = bins
        self.histogram: Histogram = histogram
        shapes = zip(pairwise((3, *dims)), (4, 2, 2, 2), strict=True)
        self.stages = nn.ModuleList(Stage(*pair, patch, 3 * bins, depth, windows, ratio) for pair, patch in shapes)
        heads, dim = sum(windows.values()), dims[-1]
        self.parallel = nn.ModuleList(ParallelBlock(dim, heads, ratio) for _ in range(parallel))
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(dim, 1) for _ in range(3))
        self._draw()

    def _draw(self) -> None:
        for layer in self.modules():
            if isinstance(layer, Stage):
                nn.init.trunc_normal_(layer.token, std=0.02)
            elif isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read_outs(x).mean(1)

    def read_outs(self, x: Tensor) -> Tensor:
        """What the heads of the strides 8, 16 and 32 say, (N, 3); the score is their mean."""
        image = padded(x)
        counts = histogram(image, self.bins, self.histogram)
        tokens, sizes = [], []
        for stage in self.stages:
            found, size = stage(image, counts)
            image = parted(found, size)[1]
            tokens.append(found)
            sizes.append(size)
        last = self.stages[1:]
        tokens, sizes = tokens[1:], sizes[1:]
        positions, relative = [stage.positions for stage in last], [stage.relative for stage in last]
        for block in self.parallel:
            tokens = block(tokens, sizes, positions, relative)
        parts = zip(self.heads, self.norms, tokens, strict=True)
        return torch.cat([head(norm(found[:, 0])) for head, norm, found in parts], 1)

    @property
    def signature(self) -> str:
        """As of any critic, and the histogram if it is not the published one."""
        return super().signature + ("" if self.histogram == "hard" else f"|histogram:{self.histogram}")


_CARD = opinion_card(
    name="uranker",
    summary="Ranks enhanced underwater pictures, by a multi-scale transformer that reads the colour histogram.",
    kind="nr",
    domains=frozenset({"underwater"}),
    min_size=_STRIDE,
    tiling="never",
    licence_code="CC BY-NC 4.0",
    licence_weights="CC BY-NC 4.0",
    weights=("uranker",),
    paper="Guo et al., Underwater Ranker: Learn Which Is Better and How to Be Better, AAAI 2023",
    source="https://github.com/RQ-Wu/UnderwaterRanker commit f9bf350 (CC BY-NC 4.0)",
    notes=(
        "no resizing: the authors halve every image first, in training and test; judge images of half size too",
        "sides that are no multiples of 32 are padded with black, which falls into the histogram's first bin: crop",
        "the histogram has no gradient as published: a global colour cast is judged, but pushed only by way of the "
        "patches; critic.histogram = 'soft' (triangular bins, ours) gives it one, and moves the score",
        "trained to order ten results per scene, with a margin of 0.5: differences mean more than values",
        "shape 'sigmoid', weight 0.025 is the term of the authors' NU2Net; it fades beyond a score of about 4",
    ),
)

ENTRIES = {"uranker": Entry(_CARD, URanker)}
