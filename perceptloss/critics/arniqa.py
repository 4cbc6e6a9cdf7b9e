r"""ARNIQA: a ResNet-50 that learned to tell degradations apart, at two scales, and a line through opinions.

Agnolucci, Galteri, Bertini, Del Bimbo: "ARNIQA: Learning Distortion Manifold for Image Quality Assessment", WACV 2024.
Original: https://github.com/miccunifi/ARNIQA (CC BY-NC 4.0); facts and numbers follow
the package torchmetrics 1.9.0 (Apache-2.0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import ResNet, resnet_children_rules
from perceptloss.weights.rules import Rule

__all__ = ["ARNIQA", "ENTRIES"]


class ARNIQA(Critic):
    """Opinion on the scale of [0, 1], which regression may leave; higher is better.

    Args:
        card: Its card.
        marks: Lowest and highest label of the regressor's training set, which become 0 and 1: (1, 100) for KonIQ-10k,
            FLIVE and SPAQ, (1, 5) for KADID-10k, (0, 9) for TID2013; (100, 1) for LIVE and (1, 0) for CSIQ, whose
            labels are differences of opinions.
        widths: Channels of the trunk's stages.

    Example:
        >>> critic = create_critic("arniqa", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    rules = (
        Rule(r"projector\..+", None, "the projection for contrastive training is not used"),
        *resnet_children_rules(r"(?:model\.)?"),
        Rule(r"weights?", "head.weight"),
        Rule(r"bias(?:es)?", "head.bias"),
    )

    def __init__(
        self,
        card: Card,
        *,
        marks: tuple[float, float] = (1.0, 100.0),
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(card)
        self.marks = marks
        self.trunk = ResNet(50, widths=widths)
        self.head = nn.Linear(2 * 4 * widths[-1], 1)
        draw(self.head)

    def features(self, image: Tensor) -> Tensor:
        """Unit vectors of images, (N, 2048)."""
        return F.normalize(self.trunk(image, ("layer4",))["layer4"].mean((2, 3)))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        half = tuple(n // 2 for n in x.shape[2:])
        small = F.interpolate(x, half, mode="bilinear", align_corners=False, antialias=True)
        low, high = self.marks
        return (self.head(torch.cat([self.features(x), self.features(small)], 1)).squeeze(1) - low) / (high - low)


_CARD = opinion_card(
    name="arniqa",
    summary="Opinion score by a line over features, at two scales, that were learned from degradations alone.",
    kind="nr",
    min_size=64,
    fidelity="paper",
    licence_code="Apache-2.0 (torchmetrics); CC-BY-NC-4.0 (authors)",
    licence_weights="CC-BY-NC-4.0",
    weights=("arniqa", "arniqa-regressor"),
    paper="Agnolucci et al., ARNIQA: Learning Distortion Manifold for Image Quality Assessment, WACV 2024",
    source="the package torchmetrics 1.9.0 (Apache-2.0); https://github.com/miccunifi/ARNIQA 1b84ee9",
    notes=(
        "the scale belongs to the regressor: for another one than KonIQ-10k's give options {marks: [lowest, highest]}",
        "half of the size is reached by antialiased bilinear resampling, as in torchmetrics",
        "the authors' files are for non-commercial use",
    ),
)

ENTRIES = {"arniqa": Entry(_CARD, ARNIQA)}
