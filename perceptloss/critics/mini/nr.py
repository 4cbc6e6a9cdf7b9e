"""mini-nr: a small no-reference quality of our own, taught by degraded photographs.

Not from a paper. Taps of the shared trunk, pooled by mean and deviation, beside statistics in the spirit of BRISQUE
and UCIQE (`statistics_bank`), learn what full-reference critics say of a degraded photograph without seeing
the original. Trained by `recipes/critic.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.critics.mini.statistics_bank import StatisticsBank
from perceptloss.critics.mini.viewing import TRUNK, LiteCritic, refuse
from perceptloss.networks.layers import mean_and_variance
from perceptloss.networks.trunks import LITE_TAPS, Features

__all__ = ["ENTRIES", "MiniNR", "QualityHead", "pooled"]

_FAR = 8.0  # deviations; a line must not be decided by numbers beyond


def pooled(taps: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Mean and deviation over pixels of every channel of some taps, (N, 2 x channels)."""
    found = []
    for name in names:
        mean, variance = mean_and_variance(taps[name])
        found += [mean, (variance + 1e-6).sqrt()]
    return torch.cat(found, 1)


class QualityHead(nn.Module):
    """A line or a perceptron on trunk features and statistics, each standardised over the images that it learned from.

    Args:
        features: Number of pooled features.
        statistics: Number of statistics.
        hidden: Units of the first layer, half of them in the second; 0: a line, which generalises better.
        drop: Share of the trunk's features that it does without at a time while it learns.
    """

    def __init__(self, features: int, statistics: int, hidden: int = 128, drop: float = 0.0) -> None:
        super().__init__()
        self.drop, self.far = drop, math.inf if hidden else _FAR
        self.normalise = nn.BatchNorm1d(features + statistics, momentum=0.02)
        widths = [features + statistics, *((hidden, hidden // 2) if hidden else ()), 1]
        layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.GELU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        """(N, features) and (N, statistics) to (N,)."""
        numbers = self.normalise(torch.cat([features, statistics], 1)).clamp(-self.far, self.far)
        seen, known = numbers.tensor_split([features.shape[1]], 1)
        return self.layers(torch.cat([F.dropout(seen, self.drop, self.training), known], 1))[:, 0]


class MiniNR(LiteCritic):
    """Quality of an image, about 0 (ruined) to 1 (clean photograph); higher is better, unbounded.

    Args:
        card: What it is.
        scales: Scales of the statistics.
        hidden: See `QualityHead`.
        drop: See `QualityHead`.
        pixels_per_degree: See `LiteCritic`.

    Raises:
        ConfigError: if one of them will not do.

    Example:
        >>> critic = create_critic("mini-nr")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    taps = tuple(tap for tap, width in LITE_TAPS.items() if tap.startswith("full.") and width <= 80)
    banks: Callable[[int], Any] = StatisticsBank
    """Makes the statistics, of so many scales."""

    def __init__(
        self,
        card: Card,
        *,
        scales: int = 3,
        hidden: int = 0,
        drop: float = 0.0,
        pixels_per_degree: float = 60.0,
    ) -> None:
        super().__init__(card, pixels_per_degree)
        refuse(card, "a whole number of at least 1", lambda value: value < 1, scales=scales)
        refuse(card, "0, for a line, or at least 2", lambda value: value < 0 or value == 1, hidden=hidden)
        refuse(card, "at least 0 and below 1", lambda value: not 0 <= value < 1, drop=drop)
        self.bank = self.banks(scales)
        self.features = 2 * sum(LITE_TAPS[tap] for tap in self.taps)
        self.head = QualityHead(self.features, self.bank.features, hidden, drop)

    def reading(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        """Pooled taps and statistics, (N, features + statistics)."""
        return torch.cat([pooled(fx, self.taps), self.bank(self.prepare(x))], 1)

    def judge(self, reading: Tensor) -> Tensor:
        return self.head(*reading.tensor_split([self.features], 1))


_CARD = opinion_card(
    name="mini-nr",
    summary="Small quality of our own that ships with perceptloss, learned from degraded photographs.",
    kind="nr",
    min_size=32,
    low_precision=True,
    licence_code="Apache-2.0 (ours)",
    licence_weights="Apache-2.0 (trunk: EfficientNet-lite0; ours: weights/mini-nr.md lists the photographs)",
    weights=(TRUNK, "mini-nr"),
    fidelity="after-paper",
    paper="none; after Mittal et al., TIP 2012 (BRISQUE), and Liu et al., ICCV 2017 (RankIQA)",
    source="perceptloss, recipes/configs/mini_nr.yaml",
    notes=(
        "taught by full-reference critics on degraded photographs, never by people",
        "tells clean from damaged better than bad from ruined: heavy damage is all alike to it",
        "a restorer can please it without getting better: keep its weight small beside a pixel loss",
    ),
)

ENTRIES = {"mini-nr": Entry(_CARD, MiniNR)}
