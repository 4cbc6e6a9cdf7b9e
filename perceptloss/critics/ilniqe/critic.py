r"""IL-NIQE: distance of each block's statistics, colours and filters among them, from pristine photographs.

Zhang, Zhang, Bovik: "A Feature-Enriched Completely Blind Image Quality Evaluator", IEEE TIP 2015. Original: the
authors' Matlab, https://www4.comp.polyu.edu.hk/~cslzhang/IQA/ILNIQE/ILNIQE.htm; facts follow it and its Python port
https://github.com/IceClear/IL-NIQE. Ours: Weibull distributions are fitted exactly, where the original stops at a
tolerance, and values and gradients are finite on flat and black images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.critics.ilniqe.features import COUNT, block_features
from perceptloss.networks.functional import imresize, root
from perceptloss.networks.nss import StatisticsCritic, rounded
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "ILNIQE", "distances"]

_NOWHERE = 2000.0  # the mean of an image none of whose blocks is defined


def distances(found: Tensor, defined: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Distance of every block from pristine ones, as wide as the covariance of both says: (N, blocks).

    Args:
        found: Reduced features, (N, blocks, F).
        defined: Which blocks have all of theirs, (N, blocks); others count as the mean of these.
        mean: Of pristine blocks, (F,).
        covariance: Of pristine blocks, (F, F).
    """
    there = defined[..., None]
    count = there.sum(1, keepdim=True)
    centre = torch.where(there, found, 0).sum(1, keepdim=True) / count.clamp_min(1)
    centre = torch.where(count > 0, centre, _NOWHERE)
    away = torch.where(there, found - centre, 0)
    spread = away.mT @ away / (count - 1).clamp_min(1)
    inverse = torch.linalg.pinv((covariance + spread) / 2, rtol=1e-15, hermitian=True)
    off = torch.where(there, found, centre) - mean
    return root(((off @ inverse) * off).sum(-1).relu())


class ILNIQE(StatisticsCritic):
    """Distance from natural statistics, 0 or more; lower is better, about 15 to 30 for photographs.

    Args:
        card: Its card.
        side: To which images are resampled, however they are shaped; the pristine statistics belong to 524.
        block: Side of the blocks, even; the pristine statistics belong to 84.
        components: Number of directions to which the features are reduced.
        table: See `StatisticsCritic`.

    Example:
        >>> critic = create_critic("ilniqe", weights=None, options={"side": 96, "block": 24})
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    mean: Tensor
    covariance: Tensor
    origin: Tensor
    directions: Tensor
    rules = (
        Rule(r"templateModel\.0", "mean"),
        Rule(r"templateModel\.1", "covariance"),
        Rule(r"templateModel\.2", "origin"),
        Rule(r"templateModel\.3", "directions"),
    )

    def __init__(
        self, card: Card, *, side: int = 524, block: int = 84, components: int = 430, table: bool = False
    ) -> None:
        super().__init__(card, table=table)
        self.side, self.block = side, block
        directions = torch.linalg.qr(torch.randn(COUNT, COUNT, dtype=torch.float64)).Q[:, :components].contiguous()
        spread = torch.randn(components, components, dtype=torch.float64) / math.sqrt(components)
        self.register_buffer("mean", torch.rand(components, dtype=torch.float64))
        self.register_buffer("covariance", 100 * (spread @ spread.mT + torch.eye(components, dtype=torch.float64)))
        self.register_buffer("origin", torch.rand(COUNT, dtype=torch.float64))
        self.register_buffer("directions", directions)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        levels = 255 * x.double()
        size = (self.side, self.side)
        zoom = (self.side / x.shape[-2], self.side / x.shape[-1])
        small = imresize(rounded(levels) if self.table else levels, size, zoom).clamp(0, 255)
        whole = self.side // self.block * self.block
        found, defined = block_features(small[..., :whole, :whole], self.block, table=self.table)
        reduced = (found - self.origin.double()) @ self.directions.double()
        return distances(reduced, defined, self.mean.double(), self.covariance.double()).mean(1).to(x.dtype)


_CARD = opinion_card(
    name="ilniqe",
    summary="Distance of statistics of contrast, gradients, colours and filters from those of pristine photographs.",
    kind="nr",
    better="lower",
    bounds=(0.0, math.inf),
    min_size=64,
    tiling="never",
    fidelity="paper",
    licence_code="none stated (authors' Matlab)",
    licence_weights="none stated",
    weights=("ilniqe",),
    paper="Zhang et al., A Feature-Enriched Completely Blind Image Quality Evaluator, IEEE TIP 2015",
    source="https://www4.comp.polyu.edu.hk/~cslzhang/IQA/ILNIQE/ILNIQE.htm; https://github.com/IceClear/IL-NIQE",
    notes=(
        "images are resampled to 524x524 first, whatever their shape, as published; small crops become enlargements",
        "published numbers round levels and tabulate shapes: set critic.table = True to report; the default is smooth",
        "its features are within 7e-4 of the published steps; whole scores were not compared, for lack of the model",
        "a hundred maps of 504x504 in float64 for each image: to report and to watch",
    ),
)

ENTRIES = {"ilniqe": Entry(_CARD, ILNIQE)}
