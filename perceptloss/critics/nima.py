r"""NIMA: how likely people are to give each of ten marks, and the mean of these.

Talebi, Milanfar: "NIMA: Neural Image Assessment", IEEE TIP 2018. No code of the authors; layout follows
https://github.com/yunxiaoshi/Neural-IMage-Assessment (MIT), on VGG16.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import Features, TrunkCritic, vgg16
from perceptloss.networks.trunks.trunk import IMAGENET
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "NIMA"]

_MARKS = 10


class NIMA(CropCritic, TrunkCritic):
    """Mean of ten marks of beauty or technical quality, in [1, 10]; higher is better.

    Args:
        card: Its card.
        side: Of a crop, a multiple of 32.
        normalise: Whether images are normalised as torchvision does; the reference code tests without.

    Example:
        >>> critic = create_critic("nima", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("relu5_3",)
    rules = (Rule(r"features\.(.+)", r"trunk.features.\1"), Rule(r"classifier\.1\.(.+)", r"head.\1"))

    def __init__(self, card: Card, *, side: int = 224, normalise: bool = False) -> None:
        super().__init__(card, side)
        self.trunk = vgg16(normalise=IMAGENET if normalise else None)
        self.head = nn.Linear(512 * (side // 32) ** 2, _MARKS)
        draw(self.head)

    def marks(self, maps: Features) -> Tensor:
        """Shares of the marks 1 to 10 of every crop, (N K, 10)."""
        return self.head(F.max_pool2d(maps["relu5_3"], 2).flatten(1)).softmax(1)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        shares = self.marks(fx)
        means = (shares * shares.new_ones(_MARKS).cumsum(0)).sum(1)
        return self.averaged(means, x)


_CARD = opinion_card(
    name="nima",
    summary="Mean of the marks, 1 to 10, that people are expected to give; of beauty, if taught on AVA.",
    kind="nr",
    bounds=(1.0, 10.0),
    min_size=224,
    low_precision=True,
    fidelity="paper",
    licence_code="MIT (yunxiaoshi/Neural-IMage-Assessment)",
    licence_weights="MIT; BSD-3-Clause (torchvision's trunk inside)",
    weights=("nima",),
    paper="Talebi and Milanfar, NIMA: Neural Image Assessment, IEEE TIP 2018",
    source="https://github.com/yunxiaoshi/Neural-IMage-Assessment",
    notes=(
        crops_note(224, authors="shrink images to 256 pixels and take a random crop"),
        "marks of AVA are of beauty, not of damage: content decides more than quality does",
        "weights trained on normalised images: options {normalise: true}",
        "softmax: far from its middle the score hardly moves",
    ),
)

ENTRIES = {"nima": Entry(_CARD, NIMA)}
