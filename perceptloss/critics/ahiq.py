"""AHIQ: tokens of a vision transformer beside early convolutional features, valued and weighed patch by patch.

Lao, Gong, Shi, Yang, Wu, Wang, Xia, Yang: "Attentions Help CNNs See Better: Attention-based Hybrid
Image Quality Assessment Network", CVPR Workshops 2022. Original: https://github.com/IIGROUP/AHIQ
(commit 9cc6a4e, MIT). Ours: images larger than 224x224 are judged by evenly spaced crops (the
authors' test draws 20 at random), and the weight map is held constant in the gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.deform import deform_conv2d
from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import (
    HALF,
    Features,
    JoinedTrunk,
    ResNet,
    TrunkCritic,
    VisionTransformer,
    resnet_rules,
    vit_rules,
)

__all__ = ["AHIQ", "ENTRIES", "DeformNet", "Regressor"]

_BLOCKS = 5
_TOKENS = tuple(f"vit.block{k}" for k in range(_BLOCKS))
_MAPS = tuple(f"resnet.layer1.{k}" for k in range(3))


class DeformNet(nn.Module):
    """Convolutional features, read where the tokens of the reference point, at half the size.

    Parts are named as in the authors' file, here and in `Regressor`.

    Args:
        tokens: Channels of the token map.
        channels: Channels of the convolutional features, and of the result.
        hidden: Channels on the way.
    """

    def __init__(self, tokens: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(tokens, 2 * 3 * 3, 3, padding=1)
        self.deform = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 3, padding=1)
        )

    def offset(self, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        """Where a map of this size is read, in its pixels, (N, 18, h, w), from a token map of the reference."""
        return self.conv_offset(F.interpolate(tokens, size=size, mode="nearest"))

    def forward(self, h: Tensor, offset: Tensor) -> Tensor:
        """Features (N, channels, h, w) to (N, channels, h / 2, w / 2)."""
        return self.conv1(deform_conv2d(h, offset, self.deform.weight, self.deform.bias))


class Regressor(nn.Module):
    """Value and weight of every patch, from the features of judged image and reference.

    Args:
        channels: Channels of the features of either image.
        width: Channels to which they are reduced.
        hidden: Channels of the first two convolutions over the pair.
    """

    def __init__(self, channels: int, width: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.down_channel = nn.Conv2d(channels, width, 1)
        self.feat_smoothing = nn.Sequential(
            nn.Conv2d(3 * width, hidden[0], 3, padding=1), nn.ReLU(), nn.Conv2d(hidden[0], hidden[1], 3, padding=1)
        )
        self.conv1 = nn.Sequential(nn.Conv2d(hidden[1], width, 3, padding=1), nn.ReLU())
        self.conv_attent = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())
        self.conv = nn.Sequential(nn.Conv2d(width, 1, 1))

    def forward(self, hx: Tensor, hy: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, channels, h, w) of both to values, and weights from 0 to 1, (N, h w) each."""
        dx, dy = self.down_channel(hx), self.down_channel(hy)
        h = self.conv1(self.feat_smoothing(torch.cat([dx - dy, dx, dy], 1)))
        return self.conv(h).flatten(1), self.conv_attent(h).flatten(1)


class AHIQ(CropCritic, TrunkCritic):
    """AHIQ opinion score, fitted to 0 ... 1; higher is better, without a fixed score at identity.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of the images that the position embedding fits, a multiple of 8.
        embed_dim: Channels of a token.
        heads: Attention heads of a block.
        cnn: Channels of the ResNet's stem; its features have four times as many.
        deform_hidden: Channels inside the deformable branch.
        width: Channels per patch in the regressor.
        hidden: Channels of the regressor's first two convolutions.

    Example:
        >>> critic = create_critic("ahiq", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 224, 224)).sum().backward()
    """

    taps = (*_TOKENS, *_MAPS)
    rules = (*vit_rules(r"(?:vit\.)?", "trunk.vit", _BLOCKS), *resnet_rules(r"(?:resnet50\.)?", 1, "trunk.resnet"))

    def __init__(
        self,
        card: Card,
        *,
        side: int = 224,
        embed_dim: int = 768,
        heads: int = 12,
        cnn: int = 64,
        deform_hidden: int = 512,
        width: int = 256,
        hidden: tuple[int, int] = (1024, 512),
    ) -> None:
        super().__init__(card, side)
        vit = {"embed_dim": embed_dim, "num_heads": heads, "img_size": side}
        self.trunk = JoinedTrunk(
            vit=VisionTransformer("vit_base_patch8_224", _BLOCKS, HALF, **vit),
            resnet=ResNet(50, 1, HALF, widths=(cnn,)),
        )
        tokens, maps = len(_TOKENS) * embed_dim, len(_MAPS) * 4 * cnn
        self.deform_net = DeformNet(tokens, maps, deform_hidden)
        self.regressor = Regressor(tokens + maps, width, hidden)
        draw(self.deform_net, self.regressor)  # scores about as large as published ones, taps that move by a pixel

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        values, weights = self.judge(fx, fy)
        return self.averaged(weighted_mean(values, self.held(weights)), x)

    def judge(self, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        """Values and weights of the patches, row by row, (N, (side / 8) ** 2) each, from the taps of both images."""
        tokens_x, tokens_y = (torch.cat([f[tap] for tap in _TOKENS], 1) for f in (fx, fy))
        maps_x, maps_y = (torch.cat([f[tap] for tap in _MAPS], 1) for f in (fx, fy))
        offset = self.deform_net.offset(tokens_y, maps_y.shape[-2:])
        pairs = ((tokens_x, maps_x), (tokens_y, maps_y))
        return self.regressor(*(torch.cat([tokens, self.deform_net(maps, offset)], 1) for tokens, maps in pairs))


_CARD = opinion_card(
    name="ahiq",
    summary="Opinion score learned on PIPAL from vision-transformer tokens and early ResNet features.",
    kind="fr",
    min_size=224,
    licence_code="MIT",
    licence_weights="none stated (head, linked from an MIT repository), Apache-2.0 (timm trunks)",
    weights=("ahiq", "vit_base_patch8_224", "resnet50_a1"),
    paper="Lao et al., Attentions Help CNNs See Better: Attention-based Hybrid Image Quality Assessment Network, "
    "CVPR Workshops 2022",
    source="https://github.com/IIGROUP/AHIQ commit 9cc6a4e",
    notes=(
        crops_note(224),
        "the trunks must be those of timm 0.5.4, on which the head was fitted: ViT-B/8 augreg (not augreg2), ResNet-50 "
        "A1 (not torchvision's)",
        "tokens are 8x8 pixels without overlap, so gradients can show a pattern of period 8: move the crops by 0 to 7 "
        "pixels from step to step, as random crops do",
        "fitted to PIPAL opinions scaled to 0 ... 1, but no head end bounds the score; f(y, y) depends on the image",
        "where the deformable convolution reads is decided by the reference alone, so it cannot hide misalignment",
        "the weight map is a constant of the gradient unless critic.hold_weights = False",
        "weak on sets other than the one it was fitted on, and among the most expensive critics: 64 M parameters, "
        "ViT-B/8 with 785 tokens",
    ),
)

ENTRIES = {"ahiq": Entry(_CARD, AHIQ)}
