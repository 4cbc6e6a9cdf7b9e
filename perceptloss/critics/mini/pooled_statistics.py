"""A quality read from one image: pooled features of a trunk and image statistics, through a small perceptron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["QualityHead", "pooled"]


def pooled(taps: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Mean and deviation over pixels of every channel of some taps, (N, 2 x channels)."""
    found = []
    for name in names:
        mean = taps[name].mean((2, 3))
        spread = (taps[name] - mean[:, :, None, None]).square().mean((2, 3))
        found += [mean, (spread + 1e-6).sqrt()]
    return torch.cat(found, 1)


class QualityHead(nn.Module):
    """A perceptron on trunk features and statistics, each standardised over the images that it learned from.

    Args:
        features: Number of pooled features.
        statistics: Number of statistics.
        hidden: Units of the first layer; the second has half of them.
    """

    def __init__(self, features: int, statistics: int, hidden: int = 128) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(features + statistics, momentum=0.02)
        self.layers = nn.Sequential(
            nn.Linear(features + statistics, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            nn.Linear(hidden // 2, 1),
        )

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        """(N, features) and (N, statistics) to (N,)."""
        return self.layers(self.normalise(torch.cat([features, statistics], 1)))[:, 0]
