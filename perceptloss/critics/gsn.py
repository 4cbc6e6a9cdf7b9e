"""GSN-style critic: ResNet-50 with central differences, an image beside its reference, and attention to detail.

Cong et al.: "Image Quality Assessment with Gradient Siamese Network", CVPR Workshops 2022. Nothing
but the idea is public: no code, no weights, no backbone, no width. What is here is therefore ours,
made of what the paper names (central differences, siamese arms, spatial attention, fusion of levels).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry, given
from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.layers import draw
from perceptloss.networks.lean import central_difference
from perceptloss.networks.trunks import Features, TrunkCritic, TrunkName, resnet_rules, staged

__all__ = ["ENTRIES", "GSN"]

_LEAST = 1e-6  # weight of a place that the head finds irrelevant


class GSN(TrunkCritic):
    """After Cong et al. 2022; architecture partly ours. Unbounded score; higher is better, identity depends on y.

    1. Maps of both images after the four stages of one ResNet-50, whose 3x3 convolutions take away
       `theta` times the plain sum of their taps from the centre: details count, slow shades less.
    2. Per level: reference, image and their difference to `width` channels, times an attention map
       that the reference alone decides.
    3. All levels at the size of the third, H/16 x W/16, joined; then a value v and a weight u per
       place, and score = sum(u v) / sum(u).

    The weights u are constants of the gradient (`hold_weights`). `maps` gives the values v.

    Args:
        card: What it is.
        trunk: `resnet`, or `lite0-smooth`, whose convolutions take no central differences: those of the levels, which
            are 3x3 then, take them instead.
        theta: Share of the central difference in each stage of the trunk, or at each level.
        widths: Of the four stages of the trunk (a quarter of the channels that leave them).
        width: Channels of a level.
        fused: Channels of the joined levels.
        hidden: Channels between the joined levels and v or u.

    Example:
        >>> critic = create_critic("gsn", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    rules = resnet_rules()

    def __init__(
        self,
        card: Card,
        *,
        trunk: TrunkName = "resnet",
        theta: tuple[float, float, float, float] = (0.7, 0.7, 0.0, 0.0),
        widths: Sequence[int] = (64, 128, 256, 512),
        width: int = 128,
        fused: int = 256,
        hidden: int = 128,
    ) -> None:
        super().__init__(card)
        self.trunk, self.taps, channels = staged(trunk, 50, widths, theta=theta)
        self.theta, side = theta, 1 if trunk == "resnet" else 3
        self.pair = nn.ModuleList(nn.Conv2d(3 * c, width, side, padding=side // 2) for c in channels)
        self.attention = nn.ModuleList(nn.Conv2d(2, 1, 7, padding=3) for _ in channels)
        self.fusion = nn.Sequential(
            nn.Conv2d(len(channels) * width, fused, 1), nn.GELU(), nn.Conv2d(fused, fused, 3, padding=1), nn.GELU()
        )
        self.value, self.weight = (
            nn.Sequential(nn.Conv2d(fused, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 1, 1)) for _ in range(2)
        )
        draw(self.pair, self.attention, self.fusion, self.value, self.weight)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return weighted_mean(*self.judge(fx, fy))

    def judge(self, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        """Value and positive weight of every place, from the taps of both images: (N, 1, H/16, W/16) each."""
        joined = self.fuse(self.pairs(fx, fy))
        # what u is made of is held, not u itself: the layers behind it can still learn
        return self.value(joined), torch.sigmoid(self.weight(self.held(joined))) + _LEAST

    def pairs(self, fx: Features, fy: Features) -> list[Tensor]:
        """What the two images make of each level, (N, width, h, w), where the reference attends to it."""
        maps = []
        levels = zip(self.taps, self.pair, self.theta, self.attentions(fy), strict=True)
        for tap, conv, theta, attention in levels:
            weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
            around = weight.shape[-1] // 2
            # one convolution of [reference, image, reference - image], without joining them
            of_y, of_x, of_difference = (central_difference(weight, theta) if around else weight).chunk(3, 1)
            from_x = F.conv2d(fx[tap], of_x - of_difference, bias, padding=around)
            maps.append(F.gelu(from_x + F.conv2d(fy[tap], of_y + of_difference, padding=around)) * attention)
        return maps

    def attentions(self, fy: Features) -> list[Tensor]:
        """Attention to each level, (N, 1, h, w) in (0, 1), from the reference alone: no image can turn it away."""
        found = []
        for tap, conv in zip(self.taps, self.attention, strict=True):
            summary = torch.cat([fy[tap].mean(1, keepdim=True), fy[tap].amax(1, keepdim=True)], 1)
            found.append(torch.sigmoid(conv(summary)))
        return found

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Low, middle and high levels as one map, (N, fused, H/16, W/16)."""
        first, second, third, fourth = levels
        fourth = F.interpolate(fourth, scale_factor=2, mode="bilinear", align_corners=False)
        return self.fusion(torch.cat([F.avg_pool2d(first, 4), F.avg_pool2d(second, 2), third, fourth], 1))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Value of every 16x16 cell, higher is better: (N, 1, H/16, W/16)."""
        return self.judge(self.look(x), self.look(given(y)))[0]


_CARD = after_paper_card(
    name="gsn",
    summary="Opinion score from gradient-like features of image and reference; train it, nothing is published.",
    kind="fr",
    min_size=32,
    multiple_of=32,
    weights=("resnet50", "gsn"),
    paper="Cong et al., Image Quality Assessment with Gradient Siamese Network, CVPR Workshops 2022",
    source="no code published; central differences as in Yu et al., CVPR 2020",
    notes=(
        "not a reproduction: backbone, widths, attention, fusion and head are our choice",
        "meant for crops of 224 or 256 pixels, and trained on PIPAL-like opinion scores",
        "ImageNet's batch statistics do not fit a trunk with theta 0.7: train the trunk too, warming theta up from 0",
        "nearly blind to slow shifts of colour and brightness: always combine with a pixel or low-pass colour loss",
        "differences pass fine patterns: watch for grain of one or two pixels",
        "not symmetric: the reference alone decides the attention",
    ),
)

ENTRIES = {"gsn": Entry(_CARD, GSN)}
