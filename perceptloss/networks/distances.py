"""The distances of LPIPS and DISTS without their weights, which other published systems refit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import given
from perceptloss.networks.layers import moments, unit_distance, unit_norm
from perceptloss.networks.trunks import IMAGENET, Features, Trunk, TrunkCritic, vgg16
from perceptloss.weights.rules import constant

__all__ = ["IMAGENET_RULES", "VGG16_CHANNELS", "TextureStructureCritic", "UnitDistanceCritic", "texture_and_structure"]

VGG16_CHANNELS: Final = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
"""Taps of both distances in VGG16, with their channels."""

IMAGENET_RULES: Final = (
    constant(r"mean", "the ImageNet mean", lambda critic: critic.trunk.mean),
    constant(r"std", "the ImageNet deviation", lambda critic: critic.trunk.std),
)
"""The normalisation that DISTS checkpoints carry."""


class UnitDistanceCritic(TrunkCritic):
    """Sum over taps of the weighted distance of unit feature vectors, as in LPIPS.

    Args:
        card: Of the system.
        trunk: Builds its trunk.
        taps: Names of the taps, with their channels.
    """

    def __init__(self, card: Card, trunk: Callable[[], Trunk], taps: dict[str, int]) -> None:
        super().__init__(card)
        self.trunk = trunk()
        self.taps = tuple(taps)
        self.heads = nn.ParameterList([torch.rand(channels) / channels for channels in taps.values()])

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.distances(fx, fy).sum(0)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Distance at every pixel, lower is better: (N, 1, H, W), the maps of the taps enlarged bilinearly and added.

        A cell of a deep tap covers many pixels, so that damage spreads over its surroundings. The mean
        over the map is close to the score, but not equal, because of the enlarging.
        """
        total = x.new_zeros(len(x), 1, *x.shape[-2:])
        fx, fy = self.look(x), self.look(given(y))
        for tap, head in zip(self.taps, self.heads, strict=True):
            apart = (unit_norm(fx[tap]) - unit_norm(fy[tap])).square()
            local = torch.einsum("nchw,c->nhw", apart, head)[:, None]
            total = total + F.interpolate(local, x.shape[-2:], mode="bilinear", align_corners=False)
        return total

    def distances(self, fx: Features, fy: Features) -> Tensor:
        """Weighted distance of each tap, (taps, N)."""
        pairs = zip(self.taps, self.heads, strict=True)
        return torch.stack([unit_distance(fx[tap], fy[tap], head) for tap, head in pairs])


def texture_and_structure(fx: Tensor, fy: Tensor, c: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Similarity of spatial means and of centred features, per channel.

    Args:
        fx: Features of the judged images, (N, C, H, W).
        fy: Features of the references, same shape.
        c: Stabiliser of both ratios, in squared feature units.

    Returns:
        Texture and structure similarity, each (N, C), at most 1.
    """
    mx, my, vx, vy, covariance = moments(fx, fy)
    texture = (2 * mx * my + c) / (mx.square() + my.square() + c)
    return texture, (2 * covariance + c) / (vx + vy + c)


class TextureStructureCritic(TrunkCritic):
    """One minus the weighted texture and structure similarity of the image and five VGG16 taps, as in DISTS.

    Args:
        card: Of the system.
        normalise: Whether images are brought to ImageNet's mean and deviation first, as published.
    """

    taps = tuple(VGG16_CHANNELS)

    def __init__(self, card: Card, *, normalise: bool = True) -> None:
        super().__init__(card)
        self.trunk = vgg16(pool="l2", normalise=IMAGENET if normalise else None)
        total = 3 + sum(VGG16_CHANNELS.values())
        self.alpha = nn.Parameter(0.1 + 0.01 * torch.randn(total))
        self.beta = nn.Parameter(0.1 + 0.01 * torch.randn(total))

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        levels = [texture_and_structure(x, given(y)), *(texture_and_structure(fx[t], fy[t]) for t in self.taps)]
        texture = torch.cat([level[0] for level in levels], 1)
        structure = torch.cat([level[1] for level in levels], 1)
        total = self.alpha.sum() + self.beta.sum()
        return 1 - (texture @ self.alpha + structure @ self.beta) / total
