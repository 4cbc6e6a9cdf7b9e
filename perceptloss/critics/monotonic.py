"""MonotonicIQA: one quality for all datasets, and per dataset a monotone map of it to that set's opinion scores.

Feng, Zhang, Jia, Chen, Wang: "Learning from Mixed Datasets: A Monotonic Image Quality Assessment
Model", Electronics Letters 59(3), 2023. Original: https://github.com/fzp0424/MonotonicIQA
(commit 551ba05, Apache-2.0). Ours: batches of any size, maps that are strictly monotone, and a compact pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError, near
from perceptloss.networks.functional import bounded_power
from perceptloss.networks.monotone import MonotoneHead
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, resnet_rules
from perceptloss.weights.rules import Rule

__all__ = ["DATASETS", "ENTRIES", "Monotonic", "PublishedHead", "StrictMonotonic", "bilinear"]

DATASETS = ("live", "csiq", "kadid-10k", "bid", "live-challenge", "koniq-10k")
Head = Literal["linear", "monotone"]
_EPS = 1e-8


class _Positive(nn.Linear):
    """A linear map by the absolute values of its weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight.abs())


class PublishedHead(nn.Module):
    """The published map of quality to a dataset's scores, in which weights count as |W|, with ELUs between layers.

    No bias is ever added. A quality q >= 0 keeps all units >= 0, where ELU is the identity, so
    there the map is exactly the line c q with c = |W5| |W4| |W3| |W2| |W1|: one gain per dataset, which cannot
    align labels with an offset. Below 0 it bends to a finite floor and its slope dies away.

    Args:
        widths: Of the layers, from 1 to 1.
    """

    def __init__(self, widths: Sequence[int] = (1, 10, 20, 20, 10, 1)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Positive(inputs, outputs) for inputs, outputs in pairwise(widths))

    def forward(self, q: Tensor) -> Tensor:
        """Qualities of any shape to scores of that shape."""
        h = q[..., None]
        for position, layer in enumerate(self.layers):
            h = layer(F.elu(h) if position else h)
        return h[..., 0]


def bilinear(maps: Tensor, floor: float = _EPS) -> Tensor:
    """Unit vectors of the signed roots of all products of two channels, averaged over the places.

    Args:
        maps: (N, C, h, w).
        floor: The gradient takes the slope of the root at this product for that of all smaller ones.

    Returns:
        (N, C * C); the order of the places does not matter, nor does the scale of the maps.
    """
    flat = maps.flatten(2)
    products = flat @ flat.mT / flat.shape[2]
    return F.normalize((products.sign() * bounded_power(products.abs() + _EPS, 0.5, floor)).flatten(1))


