"""Multi-score-SIQA: one network that judges a stereo pair, and its left, right and joint appearance, patch by patch.

Messai, Chetouani: "End-to-End Deep Multi-Score Model for No-Reference Stereoscopic Image Quality Assessment", ICIP
2022, https://arxiv.org/abs/2211.01374. Original: https://github.com/o-messai/Multi-score-SIQA (MIT, commit 44229c5).
Ours: no dropout in evaluation (the authors' is on even there, which makes their scores random).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import cut
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "HEADS", "MultiScoreSIQA", "Stream"]

HEADS = ("global", "left", "right", "stereo")
"""What is judged, in the order of the last axis of `MultiScoreSIQA.linear_heads`."""
_SIDE = 32
_POOLED = (True, True, False, False, True)  # after which convolutions the map is halved
_STREAMS = {"L": "left", "R": "right", "S": "stereo"}


class Stream(nn.Module):
    """Five convolutions over patches, and two linear layers that make a vector of them, and a score.

    Args:
        channels: Of the patches.
        widths: Of the convolutions.
        hidden: Units of the linear layers.
    """

    def __init__(self, channels: int, widths: Sequence[int], hidden: tuple[int, int]) -> None:
        super().__init__()
        steps = zip((channels, *widths[:-1]), widths, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(*step, 3, padding=1) for step in steps)
        self.norms = nn.ModuleList(BatchStats(w) for w, pooled in zip(widths, _POOLED, strict=True) if pooled)
        self.inner = nn.Linear(widths[-1] * (_SIDE // 8) ** 2, hidden[0])
        self.vector, self.outer = nn.Linear(*hidden), nn.Linear(hidden[1], 1)
        self.dropout = nn.Dropout()

    def forward(self, patches: Tensor) -> Tensor:
        """(M, channels, 32, 32) to vectors (M, hidden[1])."""
        h, norms = patches, iter(self.norms)
        for conv, pooled in zip(self.convs, _POOLED, strict=True):
            h = F.relu(conv(h))
            h = next(norms)(F.max_pool2d(h, 2)) if pooled else h
        return self.vector(self.dropout(self.inner(h.flatten(1))))


def _rules() -> tuple[Rule, ...]:
    rules = [Rule(r".+num_batches_tracked", None, COUNTER)]
    for letter, name in _STREAMS.items():
        rules += [Rule(rf"conv{n}{letter}\.(.+)", rf"{name}.convs.{n - 1}.\1") for n in range(1, 6)]
        rules += [Rule(rf"bn{n}_{letter}\.(.+)", rf"{name}.norms.{n - 1}.\1") for n in range(1, 4)]
        layers = ("inner", "vector", "outer")
        rules += [Rule(rf"fc{n}_{letter}\.(.+)", rf"{name}.{layer}.\1") for n, layer in enumerate(layers, 1)]
    return (*rules, *(Rule(rf"fc{n}_1\.(.+)", rf"together.{place}.\1") for n, place in ((1, 1), (2, 2), (3, 4))))


class MultiScoreSIQA(Critic):
    """Quality of a stereo pair (left RGB, right RGB), at least 0, on the scale of its labels; higher is better.

    Mean over 32x32 patches, side by side from the top left, of the global score, which reads all three streams.
    `heads` gives the other scores, too, and `maps` the global one of each patch.

    Args:
        card: What it is.
        widths: Of the convolutions.
        hidden: Units of the linear layers of a stream.
        joined: Units of the first linear layer behind the streams.
        all_cells: Keep the last row and column of patches of a side that is a multiple of 32; the authors' do not.

    Example:
        >>> critic = create_critic("multi-score-siqa", weights=None)
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    rules = _rules()

    def __init__(
        self,
        card: Card,
        *,
        widths: Sequence[int] = (32, 32, 64, 64, 128),
        hidden: tuple[int, int] = (1024, 512),
        joined: int = 1024,
        all_cells: bool = False,
    ) -> None:
        super().__init__(card)
        self.all_cells = all_cells
        self.left, self.right, self.stereo = (Stream(channels, widths, hidden) for channels in (3, 3, 6))
        self.together = nn.Sequential(
            nn.ReLU(),
            nn.Linear(3 * hidden[1], joined),
            nn.Linear(joined, hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], 1),
        )
        draw(self)
        for last in (self.left.outer, self.right.outer, self.stereo.outer, self.together[-1]):
            nn.init.constant_(last.get_parameter("bias"), 6.0)  # or what ends in a ReLU would be dead half of the time

    def grid(self, image: Tensor) -> tuple[range, range]:
        """Tops and lefts of the patches."""
        height, width = (n + self.all_cells - _SIDE for n in image.shape[-2:])
        return range(0, height, _SIDE), range(0, width, _SIDE)

    def linear_heads(self, x: Tensor) -> Tensor:
        """What the four heads give before their last ReLU, (N, patches, 4)."""
        pairs = cut(x, *self.grid(x), _SIDE)
        left, right = pairs.chunk(2, 1)
        vectors = {name: getattr(self, name)(part) for name, part in zip(HEADS[1:], (left, right, pairs), strict=True)}
        joined = self.together(torch.cat([vectors[name] for name in ("right", "left", "stereo")], 1))
        found = torch.cat([joined, *(getattr(self, name).outer(v) for name, v in vectors.items())], 1)
        return rearrange(found, "(n k) heads -> n k heads", n=len(x))

    def heads(self, x: Tensor) -> Tensor:
        """Global, left, right and stereo quality of pairs (N, 6, H, W), means over patches: (N, 4)."""
        return F.relu(self.linear_heads(x)).mean(1)

    def read(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        linear = self.linear_heads(x)[..., 0]
        return F.relu(linear).mean(1), linear.mean(1)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read(x)[0]

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read(x)[1]

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Global score of every patch: (N, 1, rows, columns)."""
        rows, _ = self.grid(x)
        return rearrange(F.relu(self.linear_heads(x)[..., 0]), "n (h w) -> n 1 h w", h=len(rows))


_CARD = opinion_card(
    name="multi-score-siqa",
    summary="Opinion score of stereo pairs by three patch networks: each view, and both together.",
    kind="stereo-nr",
    bounds=(0.0, float("inf")),
    domains=frozenset({"stereo"}),
    min_size=33,
    licence_code="MIT",
    licence_weights="the user's own",
    weights=("multi-score-siqa",),
    paper="Messai, Chetouani, End-to-End Deep Multi-Score Model for No-Reference Stereoscopic Image Quality "
    "Assessment, ICIP 2022",
    source="https://github.com/o-messai/Multi-score-SIQA commit 44229c5 (MIT)",
    notes=(
        "the authors publish no weights: bring a checkpoint of their training, or teach it on opinions of stereo pairs",
        "no dropout: the authors' code drops half of the hidden units even in its test, so that their scores vary from "
        "call to call, about ours",
        "the last row and column of patches of a side that is a multiple of 32 are not read, as in the authors' code, "
        "and get no gradient; the option all_cells keeps them. So the smallest side is 33",
        "patches do not see across their borders: give the loss a shift in training, or seams every 32 pixels show",
        "each patch sees the same place of both views, so disparities beyond some ten pixels leave the patch",
    ),
)

ENTRIES = {"multi-score-siqa": Entry(_CARD, MultiScoreSIQA)}
