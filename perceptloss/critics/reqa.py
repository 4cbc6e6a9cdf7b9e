"""REQA: a coarse opinion score that feedback iterations refine, against the range effect.

After Li and Huo: "REQA: Coarse-to-fine Assessment of Image Quality to Alleviate the Range Effect",
Journal of Visual Communication and Image Representation, 2024. The authors' archive states no
licence: this is written from the description, and no weights are published. Where that says
nothing (the order of a gate's sums and normalisation, one head for all iterations), it is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry
from perceptloss.networks.attention import EncoderLayer
from perceptloss.networks.batchnorm import BatchStats
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import Features, TrunkCritic, TrunkName, resnet_rules, staged

__all__ = ["ENTRIES", "REQA", "Feedback", "GlobalContext"]

_SCALE = 10.0
_SHRINK = 32  # pixels of the image per token


class Feedback(nn.Module):
    """A convolutional LSTM cell with 1x1 convolutions, shown one map again and again.

    Args:
        channels: Of the map.
        hidden: Of the state.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.seen = nn.Conv2d(channels, 4 * hidden, 1, bias=False)
        self.kept = nn.Conv2d(hidden, 4 * hidden, 1, bias=False)
        self.norm = BatchStats(4 * hidden)

    def forward(self, f: Tensor, iterations: int) -> Iterator[Tensor]:
        """States (N, hidden, h, w) after each iteration over a map (N, channels, h, w), from zero on."""
        seen = self.seen(f)  # the same each time
        h = cell = seen.new_zeros(())
        for number in range(iterations):
            total = seen + self.kept(h) if number else seen
            enters, stays, leaves, new = self.norm(total).chunk(4, 1)
            cell = torch.sigmoid(stays) * cell + torch.sigmoid(enters) * torch.tanh(new)
            h = torch.sigmoid(leaves) * torch.tanh(cell)
            yield h


class GlobalContext(nn.Module):
    """One transformer layer over the coarsest map and a class token, which is read out.

    Args:
        channels: Of the map.
        tokens: Places of the map.
        width: Of the tokens.
        heads: Of the attention.
        inner: Units of the feed-forward branch.
        out: Numbers that are read out.
        dropout: While it learns.
    """

    def __init__(
        self, channels: int, tokens: int, width: int, heads: int, inner: int, out: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1)
        self.token = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(tokens + 1, width))
        self.layer = EncoderLayer(width, heads, inner, dropout)
        self.out = nn.Linear(width, out)

    def forward(self, f: Tensor) -> Tensor:
        """A map (N, channels, h, w) to (N, out)."""
        places = rearrange(self.reduce(f), "n c h w -> n (h w) c")
        tokens = torch.cat([self.token.expand(len(f), 1, -1), places], 1) + self.positions
        return self.out(self.layer(tokens)[:, 0])


class REQA(CropCritic, TrunkCritic):
    """After REQA; architecture partly ours: opinion score from 0 to about 100, higher is better.

    The first three maps of ResNet-50 each run through a feedback cell; after every iteration the
    three states and the global context of the fourth map give a score, the last of which counts.
    A published score ends in a ReLU, so that bad images have no slope: losses that compare images
    read what is before it. `predictions` gives the scores of all iterations.

    The read-outs of several crops are averaged before the ReLU.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Of the squares, a multiple of 32.
        trunk: `resnet` or `lite0-smooth`.
        widths: Of the four stages of the trunk (a quarter of the channels that leave them).
        hidden: Channels of the three states.
        local: Numbers that each state is reduced to.
        context: Numbers of the global context.
        width: Of its tokens.
        heads: Of its attention.
        inner: Units of its feed-forward branch.
        iterations: Of the feedback.

    Example:
        >>> critic = create_critic("reqa", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> critic.linear(x).sum().backward()
    """

    rules = resnet_rules()

    def __init__(
        self,
        card: Card,
        *,
        side: int = 224,
        trunk: TrunkName = "resnet",
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: Sequence[int] = (16, 32, 64),
        local: int = 32,
        context: int = 128,
        width: int = 224,
        heads: int = 14,
        inner: int = 176,
        iterations: int = 4,
    ) -> None:
        super().__init__(card, side)
        self.iterations = iterations
        self.trunk, self.taps, channels = staged(trunk, 50, widths)
        self.feedback = nn.ModuleList(Feedback(c, h) for c, h in zip(channels[:3], hidden, strict=True))
        sides = [_SHRINK // 4 >> level for level in range(3)]  # of the states once averaged: 8, 4, 2
        self.reduce = nn.ModuleList(nn.Linear(h * s * s, local) for h, s in zip(hidden, sides, strict=True))
        self.context = GlobalContext(channels[3], (side // _SHRINK) ** 2, width, heads, inner, context)
        fused = 3 * local + context
        plan = [fused, fused // 2, fused // 4, fused // 8, fused // 16, 1]
        self.head = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(plan))
        draw(self.head)

    def squash(self, linear: Tensor) -> Tensor:
        return F.relu(linear)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        *_, last = self._fused(fx)
        return self._read(last, x)

    def predictions(self, x: Tensor, *, linear: bool = False) -> Tensor:
        """Scores after each iteration, (N, iterations): the first is the coarse one, the last is `score`.

        Args:
            x: Judged images, RGB in [0, 1], (N, 3, H, W).
            linear: Before the final ReLU, for training.
        """
        self.refreeze()
        x, _ = self.admit(x)
        with torch.autocast(x.device.type, enabled=False):
            found = self.refined(self.look(x), x)
            return found if linear else self.squash(found)

    def refined(self, fx: Features, x: Tensor) -> Tensor:
        """Linear read-outs after each iteration, (N, iterations), from the taps of N images `x`."""
        return torch.stack([self._read(fused, x) for fused in self._fused(fx)], 1)

    def _fused(self, fx: Features) -> Iterator[Tensor]:
        """What the head reads after each iteration, (patches, 3 * local + context)."""
        *local, coarsest = (fx[tap] for tap in self.taps)
        context = self.context(coarsest)
        cells = [cell(f, self.iterations) for cell, f in zip(self.feedback, local, strict=True)]
        for states in zip(*cells, strict=True):
            pooled = [F.avg_pool2d(state, self.side // _SHRINK).flatten(1) for state in states]
            yield torch.cat([*(reduce(p) for reduce, p in zip(self.reduce, pooled, strict=True)), context], 1)

    def _read(self, h: Tensor, x: Tensor) -> Tensor:
        *others, last = self.head
        for layer in others:
            h = F.relu(layer(h))
        return _SCALE * self.averaged(last(h).squeeze(1), x)


_CARD = after_paper_card(
    name="reqa",
    summary="Opinion score that is fixed coarsely and refined by feedback, meant to order images of similar quality.",
    kind="nr",
    bounds=(0.0, float("inf")),
    min_size=224,
    licence_code="none stated (ours: written from the description)",
    weights=("resnet50", "reqa"),
    paper="Li and Huo, REQA: Coarse-to-fine Assessment of Image Quality to Alleviate the Range Effect, "
    "Journal of Visual Communication and Image Representation, 2024",
    source="https://github.com/huofushuo/REQA commit bdb77da (an archive)",
    notes=(
        "not checked against the authors' code; no weights are published",
        crops_note(224, "read-outs", "average 25 random crops of resized images"),
        "a score of 0 is the end of the published ReLU, not a measured quality; losses do not stop there",
        "trained on scores from 0 to 100",
        "normalisations of the gates use stored statistics, also while it learns",
    ),
)

ENTRIES = {"reqa": Entry(_CARD, REQA)}
