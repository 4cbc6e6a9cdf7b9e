"""A learned distance of two images that cannot go wrong by construction: zero for equal ones, and never falling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import given
from perceptloss.critics.mini.band_bank import BandBank
from perceptloss.critics.mini.viewing import LiteCritic, refuse
from perceptloss.networks.layers import moments, unit_differences
from perceptloss.networks.trunks import LITE_TAPS, Features

__all__ = ["PAIR_TAPS", "FeatureDistances", "Masking", "PairCritic", "Positive", "RisingHead", "tap_distances"]

_DEEPEST = {"full": 0, "near": 112, "far": 80}  # channels
PAIR_TAPS: Mapping[str, int] = {tap: n for tap, n in LITE_TAPS.items() if n <= _DEEPEST[tap.partition(".")[0]]}
"""What is compared, with its channels: the first stages of what is seen from a distance."""
_SORTS = 4
_SMALL = 1e-2  # added to squared features before they divide
_MASK = 1.2  # logarithm of the greatest factor by which a reference can mask, or bare


class Positive(nn.Module):
    """A linear map without bias whose weights are positive: the softplus of what is learned.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        start: Sum of the weights of an output at the start.
    """

    def __init__(self, inputs: int, outputs: int, start: float = 1.0) -> None:
        super().__init__()
        centre = math.log(math.expm1(start / inputs))
        self.raw = nn.Parameter(centre + 0.5 * torch.randn(outputs, inputs))

    @property
    def weight(self) -> Tensor:
        """Positive weights, (outputs, inputs)."""
        return F.softplus(self.raw)

    def forward(self, v: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(v, self.weight)


def tap_distances(fx: Features, fy: Features, taps: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """How taps (N, C, h, w) of two images differ, channel by channel, and how strong each of them is.

    Returns:
        Distances >= 0, (N, 4 C) of tap after tap: of unit vectors as in LPIPS (Zhang et al., CVPR 2018), of means and
        of structure as in DISTS (Ding et al., TPAMI 2020), and of deviations, which do not change when texture moves;
        and the logarithms of the mean squares of every tap of x and of y, (N, taps) each.
    """
    widths = [fx[tap].shape[1] for tap in taps]
    local = torch.cat([unit_differences(fx[tap], fy[tap]) * width for tap, width in zip(taps, widths, strict=True)], 1)
    found = zip(*(moments(fx[tap], fy[tap]) for tap in taps), strict=True)
    mx, my, vx, vy, covariance = (torch.cat(each, 1) for each in found)
    vx, vy = vx.clamp_min(0), vy.clamp_min(0)
    sx, sy = mx.square(), my.square()
    means = (mx - my).square() / (sx + sy + _SMALL)
    structure = 1 - (2 * covariance + _SMALL) / (vx + vy + _SMALL)
    deviations = ((vx + _SMALL / 4).sqrt() - (vy + _SMALL / 4).sqrt()).square() / (vx + vy + _SMALL)
    apart = torch.stack([local, means, structure.clamp_min(0), deviations], 1).split(widths, 2)
    strong = [[part.mean(1) for part in (s + v + _SMALL).split(widths, 1)] for s, v in ((sx, vx), (sy, vy))]
    own, facts = (torch.stack(each, 1).log() for each in strong)
    return torch.cat([part.flatten(1) for part in apart], 1), own, facts


class FeatureDistances(nn.Module):
    """Distances of taps, weighed over their channels.

    Args:
        widths: Tap name to its channels.
        views: Differently weighted distances of each sort per tap.
    """

    belongs: Tensor
    """Ones where a channel, (channels,), is of a sort and tap, (sorts of taps,)."""

    def __init__(self, widths: Mapping[str, int], views: int = 6) -> None:
        super().__init__()
        self.widths, self.views = tuple(widths.values()), views
        sizes = [width for width in self.widths for _ in range(_SORTS)]
        self.weigh = nn.ModuleList([Positive(size, views) for size in sizes])
        self.register_buffer("belongs", torch.block_diag(*(torch.ones(size, 1) for size in sizes)), persistent=False)

    @property
    def features(self) -> int:
        """Number of distances."""
        return len(self.weigh) * self.views

    def forward(self, apart: Tensor) -> Tensor:
        """Distances of channels (N, 4 x all channels) as of `tap_distances`, tap after tap, to (N, features)."""
        weights = F.softplus(torch.cat([cast(Positive, part).raw for part in self.weigh], 1))
        return ((apart[:, None] * weights) @ self.belongs).mT.flatten(1)


class RisingHead(nn.Module):
    r"""Distances to one distance that rises with every one of them, and is 0 when all are.

    .. math:: d = u \cdot f + v \cdot (1 - e^{-W f}), \quad u, v, W > 0

    The line keeps a slope where the saturated units have none.

    Args:
        inputs: Number of distances.
        hidden: Saturating units.
    """

    def __init__(self, inputs: int, hidden: int = 48) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(inputs))
        self.line = Positive(inputs, 1)
        self.units = Positive(inputs, hidden, start=4.0)
        self.mix = Positive(hidden, 1)

    def forward(self, v: Tensor) -> Tensor:
        """Distances (N, inputs) to (N,)."""
        v = v * self.gain.exp()
        return (self.line(v) + self.mix(-torch.expm1(-self.units(v))))[:, 0]


class Masking(nn.Module):
    """A factor between 1 / 3.3 and 3.3 from facts of the reference alone: how much its content hides or bares.

    Args:
        facts: Number of facts.
        hidden: Units.
    """

    def __init__(self, facts: int, hidden: int = 16) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(facts, affine=False, momentum=0.02)
        self.inner, self.outer = nn.Linear(facts, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, facts: Tensor) -> Tensor:
        """(N, facts) to (N,)."""
        inner = torch.tanh(self.inner(self.normalise(facts).clamp(-4, 4)))
        return (_MASK * torch.tanh(self.outer(inner)[:, 0])).exp()


class PairCritic(LiteCritic):
    """What compares two images: bands of frequency and colour, and taps of the shared trunk, read by a head.

    Args:
        card: What it is.
        views: Differently weighted distances of each sort per tap.
        scales: Scales of the bands.
        hidden: Saturating units of the head.
        pixels_per_degree: See `LiteCritic`.

    Raises:
        ConfigError: if one of them will not do.
    """

    taps = tuple(PAIR_TAPS)

    def __init__(
        self, card: Card, *, views: int = 6, scales: int = 5, hidden: int = 48, pixels_per_degree: float = 60.0
    ) -> None:
        super().__init__(card, pixels_per_degree)
        numbers = {"views": views, "scales": scales, "hidden": hidden}
        refuse(card, "a whole number of at least 1", lambda value: value < 1, **numbers)
        self.bank = BandBank(scales)
        self.distances = FeatureDistances(PAIR_TAPS, views)
        self.facts = self.bank.facts + len(PAIR_TAPS)
        self.head = RisingHead(self.bank.features + self.distances.features, hidden)
        self.masking = Masking(self.facts)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers of a reading: distances of bands, of channels, facts of the reference, and of the judged image."""
        return self.bank.features, _SORTS * sum(PAIR_TAPS.values()), self.facts, self.facts

    def reading(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        """Everything that the learned parts see of two images, (N, sum of `sizes`)."""
        bands, seen, busy = self.bank(
            self.prepare(x), self.prepare(given(y)), hold=self.hold_weights and self.is_frozen
        )
        apart, own, facts = tap_distances(fx, fy, self.taps)
        return torch.cat([bands, apart, busy, facts, seen, own], 1)

    def apart(self, reading: Tensor) -> Tensor:
        """All weighed distances, (N, inputs of the head)."""
        bands, channels, _, _ = reading.split(self.sizes, 1)
        return torch.cat([bands, self.distances(channels)], 1)

    def judge(self, reading: Tensor) -> Tensor:
        """Readings to scores, (N,)."""
        return self.head(self.apart(reading)) * self.masking(reading.split(self.sizes, 1)[2])
