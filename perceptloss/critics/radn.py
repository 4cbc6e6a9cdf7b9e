"""RADN: patches read through a deformation that the reference decides, and attention among the patches.

Shi, Bai, Cao, Xia, Wang, Chen, Yang: "Region-Adaptive Deformable Network for Image Quality
Assessment", CVPR Workshops 2021. Original: https://github.com/IIGROUP/RADN (commit be1ae49, no
licence stated; ours is written from the description). The authors' blur and L2 pooling variants are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.deform import deform_conv2d
from perceptloss.networks.patch_ladder import HEAD, LADDER, PatchHead, PatchLadderCritic, initialise, ladder
from perceptloss.networks.patches import per_image
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "RADN", "AcrossPatches"]

_TAPS = 9


class AcrossPatches(nn.Module):
    """Attention among the patches of an image, added to them; dot products are not scaled.

    Wang et al., Non-local Neural Networks, CVPR 2018.
    """

    def __init__(self, features: int, inner: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Linear(features, inner) for _ in range(3))
        self.W = nn.Linear(inner, features)

    def forward(self, v: Tensor) -> Tensor:
        """Vectors (N, patches, features) to the same shape."""
        shares = torch.softmax(self.theta(v) @ self.phi(v).transpose(1, 2), -1)
        return v + self.W(shares @ self.g(v))


class RADN(PatchLadderCritic):
    """RADN opinion score, about 0.6 to 1 on PIPAL; higher is better, without a fixed score at identity.

    Offsets come from the reference and move the taps of both images alike. `maps` gives the values
    of the patches, which see each other.

    Args:
        card: What it is.
        widths: Channels of the five stages.
        inner: Channels of the attention.
        hidden: Units of the head's hidden layers.

    Example:
        >>> critic = create_critic("radn", weights=None)
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 96, 96)).sum().backward()
    """

    rules = (
        *LADDER,
        Rule(r"conv21\.(.+)", r"tail.0.\1"),
        Rule(r"conv22\.(.+)", r"tail.2.\1"),
        Rule(r"conv_offset\.(.+)", r"offset.\1"),
        Rule(r"deform\.(.+)", r"deform_x.\1"),
        Rule(r"deform2\.(.+)", r"deform_y.\1"),
        Rule(r"Nonlocal1\.(.+)", r"across_x.\1"),
        Rule(r"Nonlocal2\.(.+)", r"across_y.\1"),
        *HEAD,
    )

    def __init__(
        self, card: Card, *, widths: Sequence[int] = (64, 128, 256, 256, 512), inner: int = 256, hidden: int = 512
    ) -> None:
        super().__init__(card)
        *_, before, last = widths
        self.ladder = ladder(widths, strides=(1, 2, 2, 1, 2))
        self.offset = nn.Conv2d(before, 2 * _TAPS, 3, padding=1)
        self.deform_x, self.deform_y = (nn.Conv2d(before, before, 3, padding=1) for _ in range(2))
        self.tail = nn.Sequential(
            nn.Conv2d(last, last, 3, 2, 1), nn.ReLU(), nn.Conv2d(last, last, 3, padding=1), nn.ReLU()
        )
        self.across_x, self.across_y = (AcrossPatches(last, inner) for _ in range(2))
        self.head = PatchHead(last, hidden)
        initialise(self, self.head)

    def vectors(self, x: Tensor, y: Tensor, images: int) -> tuple[Tensor, Tensor]:
        hx, hy = (self.ladder[:-1](patches) for patches in (x, y))
        offset = self.offset(hy)
        vx, vy = (
            across(per_image(self.vectors_of(h, offset, deform), images))
            for h, deform, across in ((hx, self.deform_x, self.across_x), (hy, self.deform_y, self.across_y))
        )
        return vx, vy

    def vectors_of(self, h: Tensor, offset: Tensor, deform: nn.Conv2d) -> Tensor:
        """One vector per patch from its map before the deformation, (patches, C, 8, 8) to (patches, features)."""
        deformed = deform_conv2d(h, offset, deform.weight, deform.bias)
        return self.tail(self.ladder[-1](deformed)).mean((2, 3))


_CARD = opinion_card(
    name="radn",
    summary="Opinion score of GAN-like artefacts from deformed, mutually attending 32x32 patches, learned on PIPAL.",
    kind="fr",
    min_size=33,
    licence_code="none stated",
    licence_weights="none stated",
    weights=("radn",),
    paper="Shi et al., Region-Adaptive Deformable Network for Image Quality Assessment, CVPR Workshops 2021",
    source="https://github.com/IIGROUP/RADN commit be1ae49",
    notes=(
        "unless both sides are multiples of 32, up to 63 pixels at the bottom and at the right are not read, as in the "
        "authors' test, and get no gradient: give the term a crop that is a multiple of 32",
        "the smallest side is 33, because the authors' rule leaves no patch of a 32-pixel side beside a longer one",
        "seams every 32 pixels can show: crop at random offsets in training",
        "trained on scores divided by the largest one, so about 0.6 to 1",
        "the published checkpoint is one network, the published numbers are of an ensemble",
    ),
)

ENTRIES = {"radn": Entry(_CARD, RADN)}
