"""RFDN: residual feature distillation network, a small super-resolution network.

Liu, Tang, Wu: Residual feature distillation network for lightweight image super-resolution, ECCV workshops 2020,
https://arxiv.org/abs/2009.11551. Written from the paper and the layout of the authors' weights (njulj/RFDN, MIT),
which see RGB from 0 to 255; here images are in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["RFDN"]

_SLOPE = 0.05
_RANGE = 255.0


class _SpatialAttention(nn.Module):
    """A mask from a strided, strongly pooled view of the features (ESA)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        inner = features // 4
        self.conv1 = nn.Conv2d(features, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv_max = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3_ = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv4 = nn.Conv2d(inner, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        thin = self.conv1(x)
        wide = F.max_pool2d(self.conv2(thin), 7, 3)
        wide = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(wide)))))
        wide = F.interpolate(wide, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(thin)))


class _DistillationBlock(nn.Module):
    """Three times: half of the width is kept aside, the rest refined further; then all fused (RFDB)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        kept = features // 2
        self.c1_d = nn.Conv2d(features, kept, 1)
        self.c1_r = nn.Conv2d(features, features, 3, padding=1)
        self.c2_d = nn.Conv2d(features, kept, 1)
        self.c2_r = nn.Conv2d(features, features, 3, padding=1)
        self.c3_d = nn.Conv2d(features, kept, 1)
        self.c3_r = nn.Conv2d(features, features, 3, padding=1)
        self.c4 = nn.Conv2d(features, kept, 3, padding=1)
        self.c5 = nn.Conv2d(4 * kept, features, 1)
        self.esa = _SpatialAttention(features)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            kept.append(F.leaky_relu(distil(x), _SLOPE))
            x = F.leaky_relu(refine(x) + x, _SLOPE)
        kept.append(F.leaky_relu(self.c4(x), _SLOPE))
        return self.esa(self.c5(torch.cat(kept, 1)))


class RFDN(SuperResolver):
    """RFDN with four blocks.

    Args:
        features: Width.
        scale: Factor of enlargement.
    """

    KEY: ClassVar[str] = "fea_conv.weight"
    minimum = 15  # the attention's 7-pixel pooling comes after an unpadded convolution of stride 2

    def __init__(self, features: int = 50, scale: int = 4) -> None:
        super().__init__()
        self.scales = (scale,)
        self.fea_conv = nn.Conv2d(3, features, 3, padding=1)
        self.B1 = _DistillationBlock(features)
        self.B2 = _DistillationBlock(features)
        self.B3 = _DistillationBlock(features)
        self.B4 = _DistillationBlock(features)
        self.c = nn.Sequential(nn.Conv2d(4 * features, features, 1), nn.LeakyReLU(_SLOPE))
        self.LR_conv = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> RFDN:
        return cls(state[cls.KEY].shape[0], math.isqrt(state["upsampler.0.weight"].shape[0] // 3))

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        first = self.fea_conv(x * _RANGE)
        features, outputs = first, []
        for block in (self.B1, self.B2, self.B3, self.B4):
            features = block(features)
            outputs.append(features)
        return self.upsampler(self.LR_conv(self.c(torch.cat(outputs, 1))) + first) / _RANGE
