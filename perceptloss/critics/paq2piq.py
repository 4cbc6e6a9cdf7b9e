r"""PaQ-2-PiQ: the quality of a picture from that of its patches, by a ResNet-18 that pools regions.

Ying, Niu, Gupta, Mahajan, Ghadiyaram, Bovik: "From Patches to Pictures (PaQ-2-PiQ): Mapping the Perceptual Space of
Picture Quality", CVPR 2020. Original: https://github.com/baidut/paq2piq (MIT), model RoIPoolModel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, resnet_children_rules
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "PaQ2PiQ", "halves"]

_STRIDE = 32


def halves(length: int, pixels: int) -> list[slice]:
    """The two halves of a side of `length` features as torchvision's RoI pooling cuts the whole of `pixels`."""
    half = (math.floor(pixels / _STRIDE + 0.5) + 1) / 2
    return [slice(math.floor(n * half), min(math.ceil((n + 1) * half), length)) for n in range(2)]


class PaQ2PiQ(TrunkCritic):
    """Opinion of a picture, about 0 to 100; higher is better.

    Args:
        card: Its card.
        widths: Channels of the trunk's stages.
        hidden: Length between the two linear layers.

    Example:
        >>> critic = create_critic("paq2piq", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("layer4",)
    rules = (
        *resnet_children_rules(r"body\."),
        Rule(r"head\.\d\.num_batches_tracked", None, COUNTER),
        *(
            Rule(rf"head\.{n}\.(.+)", rf"{name}.\1")
            for n, name in ((2, "norm_1"), (4, "fc_1"), (6, "norm_2"), (8, "fc_2"))
        ),
    )

    def __init__(
        self, card: Card, *, widths: tuple[int, int, int, int] = (64, 128, 256, 512), hidden: int = 512
    ) -> None:
        super().__init__(card)
        self.trunk = ResNet(18, normalise=None, widths=widths)
        self.norm_1, self.fc_1 = BatchStats(2 * widths[-1]), nn.Linear(2 * widths[-1], hidden)
        self.norm_2, self.fc_2 = BatchStats(hidden), nn.Linear(hidden, 1)
        draw(self.fc_1, self.fc_2)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        maps = fx["layer4"]
        rows, columns = (halves(n, pixels) for n, pixels in zip(maps.shape[2:], x.shape[2:], strict=True))
        quarters = torch.stack([maps[..., row, column].amax((2, 3)) for row in rows for column in columns], -1)
        found = self.norm_1(torch.cat([quarters.amax(-1), quarters.mean(-1)], 1))
        return self.fc_2(self.norm_2(F.relu(self.fc_1(found)))).squeeze(1)


_CARD = opinion_card(
    name="paq2piq",
    summary="Opinion score of a picture by a ResNet-18 that learned from 40 thousand pictures and their patches.",
    kind="nr",
    min_size=64,
    low_precision=True,
    fidelity="paper",
    licence_code="MIT",
    licence_weights="MIT",
    weights=("paq2piq",),
    paper="Ying et al., From Patches to Pictures (PaQ-2-PiQ): Mapping the Perceptual Space of Picture Quality, "
    "CVPR 2020",
    source="https://github.com/baidut/paq2piq commit 0136db1",
    notes=(
        "the picture's score alone: the published code also gives those of 20x20 patches",
        "maxima of four quarters: a single place may decide, and its gradient lies there",
    ),
)

ENTRIES = {"paq2piq": Entry(_CARD, PaQ2PiQ)}
