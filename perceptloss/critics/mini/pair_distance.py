"""A learned distance of two images that cannot go wrong by construction: zero for equal ones, and never falling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.critics.mini.similarity_bank import SimilarityBank
from perceptloss.networks.distances import texture_and_structure
from perceptloss.networks.functional import root_above
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.trunks import Features, Ladder, Trunk

__all__ = ["FeatureDistances", "PairCritic", "Positive", "RisingHead"]


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


class FeatureDistances(nn.Module):
    """Distances of the taps of a trunk: of unit vectors as in LPIPS, and of texture and structure as in DISTS.

    Args:
        widths: Tap name to its channels.
        views: Differently weighted distances of each sort per tap.
    """

    def __init__(self, widths: Mapping[str, int], views: int = 6) -> None:
        super().__init__()
        self.views = views
        self.local, self.texture, self.structure = (
            nn.ModuleDict({tap: Positive(width, views) for tap, width in widths.items()}) for _ in range(3)
        )

    @property
    def features(self) -> int:
        """Number of distances."""
        return 4 * self.views * len(self.local)

    def forward(self, fx: Mapping[str, Tensor], fy: Mapping[str, Tensor]) -> Tensor:
        """Taps of two images, each (N, C, h, w), to distances >= 0, (N, features)."""
        found = []
        for tap, module in self.local.items():
            assert isinstance(module, Positive)
            apart = (unit_norm(fx[tap]) - unit_norm(fy[tap])).square()
            maps = torch.einsum("nchw,kc->nkhw", apart, module.weight * apart.shape[1])
            mean = maps.mean((2, 3))
            spread = (maps - mean[:, :, None, None]).square().mean((2, 3))
            texture, structure = texture_and_structure(fx[tap], fy[tap], 1e-3)
            found += [mean, root_above(spread, 1e-3)]
            found += [self.texture[tap](1 - texture), self.structure[tap](1 - structure)]
        return torch.cat(found, 1)


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


class PairCritic(Critic):
    """What compares two images: a trunk, classical similarities, and distances of the trunk's taps, read by a head.

    The first stage of the trunk is not compared; the similarities see what it would.

    Args:
        card: What it is.
        widths: Channels of the trunk's stages.
        views: Differently weighted distances of each sort per tap.
        scales: Scales of the similarities.
        hidden: Saturating units of the head.
    """

    readings: int = 1
    """How many comparisons the head reads at once."""
    further: int = 0
    """How many other distances it reads."""

    def __init__(
        self,
        card: Card,
        *,
        widths: Sequence[int] = (32, 64, 96, 128),
        views: int = 6,
        scales: int = 4,
        hidden: int = 48,
    ) -> None:
        super().__init__(card)
        trunk = Ladder(widths)
        self.trunk: Trunk = trunk
        self.bank = SimilarityBank(scales)
        self.distances = FeatureDistances(dict(list(trunk.widths.items())[1:]), views)
        self.taps = tuple(self.distances.local)
        inputs = self.readings * (self.bank.features + self.distances.features) + self.further
        self.head = RisingHead(inputs, hidden)

    def apart(self, x: Tensor, y: Tensor, fx: Features, fy: Features) -> Tensor:
        """All distances of two images, (N, features)."""
        hold = self.hold_weights and self.is_frozen
        return torch.cat([self.bank(x, y, hold=hold), self.distances(fx, fy)], 1)
