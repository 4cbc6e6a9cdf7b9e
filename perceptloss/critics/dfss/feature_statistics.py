"""What DFSS is made of: vectors of 32x32 patches, and how their statistics deviate from a unit Gaussian.

See `perceptloss.critics.dfss.critic` for the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.networks import lean
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.functional import root
from perceptloss.networks.patches import cut, per_image, tiles
from perceptloss.weights.rules import Rule

__all__ = ["SIDE", "DeviationCritic", "deviation", "pooled_statistics"]

SIDE = 32
_SLOPE = 0.2  # of most leaky ReLUs; behind the stem and in the gate it is 0.01
_EPS = 1e-12  # added to the variance among patches before its logarithm
_ALIKE = 1e-4  # variance among patches below which the slope of its logarithm grows no more


def pooled_statistics(h: Tensor) -> Tensor:
    """Mean and standard deviation in 3x3 cells of equal or nearly equal size, which may share pixels.

    Args:
        h: Maps, (M, C, h, w).

    Returns:
        Means, then deviations, (M, 2 C, 3, 3). Cells of one pixel deviate by 0, without a gradient.
    """
    mean = F.adaptive_avg_pool2d(h, 3)
    return torch.cat([mean, root(F.relu(F.adaptive_avg_pool2d(h.square(), 3) - mean.square()))], 1)


def deviation(statistics: Tensor, floor: float = _ALIKE) -> Tensor:
    r"""Divergence of patches' values from a unit Gaussian, channel by channel.

    .. math:: d = -\tfrac12 (1 + \ln v - \mu^2 - v) = \operatorname{KL}(N(\mu, v) \,\|\, N(0, 1))

    Args:
        statistics: One value per patch and channel, (N, P, C), P > 1.
        floor: Variance below which the slope of the logarithm is held; 0 for the slope as published.

    Returns:
        (N, C), 0 or more; about 13 where all patches agree.
    """
    mean, variance = statistics.mean(1), statistics.var(1, unbiased=False) + _EPS
    return -0.5 * (1 + _log(variance, floor) - mean.square() - variance)


def _log(v: Tensor, floor: float) -> Tensor:
    """Natural logarithm of v > 0, whose slope below `floor` is held at 1 / floor."""
    if not floor:
        return v.log()
    line = v / floor
    return torch.where(v < floor, line + (v.log() - line).detach(), v.clamp_min(floor).log())


class _Unit(nn.Module):
    """A convolution that keeps the size, its normalisation, and a leaky ReLU."""

    def __init__(self, channels: int, width: int, side: int = 3) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, width, side, padding=side // 2), BatchStats(width)
        nn.init.kaiming_normal_(self.conv.weight, _SLOPE)

    def forward(self, h: Tensor) -> Tensor:
        return F.leaky_relu(lean.conv(h, self.conv, self.norm), _SLOPE, inplace=True)


def _rules() -> tuple[Rule, ...]:
    """The authors' names."""
    rules = [
        Rule(r".+\.num_batches_tracked", None, COUNTER),
        Rule(r"sf0\..+", None, "a branch that never reaches the score"),
        Rule(r"distype_cls\..+", None, "a classifier of distortions that only training reads"),
        Rule(r"sfl1\.(.+)", r"mix.\1"),
        Rule(r"scw\.(.+)", r"out.\1"),
        Rule(r"scl\.([02])\.(.+)", r"aggregate.\1.\2"),
        Rule(r"selayer\.fc\.([02])\.(.+)", r"gate.\1.\2"),
    ]
    for place, layer in enumerate(("conv", "norm")):
        rules += [Rule(rf"sf10{n}\.conv\.{place}\.(.+)", rf"stem.{n - 1}.{layer}.\1") for n in (1, 2)]
        for stage, name in enumerate(("sfl21", "sfl22", "sfl23", "sfl3")):
            units = ((n, rf"{name}\.conv{n}\.conv\.{place}\.(.+)") for n in (1, 2))
            rules += [Rule(theirs, rf"stages.{stage}.{n - 1}.{layer}.\1") for n, theirs in units]
    return tuple(rules)


class DeviationCritic(Critic):
    """The network of both critics: a vector of every 32x32 patch, half of what it shows, half of how it looks.

    Args:
        card: What it is.
        width: Channels of the first convolutions, from which all others follow.
        classes: Classes of the classifier of distortions that the authors train along; 0 leaves it out.
    """

    rules = _rules()

    def __init__(self, card: Card, *, width: int = 64, classes: int = 0) -> None:
        super().__init__(card)
        self.is_guarded = True
        self.stem = nn.ModuleList([_Unit(3, width), _Unit(3, width, 5)])
        self.mix = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        nn.init.kaiming_normal_(self.mix.weight)
        plan = zip((4, 2, 2, 2), (2, 2, 2, 4), strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(_Unit(wide * width, narrow * width), _Unit(narrow * width, narrow * width), nn.MaxPool2d(2))
            for wide, narrow in plan
        )
        half = 4 * width
        ends = nn.Conv2d(28 * width, 2 * half, 3), nn.Conv2d(2 * half, 2 * half, 1)
        for conv, gain in zip(ends, (1, 4), strict=True):  # patches differ from the start, as those of a trained one
            nn.init.kaiming_normal_(conv.weight, _SLOPE)
            conv.weight.data.mul_(gain)
        self.aggregate = nn.Sequential(ends[0], nn.LeakyReLU(_SLOPE, inplace=True), ends[1])
        self.gate = nn.Sequential(
            nn.Linear(half, half // 16), nn.LeakyReLU(inplace=True), nn.Linear(half // 16, half), nn.Sigmoid()
        )
        self.out = nn.Linear(half, 1)
        if classes:
            # under the authors' name, so that a file's classifier is loaded where there is one, else left out
            self.distype_cls = nn.Sequential(
                nn.Linear(half, half // 2), nn.LeakyReLU(_SLOPE, inplace=True), nn.Linear(half // 2, classes)
            )

    def patches(self, image: Tensor) -> Tensor:
        """All 32x32 patches of an image row by row, (N, P, 3, 32, 32), from the top left; the rest is not read."""
        return per_image(cut(image, *tiles(image, SIDE), SIDE), len(image))

    def vectors(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Content and statistics of patches (N, P, 3, 32, 32): (N, P, C) each."""
        h = patches.flatten(0, 1)
        h = self.mix(torch.cat([unit(h) for unit in self.stem], 1))
        maps = [F.max_pool2d(F.leaky_relu(h, inplace=True), 2)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        found = self.aggregate(torch.cat([pooled_statistics(h) for h in maps], 1)).flatten(1)
        content, statistics = per_image(found, len(patches)).chunk(2, 2)
        return content, statistics

    def deviation(self, x: Tensor) -> Tensor:
        """How far each channel's statistics over the patches of an image are from a unit Gaussian, (N, C)."""
        return self.deviate(self.vectors(self.patches(x))[1])

    def deviate(self, statistics: Tensor) -> Tensor:
        """As `deviation`, from what `vectors` says, (N, P, C)."""
        return deviation(statistics, _ALIKE if self.is_guarded else 0)
