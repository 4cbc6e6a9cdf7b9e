"""What transformers on Inception-ResNet-v2 have in common: its taps, their difference, and fixed-size crops."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.networks.patches import CropCritic
from perceptloss.networks.trunks import HALF, Features, InceptionResNet, TrunkCritic

__all__ = ["InceptionTokens", "map_side"]


def map_side(side: int) -> int:
    """Side of the maps of a square image: 21 for 192 pixels, 29 for 256; convolutions of the stem are not padded."""
    for _ in range(2):  # conv2d_1a and conv2d_2a, maxpool_3a and conv2d_4a
        side = (side - 3) // 2 + 1 - 2
    return (side - 3) // 2 + 1  # maxpool_5a


class InceptionTokens(CropCritic, TrunkCritic):
    """Judges crops by their features and by how these differ from the reference's; subclasses implement `judge`.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of a crop, in pixels; position embeddings fit no other.
        blocks: Number of Block35 of the trunk, even; the input of the first and the result of every second is read.
    """

    def __init__(self, card: Card, side: int, blocks: int) -> None:
        super().__init__(card, side)
        self.map_side = map_side(side)
        self.trunk = InceptionResNet(HALF, blocks)
        self.taps = ("mixed_5b", *(f"block35_{n}" for n in range(2, blocks + 1, 2)))
        self.channels = 320 * len(self.taps)

    def joined(self, features: Features) -> Tensor:
        """All taps of the crops, (N K, channels, h, w); 1920 channels for 10 blocks."""
        return torch.cat([features[tap] for tap in self.taps], 1)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        distorted, reference = self.joined(fx), self.joined(fy)
        return self.averaged(self.judge(reference - distorted, reference), x)

    def judge(self, difference: Tensor, reference: Tensor) -> Tensor:
        """Scores of crops, (N K,), from features of the reference minus those of the image, and of the reference."""
        raise NotImplementedError
