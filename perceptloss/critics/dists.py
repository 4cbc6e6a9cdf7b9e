"""DISTS: similarity of means (texture) and of correlations (structure) of VGG16 features.

Ding, Ma, Wang, Simoncelli: "Image Quality Assessment: Unifying Structure and Texture
Similarity", IEEE TPAMI 2020. Original: https://github.com/dingkeyan93/DISTS (commit 1267d8c,
MIT). Ours: the covariance is centred (the public form E[xy] - E[x]E[y] cancels in fp32), and
images are never resized.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceptloss.backbones import vgg16
from perceptloss.card import Card
from perceptloss.convert import STAGED_L2_TRUNK, TORCHVISION_TRUNK, Rule
from perceptloss.critic import Entry, Features, TrunkCritic
from perceptloss.layers import moments

__all__ = ["DISTS", "ENTRIES", "texture_and_structure"]

_CHANNELS = (3, 64, 128, 256, 512, 512)


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


class DISTS(TrunkCritic):
    """DISTS distance; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("dists", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    taps = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    rules = (
        *STAGED_L2_TRUNK,
        *TORCHVISION_TRUNK,
        Rule(
            r"mean",
            None,
            "the ImageNet mean",
            lambda critic, t: torch.allclose(t.flatten().float(), critic.trunk.mean.flatten().float(), atol=1e-6),
        ),
        Rule(
            r"std",
            None,
            "the ImageNet deviation",
            lambda critic, t: torch.allclose(t.flatten().float(), critic.trunk.std.flatten().float(), atol=1e-6),
        ),
    )

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.trunk = vgg16(pool="l2")
        total = sum(_CHANNELS)
        self.alpha = nn.Parameter(0.1 + 0.01 * torch.randn(total))
        self.beta = nn.Parameter(0.1 + 0.01 * torch.randn(total))

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        assert y is not None
        levels = [texture_and_structure(x, y), *(texture_and_structure(fx[t], fy[t]) for t in self.taps)]
        texture = torch.cat([level[0] for level in levels], 1)
        structure = torch.cat([level[1] for level in levels], 1)
        total = self.alpha.sum() + self.beta.sum()
        return 1 - (texture @ self.alpha + structure @ self.beta) / total


_CARD = Card(
    name="dists",
    summary="Structure and texture similarity of deep features; tolerant of resampled texture.",
    kind="fr",
    better="lower",
    bounds=(0.0, 1.13),
    identity=0.0,
    shape="distance",
    min_size=32,
    low_precision=True,
    tiling="approximate",
    licence_code="MIT",
    licence_weights="MIT (alpha and beta), BSD-3-Clause (torchvision trunk)",
    weights=("vgg16", "dists"),
    paper="Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, IEEE TPAMI 2020",
    source="https://github.com/dingkeyan93/DISTS commit 1267d8c",
    notes=(
        "no resizing: the authors' test script resizes the short side to 256 first",
        "statistics run over the whole crop: use 128 pixels or more, and compare equal sizes only",
        "keep fp32: a bf16 trunk turns the gradient near the reference (python -m benchmarks precision)",
        "weak on exact position: combine with a pixel loss",
        "bounds hold for the published weights; rounding can give about -1e-7 at identity",
    ),
)

ENTRIES = {"dists": Entry(_CARD, DISTS)}
