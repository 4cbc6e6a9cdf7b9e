"""RRDB: residual in residual dense blocks, the generator of ESRGAN and Real-ESRGAN.

Wang et al.: ESRGAN: Enhanced super-resolution generative adversarial networks, ECCV workshops 2018,
https://arxiv.org/abs/1809.00219. Written from the paper and the layout of the weights of xinntao/Real-ESRGAN
(BSD-3-Clause), which see RGB in [0, 1]; the names in the state dict are BasicSR's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["RRDB"]

_SLOPE = 0.2
_SHARE = 0.2  # of a residual that is added


class _Dense(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 6):
            out = features if number == 5 else growth
            self.add_module(f"conv{number}", nn.Conv2d(features + (number - 1) * growth, out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        found = x
        *inner, last = self.children()
        for conv in inner:
            found = torch.cat([found, F.leaky_relu(conv(found), _SLOPE)], 1)
        out: Tensor = last(found)
        return x + _SHARE * out


class _Block(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_Dense(features, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _SHARE * out


class RRDB(SuperResolver):
    """RRDB for a scale of 4.

    Args:
        features: Width.
        blocks: Number of blocks of three dense blocks each.
        growth: Maps that a convolution of a dense block adds.
    """

    KEY: ClassVar[str] = "body.0.rdb1.conv1.weight"
    scales = (4,)

    def __init__(self, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(_Block(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> RRDB:
        growth, features = state[cls.KEY].shape[:2]
        return cls(features, 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body.")), growth)

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        first = self.conv_first(x)
        features = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2.0, mode="nearest")), _SLOPE)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(features), _SLOPE))
        return out
