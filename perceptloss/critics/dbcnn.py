r"""DB-CNN: one network that knows damage and one that knows objects, and every product of what the two say.

Zhang, Ma, Yan, Deng, Wang: "Blind Image Quality Assessment Using a Deep Bilinear Convolutional Neural Network", IEEE
TCSVT 2020. Original: https://github.com/zwx8981/DBCNN-PyTorch (MIT), after the authors' Matlab.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, TrunkCritic, vgg16
from perceptloss.weights.rules import Rule

__all__ = ["DBCNN", "ENTRIES", "damage_network"]

_PLAN = ((48, 1), (48, 2), (64, 1), (64, 2), (64, 1), (64, 2), (128, 1), (128, 1), (128, 2))


def damage_network(width: float = 1.0) -> nn.Sequential:
    """S-CNN: nine 3x3 convolutions with stored batch statistics, (N, 3, H, W) to (N, 128, H / 16, W / 16)."""
    layers: list[nn.Module] = []
    channels = 3
    for planned, stride in _PLAN:
        wide = int(planned * width)
        layers += [nn.Conv2d(channels, wide, 3, stride, 1), BatchStats(wide), nn.ReLU()]
        channels = wide
    return nn.Sequential(*layers)


class DBCNN(TrunkCritic):
    """Opinion of the bilinear features of two networks; higher is better.

    Args:
        card: Its card.
        width: Of the network that knows damage, relative to the published one.

    Example:
        >>> critic = create_critic("dbcnn", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("relu5_3",)
    rules = (
        Rule(r"features1\.(.+)", r"trunk.features.\1"),
        Rule(r"features2\.\d+\.num_batches_tracked", None, COUNTER),
        Rule(r"features2\.(.+)", r"damage.\1"),
        Rule(r"fc\.(.+)", r"head.\1"),
    )

    def __init__(self, card: Card, *, width: float = 1.0) -> None:
        super().__init__(card)
        self.trunk = vgg16()
        self.damage = damage_network(width)
        self.head = nn.Linear(512 * int(_PLAN[-1][0] * width), 1)
        draw(self.damage, self.head)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        objects = fx["relu5_3"]
        damage = self.damage((x - self.trunk.mean) / self.trunk.std)
        if damage.shape[2:] != objects.shape[2:]:
            damage = F.interpolate(damage, objects.shape[2:], mode="bilinear", align_corners=True)
        products = objects.flatten(2) @ damage.flatten(2).mT / objects[0, 0].numel()
        sizes = torch.sqrt(products.flatten(1) + 1e-8)
        return self.head(F.normalize(sizes)).squeeze(1)


_CARD = opinion_card(
    name="dbcnn",
    summary="Opinion score from products of the features of a network that knows damage and VGG16.",
    kind="nr",
    min_size=32,
    low_precision=True,
    fidelity="paper",
    licence_code="MIT",
    licence_weights="MIT; BSD-3-Clause (torchvision's trunk inside)",
    weights=("dbcnn",),
    paper="Zhang et al., Blind Image Quality Assessment Using a Deep Bilinear Convolutional Neural Network, "
    "IEEE TCSVT 2020",
    source="https://github.com/zwx8981/DBCNN-PyTorch commit 20d180a",
    notes=(
        "images are taken as they are, of any size; the authors trained on crops of 432 to 448 pixels",
        "the repository publishes the network that knows damage, and no whole one; weights trained on LIVE's or "
        "CSIQ's differences of opinions: give better='lower'",
    ),
)

ENTRIES = {"dbcnn": Entry(_CARD, DBCNN)}
