"""The distances of LPIPS and DISTS without their weights, which other published systems refit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import Area, given
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

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        fx, fy = self.look_at(x, given(y))
        totals, cells = [], []
        for tap, head in zip(self.taps, self.heads, strict=True):
            own, reference = (area.of(taps[tap], self.trunk.stride(tap)) for taps in (fx, fy))
            cells.append(own.new_full((len(x),), own.shape[-2:].numel()))
            totals.append(unit_distance(own, reference, head) * cells[-1])
        return torch.stack([*totals, *cells], 1)

    def settle(self, sums: Tensor) -> Tensor:
        totals, cells = sums.chunk(2, 1)
        return (totals / cells).sum(1)

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
    return _similarities(mx, my, vx, vy, covariance, c)


def _similarities(
    mx: Tensor, my: Tensor, vx: Tensor, vy: Tensor, covariance: Tensor, c: float = 1e-6
) -> tuple[Tensor, Tensor]:
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
        return self._joined(texture, structure)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        fx, fy = self.look_at(x, given(y))
        levels = [(area.of(x), area.of(given(y)))]
        for tap in self.taps:
            stride = self.trunk.stride(tap)
            levels.append((area.of(fx[tap], stride), area.of(fy[tap], stride)))
        sums: list[list[Tensor]] = []
        for a, b in levels:
            a, b = a.double(), b.double()  # a difference of large squares follows
            products = (a, b, a * a, b * b, a * b)
            sums.append([*(p.sum((2, 3)) for p in products), a.new_full(a.shape[:2], a.shape[-2:].numel())])
        return torch.cat([torch.cat(parts, 1) for parts in zip(*sums, strict=True)], 1)

    def settle(self, sums: Tensor) -> Tensor:
        *totals, cells = sums.chunk(6, 1)
        mx, my, xx, yy, xy = (total / cells for total in totals)
        vx, vy = (xx - mx.square()).relu(), (yy - my.square()).relu()
        return self._joined(*_similarities(mx, my, vx, vy, xy - mx * my))

    def _joined(self, texture: Tensor, structure: Tensor) -> Tensor:
        total = self.alpha.sum() + self.beta.sum()
        alpha, beta, total = (w.to(texture.dtype) for w in (self.alpha, self.beta, total))
        # not one minus their sum, whose rounding would stay where both are 1
        return ((1 - texture) @ alpha + (1 - structure) @ beta) / total