class Monotonic(TrunkCritic):
    """MonotonicIQA quality q, unbounded, about 0 to 2.7 in the authors' tests; higher is better.

    Maps of an ImageNet-normalised image after a ResNet-34, their `bilinear` pooling, and three layers. `heads`
    maps q to the scale of each dataset, for training with labels of several; all keep its order, and
    none takes part in the score, unless `dataset` says which. A loss reads q even then: below 0 a
    published head is flat.

    Args:
        card: What it is.
        dataset: On whose scale the score is, 0 to 10 as published; None for q itself.
        head: `linear`, as published, or `monotone`; see `PublishedHead` and `MonotoneHead`. None for the class's own.
        datasets: Names of the heads.
        floor: See `bilinear`. Products of two rarely active features are near 0, where the slope of the published root
            reaches 5000; 1e-8 gives the exact derivative. The score is the same.
        compact: Channels to which a 1x1 convolution brings the maps before the pooling; None for the class's own, and
            here none, as published.
        widths: Of the four stages of the trunk.
        hidden: Units of the two hidden layers.

    Raises:
        ConfigError: if `dataset` or `head` is none of those.

    Example:
        >>> critic = create_critic("monotonic", weights=None)
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("layer4",)
    rules = (
        *resnet_rules(r"backbone\."),
        *(
            Rule(rf"nlm{number}\.{2 * layer}\.fc\.weight", f"heads.{name}.layers.{layer}.weight")
            for number, name in enumerate(DATASETS, 1)
            for layer in range(5)
        ),
        Rule(r"nlm[1-6]\.[02468]\.fc\.bias", None, "the published heads never add their biases"),
    )
    unused = (r"heads\..+",)
    usual_head: Head = "linear"
    usual_compact: int | None = None

    def __init__(
        self,
        card: Card,
        *,
        dataset: str | None = None,
        head: Head | None = None,
        datasets: Sequence[str] = DATASETS,
        floor: float = 1e-4,
        compact: int | None = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: tuple[int, int] = (512, 64),
    ) -> None:
        super().__init__(card)
        head, compact, problems = head or self.usual_head, compact or self.usual_compact, []
        if head not in get_args(Head):
            problems.append(f"head must be 'linear' or 'monotone', got {head!r}")
        if dataset is not None and dataset not in datasets:
            problems.append(f"dataset must be one of {', '.join(datasets)}, got {dataset!r}{near(dataset, datasets)}")
        if problems:
            raise ConfigError(problems, card.name)
        self.dataset, self.floor = dataset, floor
        self.trunk = ResNet(34, widths=widths)
        self.reduce = nn.Conv2d(widths[-1], compact, 1) if compact else nn.Identity()
        self.fc = _regressor((compact or widths[-1]) ** 2, *hidden)
        build = PublishedHead if head == "linear" else MonotoneHead
        self.heads = nn.ModuleDict({name: build() for name in datasets})

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.quality(fx["layer4"])

    def quality(self, maps: Tensor) -> Tensor:
        """Qualities q, (N,), of the last maps of the trunk, (N, C, h, w)."""
        q: Tensor = self.fc(bilinear(self.reduce(maps), self.floor))
        return q[:, 0]

    def squash(self, linear: Tensor) -> Tensor:
        return linear if self.dataset is None else self.heads[self.dataset](linear)


class StrictMonotonic(Monotonic):
    """After Feng et al. 2023; architecture partly ours. Quality, unbounded; higher is better.

    `Monotonic` for training from scratch: heads of real capacity whose slope is never 0, and a pooling of 64
    channels, whose regressor has 2.1 million weights instead of 134.

    Example:
        >>> critic = create_critic("monotonic-strict", weights=None)
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    usual_head = "monotone"
    usual_compact = 64


def _regressor(inputs: int, first: int, second: int) -> nn.Sequential:
    """Three layers behind a unit vector, drawn so that random scores are O(1)."""
    layers = [nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, 1)]
    for layer in layers:
        nn.init.zeros_(layer.bias)
    # He's rule, for the first by scaling torch's draw from (-1, 1) / sqrt(inputs): a second draw takes seconds
    with torch.no_grad():
        layers[0].weight.mul_(math.sqrt(6 * inputs))
    nn.init.kaiming_normal_(layers[1].weight, nonlinearity="relu")
    nn.init.normal_(layers[2].weight, std=1 / math.sqrt(second))
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _card(name: str, summary: str, fidelity: Literal["official-parity", "after-paper"], *notes: str) -> Card:
    return opinion_card(
        name=name,
        summary=summary,
        kind="nr",
        min_size=32,
        low_precision=True,
        fidelity=fidelity,
        licence_code="Apache-2.0",
        licence_weights="the user's own; none published",
        weights=(name,),
        paper="Feng et al., Learning from Mixed Datasets: A Monotonic Image Quality Assessment Model, Electronics "
        "Letters 59(3), 2023",
        source="https://github.com/fzp0424/MonotonicIQA commit 551ba05",
        notes=(
            *notes,
            "depends on the resolution: trained on 384x384 crops, tested on images resized to 768; nothing is resized "
            "here, so crop 384 or more",
            "the layout of the image does not count, only which features occur together: it cannot say where",
            "the gradient holds the slope of the published root where its products are small (floor)",
        ),
    )


_PUBLISHED = _card(
    "monotonic",
    "Quality learned from six opinion datasets at once, each with a monotone map of its own.",
    "official-parity",
    "the score is the shared quality; the published maps to the datasets' scales are lines through 0, one gain each",
    "156 million parameters, of which 134 in one layer: to learn, it needs 2.5 GB with Adam; see monotonic-strict",
)
_STRICT = _card(
    "monotonic-strict",
    "Quality to be learned from several opinion datasets at once, each with a strictly monotone map of its own.",
    "after-paper",
    "the score is the shared quality, which the maps to the datasets' scales free from their offsets and curves",
    "ours: the maps, and 64 channels before the pooling",
)
ENTRIES = {"monotonic": Entry(_PUBLISHED, Monotonic), "monotonic-strict": Entry(_STRICT, StrictMonotonic)}
