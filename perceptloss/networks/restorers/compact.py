"""Compact: a plain stack of convolutions with PReLU at low resolution, added to the nearest enlargement.

The network of Real-ESRGAN's small models (xinntao/Real-ESRGAN, BSD-3-Clause; `SRVGGNetCompact` in BasicSR, Apache-2.0),
written from its description. The names in the state dict and the order of initialisation are BasicSR's, so that weights
load there and here, and one seed makes the same network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["Compact"]


class Compact(SuperResolver):
    """Compact; learns the difference to the nearest enlargement.

    Args:
        num_feat: Width.
        num_conv: Convolutions between the first and the last.
        upscale: Factor of enlargement.
    """

    KEY: ClassVar[str] = "body.0.weight"

    def __init__(self, num_feat: int = 64, num_conv: int = 16, upscale: int = 4) -> None:
        super().__init__()
        self.scales = (upscale,)
        self.body = nn.ModuleList()
        for width in (3, *(num_feat,) * num_conv):
            self.body += [nn.Conv2d(width, num_feat, 3, padding=1), nn.PReLU(num_feat)]
        self.body.append(nn.Conv2d(num_feat, 3 * upscale**2, 3, padding=1))

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> Compact:
        last = max(int(name.split(".")[1]) for name in state)
        return cls(state[cls.KEY].shape[0], last // 2 - 1, math.isqrt(state[f"body.{last}.weight"].shape[0] // 3))

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        features = x
        for layer in self.body:
            features = layer(features)
        return F.pixel_shuffle(features, scale) + F.interpolate(x, scale_factor=scale, mode="nearest")
