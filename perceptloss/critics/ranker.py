"""Ranker of RankSRGAN: a convolutional network that learned in which order another metric puts results.

Zhang, Liu, Dong, Qiao: "RankSRGAN: Generative Adversarial Networks with Ranker for Image
Super-Resolution", ICCV 2019. Original: https://github.com/XPixelGroup/RankSRGAN at
b313c24a25c9844d1d0c7ea8fd1e35da00ad8975 (no licence stated; not used here). Ours: pooling over the
whole of a map that is not square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.lean import conv
from perceptloss.networks.trunks import Features, Keep, Trunk, TrunkCritic
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "Ranker", "RankerTrunk"]

Pool = Literal["global", "published"]
_WIDTHS = (64, 128, 256, 512, 512)
_LEAK = 0.2


class _LeanLeak(torch.autograd.Function):
    """Leaky ReLU that keeps signs only; overwrites its input."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.mark_dirty(h)
        ctx.save_for_backward(h > 0)
        return F.leaky_relu_(h, _LEAK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.where(positive, grad, _LEAK * grad)


class RankerTrunk(Trunk):
    """Pairs of a 3x3 convolution and a 4x4 one that halves the sides; taps `conv0_0` ... `conv4_1`, activated.

    Args:
        widths: Channels of each pair.
    """

    def __init__(self, widths: Sequence[int] = _WIDTHS) -> None:
        names = [f"{pair}_{half}" for pair in range(len(widths)) for half in (0, 1)]
        super().__init__(f"ranker-{tuple(widths)}", {f"conv{name}": at for at, name in enumerate(names)}, None)
        channels = 3
        for pair, width in enumerate(widths):
            for half, (kernel, stride) in enumerate(((3, 1), (4, 2))):
                self.add_module(f"conv{pair}_{half}", nn.Conv2d(channels, width, kernel, stride, 1))
                if pair or half:
                    self.add_module(f"bn{pair}_{half}", BatchStats(width))
                channels = width
        self.names = names
        self.finish()

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        children = dict(self.named_children())
        return [[children[key] for key in (f"conv{name}", f"bn{name}") if key in children] for name in self.names]

    def starts(self, last: int) -> Sequence[int]:
        return range(2, last + 1, 2)

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        layer, *norm = self.parts()[position]
        assert isinstance(layer, nn.Conv2d)
        h = conv(h, layer, *norm, lean=keep == "lean")
        return _LeanLeak.apply(h) if keep == "lean" and h.requires_grad else F.leaky_relu_(h, _LEAK)


class Ranker(TrunkCritic):
    """Learned order of super-resolution results, unbounded; lower is better.

    Args:
        card: Its card.
        pool: `global` averages the whole last map. `published` averages the square of its height at the left, which
            for square maps is the same, and takes no map that is taller than wide or twice as wide as tall.
        widths: Channels of each pair of convolutions.
        hidden: Units of the read-out.

    Example:
        >>> critic = create_critic("ranker")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    rules = (Rule(r".*num_batches_tracked", None, COUNTER), Rule(r"((?:conv|bn)\d_\d\..+)", r"trunk.\1"))

    def __init__(
        self, card: Card, *, pool: Pool = "global", widths: Sequence[int] = _WIDTHS, hidden: int = 100
    ) -> None:
        super().__init__(card)
        if pool not in get_args(Pool):
            raise ConfigError([f"pool must be 'global' or 'published', got {pool!r}"], card.name)
        self.pool = pool
        self.trunk = RankerTrunk(widths)
        self.taps = (f"conv{len(widths) - 1}_1",)
        self.classifier = nn.Sequential(nn.Linear(widths[-1], hidden), nn.LeakyReLU(_LEAK), nn.Linear(hidden, 1))

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        last = fx[self.taps[0]]
        height, width = last.shape[-2:]
        if self.pool == "published":
            if not height <= width < 2 * height:
                raise InputError(
                    f"the published pooling of critic {self.card.name!r} needs a last map at least as wide as tall and "
                    f"less than twice as wide, got {height}x{width} from {tuple(x.shape)}. Use pool='global'."
                )
            last = last[..., :height]
        score: Tensor = self.classifier(last.mean((2, 3)))
        return score[:, 0]


_CARD = opinion_card(
    name="ranker",
    summary="Network that learned the order in which NIQE, Ma's metric or PI puts super-resolution results.",
    kind="nr",
    better="lower",
    min_size=32,
    low_precision=True,
    tiling="never",
    licence_code="none stated",
    licence_weights="none stated",
    weights=("ranker",),
    paper="Zhang et al., RankSRGAN: Generative Adversarial Networks with Ranker for Image Super-Resolution, ICCV 2019",
    source="https://github.com/XPixelGroup/RankSRGAN at b313c24a25c9844d1d0c7ea8fd1e35da00ad8975",
    notes=(
        "only the order means something, and only near the results of SRResNet, SRGAN and ESRGAN that it learned from",
        "trained on 296x296 crops; any size from 32 on runs, and maps that are not square are averaged whole, where "
        "the authors average the square at the left (pool='published')",
        "inherits the weakness of the metric it imitates: texture that NIQE likes, and noise",
        "the authors train with shape 'sigmoid', weight 0.03 times the batch size, and batch statistics of the results",
    ),
)

ENTRIES = {"ranker": Entry(_CARD, Ranker)}
