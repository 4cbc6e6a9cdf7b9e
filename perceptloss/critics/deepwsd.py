"""DeepWSD: Wasserstein distance between deep features, full reference, nothing trained.

Liao, Chen, Zhu, Wang, Zhou, Wang, Kwong: "DeepWSD: Projecting Degradations in Perceptual Space to
Wasserstein Distance in Deep Feature Space", ACM Multimedia 2022. Original:
https://github.com/Buka-Xing/DeepWSD (commit 532c728, MIT). Ours: images of a batch are scored one
by one (the public code mixes them), and the size-dependent window is known without global state.
The "window" is the authors': feature memory cut into w*w rows, not a spatial patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry, given
from perceptloss.networks.trunks import Features, TrunkCritic, vgg16
from perceptloss.weights.rules import STAGED_L2_TRUNK, TORCHVISION_TRUNK

__all__ = ["ENTRIES", "DeepWSD", "grouped_distance", "transport_cost"]


def transport_cost(u: Tensor, v: Tensor) -> Tensor:
    """Squared 1-D Wasserstein cost between masses that sit on positions 0, 1, ..., K - 1.

    Args:
        u: Masses, (..., K), not negative; they need not sum to one.
        v: Masses, same shape. Where one side has run out of mass its last position counts.

    Returns:
        Cost, (...).
    """
    cu, cv = u.cumsum(-1), v.cumsum(-1)
    levels = torch.cat([cu, cv], -1).sort(-1).values
    with torch.no_grad():
        last = u.shape[-1] - 1
        at_u, at_v = (torch.searchsorted(c, levels.detach()).clamp_max(last) for c in (cu, cv))
        squared = (at_u - at_v).square().to(u.dtype)
    steps = torch.cat([levels[..., :1], levels.diff(dim=-1)], -1)
    return (steps * squared).sum(-1)


def _grouped(f: Tensor, window: int) -> Tensor:
    """Zero-pad or cut at the left and bottom to multiples of the window, then cut memory into w*w rows: (N, G, w*w)."""
    height, width = f.shape[-2:]
    left, bottom = (round(side / window) * window - side for side in (width, height))
    rows = rearrange(F.pad(f, (left, 0, 0, bottom)), "n c h w -> n (c h w)")
    return rearrange(rows, "n (place group) -> n group place", place=window**2).contiguous()


def grouped_distance(fx: Tensor, fy: Tensor, window: int) -> Tensor:
    """Distance of one level: transport between groups plus weighted squared error, (N,).

    Args:
        fx: Features of the judged images, (N, C, H, W), not negative.
        fy: Features of the references, same shape.
        window: Side of the square whose area is the size of a group.
    """
    gx, gy = _grouped(fx, window), _grouped(fy, window)
    mx, my = (g.square() / (g.sum((1, 2), keepdim=True) + 1e-6) for g in (gx, gy))
    cost = transport_cost(mx, my)
    error = (gx - gy).square().sum(-1)
    weight = (0.5 / (cost + 10)).exp() / (cost + 10).square()
    return (cost + error * weight).sum(-1)


class DeepWSD(TrunkCritic):
    """DeepWSD distance (the authors' loss form, no logarithm); lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("deepwsd", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    taps = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    rules = (*STAGED_L2_TRUNK, *TORCHVISION_TRUNK)

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.trunk = vgg16(pool="l2", normalise=None)

    @staticmethod
    def factor(image: Tensor) -> int:
        """Shrinking factor: 1 up to 384 pixels on the longer side."""
        return max(1, round(max(image.shape[-2:]) / 256))

    @classmethod
    def window(cls, image: Tensor) -> int:
        """Side of the square whose area is the size of a group."""
        return 16 if cls.factor(image) >= 5 else 4

    def prepare(self, image: Tensor) -> Tensor:
        factor = self.factor(image)
        return image if factor == 1 else F.avg_pool2d(image, factor)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.distances(x, y, fx, fy).mean(0)

    def distances(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        """Distance of each level (image and five taps), (6, N)."""
        window = self.window(x)
        pairs = [(self.prepare(x), self.prepare(given(y))), *((fx[tap], fy[tap]) for tap in self.taps)]
        return torch.stack([grouped_distance(a, b, window) for a, b in pairs])


_CARD = distance_card(
    name="deepwsd",
    summary="Wasserstein distance and weighted squared error between VGG16 features; nothing is trained.",
    min_size=33,
    low_precision=True,
    tiling="never",
    licence_code="MIT",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg16",),
    paper="Liao et al., DeepWSD: Projecting Degradations in Perceptual Space to Wasserstein Distance, ACM MM 2022",
    source="https://github.com/Buka-Xing/DeepWSD commit 532c728",
    notes=(
        "grows with the size of the image, because groups are summed: start with weights of 1e-3 to 1e-2",
        "images above 384 pixels are box-filtered first, which removes the finest detail: train on smaller crops",
        "mostly a squared error of features; the transport part does not follow space",
    ),
)

ENTRIES = {"deepwsd": Entry(_CARD, DeepWSD)}
