"""The ladder of a joint critic: reference above mix above output above damaged output.

Every draw depends on seed, step and the place of a sample in the batch of all processes, so that a resumed run, and
two processes with half the batch each, draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.loss.joint.options import Damage
from perceptloss.networks.filters import slide

__all__ = ["Draws", "damaged", "mixed", "ranked", "swapped"]

_MIX = (0.25, 0.75)  # least and greatest share of the output in a mix
_NOISE, _GRID, _LEVELS = 0.03, 0.02, 24
_BLUR = (0.25, 0.5, 0.25)
_REGION = (0.4, 0.8)  # sides of a swapped region, in those of the image


@dataclass(frozen=True)
class Draws:
    """Random numbers of one step.

    Attributes:
        seed: Of the loss.
        step: Of the training.
        first: Place of the first sample in the batch of all processes.
    """

    seed: int
    step: int
    first: int = 0

    def generator(self, sample: int | None, use: int) -> torch.Generator:
        """Of a sample, or of the whole step, for one use."""
        value = 0xCBF29CE484222325
        for number in (self.seed, self.step, use, 0 if sample is None else 1 + self.first + sample):
            value = ((value ^ (number & 0xFFFFFFFF)) * 0x100000001B3) % 2**63
        return torch.Generator().manual_seed(value)

    def uniform(self, like: Tensor, use: int, shape: Sequence[int] = ()) -> Tensor:
        """Numbers in [0, 1) for every sample of a batch, (N, *shape)."""
        rows = [torch.rand(tuple(shape), generator=self.generator(i, use)) for i in range(len(like))]
        return torch.stack(rows).to(like)

    def choice(self, count: int, use: int) -> int:
        """One of `count` for the whole step."""
        return int(torch.randint(count, (), generator=self.generator(None, use)))


def mixed(x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """Between output and reference, (N, C, H, W)."""
    low, high = _MIX
    share = low + (high - low) * draws.uniform(x, 1)
    return torch.lerp(y, x, share[:, None, None, None])


def damaged(x: Tensor, kinds: Sequence[Damage], draws: Draws) -> Tensor:
    """Outputs made worse by one kind of damage, drawn for the step, (N, C, H, W)."""
    kind = kinds[draws.choice(len(kinds), 2)]
    if kind == "blur":
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return slide(slide(padded, _BLUR, -1), _BLUR, -2)
    if kind == "steps":
        return (x * _LEVELS).round() / _LEVELS
    if kind == "noise":
        return x + _NOISE * (draws.uniform(x, 3, x.shape[1:]) - 0.5) * 12**0.5
    return x + _GRID * _pattern(x, draws)


def _pattern(x: Tensor, draws: Draws) -> Tensor:
    """A pattern of period 2 or 4 with mean square 1, as shuffled pixels and strides print them, (1, C, H, W)."""
    period = (2, 4)[draws.choice(2, 4)]
    tile = torch.randn(x.shape[1], period, period, generator=draws.generator(None, 5))
    tile = tile - tile.mean((1, 2), keepdim=True)
    tile = tile / tile.square().mean().sqrt().clamp_min(1e-3)
    repeats = (1, -(-x.shape[2] // period), -(-x.shape[3] // period))
    return tile.repeat(repeats)[None, :, : x.shape[2], : x.shape[3]].to(x)


def swapped(x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """References with a rectangle replaced by output, and where, (N, 1, H, W) of zeros and ones."""
    height, width = x.shape[-2:]
    low, high = _REGION
    numbers = draws.uniform(x, 6, (4,)).tolist()
    mask = torch.zeros_like(x[:, :1])
    for i, (a, b, c, d) in enumerate(numbers):
        rows, columns = (int(n * (low + (high - low) * share)) for n, share in ((height, a), (width, b)))
        top, left = int((height - rows + 1) * c), int((width - columns + 1) * d)
        mask[i, :, top : top + rows, left : left + columns] = 1
    return torch.lerp(y, x, mask), mask


def ranked(better: Tensor, worse: Tensor, margin: Tensor | float) -> Tensor:
    """Mean of max(0, margin - (better - worse)), over qualities of any shape."""
    return F.relu(margin - (better - worse)).mean()
