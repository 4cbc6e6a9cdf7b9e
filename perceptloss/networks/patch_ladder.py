"""What WResNet and RADN share: a ladder of residual stages over 32x32 patches, and a weighted mean of patch values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.critic import Critic, given
from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import cut
from perceptloss.weights.rules import Rule

__all__ = ["HEAD", "LADDER", "SIDE", "PatchHead", "PatchLadderCritic", "Stage", "initialise", "ladder", "patch_grid"]

SIDE = 32
_STRIDES = (1, 2, 2, 2, 2)
_LEAST = 1e-6  # weight of a patch that its head finds irrelevant

LADDER = tuple(Rule(rf"conv{n}\.(.+)", rf"ladder.{(n - 1) // 4}.{(n - 1) % 4}.\1") for n in range(1, 21))
"""Layout of the authors' ladder: conv1 to conv20."""

HEAD = tuple(
    Rule(rf"fc{n}_{letter}\.(.+)", rf"head.{name}.{place}.\1")
    for letter, name in (("q", "value"), ("w", "weight"))
    for n, place in ((1, 0), (2, 3))
)
"""Layout of the authors' head."""


def patch_grid(height: int, width: int) -> tuple[range, range]:
    """Tops and lefts of the patches, as the authors place them.

    Side by side from the top left; unless both sides are multiples of 32, the last stride is
    dropped along both, so that up to 63 pixels at the bottom and at the right go unread.
    """
    end = 0 if height % SIDE == width % SIDE == 0 else SIDE
    return range(0, height - end, SIDE), range(0, width - end, SIDE)


class Stage(nn.ModuleList):
    """Four 3x3 convolutions with ReLUs; the first map is added to the last.

    Args:
        channels: Of the input.
        width: Of every map.
        stride: Of the first convolution.
        rectified: Whether a ReLU follows the first convolution too.
    """

    def __init__(self, channels: int, width: int, stride: int = 1, *, rectified: bool = True) -> None:
        others = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        super().__init__([nn.Conv2d(channels, width, 3, stride, 1), *others])
        self.rectified = rectified

    def forward(self, h: Tensor) -> Tensor:
        start, *others = self
        first = start(h)
        h = first = F.relu(first) if self.rectified else first
        for conv in others:
            h = F.relu(conv(h))
        return h + first


def ladder(widths: Sequence[int], strides: Sequence[int] = _STRIDES, *, rectified: bool = True) -> nn.Sequential:
    """Five stages, from patches in [0, 1]; `rectified` is that of the first stage."""
    steps = zip((3, *widths[:-1]), widths, strides, strict=True)
    return nn.Sequential(*(Stage(*step, rectified=rectified or i > 0) for i, step in enumerate(steps)))


class PatchHead(nn.Module):
    """Value and weight of a patch, from the vectors of the judged and the reference patch and their difference."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.value, self.weight = (
            nn.Sequential(nn.Linear(3 * features, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, 1))
            for _ in range(2)
        )

    def forward(self, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., features) to values and positive weights, (...) each."""
        vectors = torch.cat([vx - vy, vx, vy], -1)
        return self.value(vectors).squeeze(-1), F.relu(self.weight(vectors).squeeze(-1)) + _LEAST


def initialise(critic: nn.Module, head: PatchHead) -> None:
    """Random weights whose scores and gradients are neither dead nor huge, and that weigh patches about alike."""
    draw(critic, kinds=(nn.Conv2d,))
    nn.init.ones_(head.weight[-1].get_parameter("bias"))


class PatchLadderCritic(Critic):
    """A critic that values and weighs patches; subclasses give `head` and `vectors`."""

    head: PatchHead

    def vectors(self, x: Tensor, y: Tensor, images: int) -> tuple[Tensor, Tensor]:
        """Vectors of judged and reference patches, (images, patches, features) each.

        Args:
            x: Judged patches, (images * patches, 3, 32, 32), image by image.
            y: Reference patches, same shape.
            images: How many images they are of.
        """
        raise NotImplementedError

    def judge(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Values and weights of the patches of each image, row by row: (N, patches) each."""
        tops, lefts = patch_grid(*x.shape[-2:])
        px, py = (cut(image, tops, lefts, SIDE) for image in (x, y))
        values, weights = self.head(*self.vectors(px, py, len(x)))
        return values, weights

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        values, weights = self.judge(x, given(y))
        return weighted_mean(values, self.held(weights))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Value of every patch, higher is better: (N, 1, rows, columns) of the grid of patches."""
        values, _ = self.judge(x, given(y))
        rows, _ = patch_grid(*x.shape[-2:])
        return rearrange(values, "n (h w) -> n 1 h w", h=len(rows))
