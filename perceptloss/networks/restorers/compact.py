"""Compact: a plain stack of convolutions with PReLU at low resolution, added to the nearest enlargement.

The network of Real-ESRGAN's small models (xinntao/Real-ESRGAN, BSD-3-Clause; `SRVGGNetCompact` in BasicSR, Apache-2.0),
written from its description. The names in the state dict and the order of initialisation are BasicSR's, so that weights
load there and here, and one seed makes the same network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.parallax import CrossAttention
from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["Compact", "StereoCompact"]


_SHARPNESS = 2.5  # of queries and keys: most places of a photograph then have one partner


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


def _look(features: int) -> CrossAttention:
    look = CrossAttention(features)
    gains = {look.l_proj1: _SHARPNESS, look.r_proj1: _SHARPNESS, look.l_proj2: 1.0, look.r_proj2: 1.0}
    for layer, gain in gains.items():
        nn.init.zeros_(layer.get_parameter("bias"))
        with torch.no_grad():
            layer.weight.copy_(gain * torch.eye(features)[..., None, None])
    return look


class StereoCompact(Compact):
    """Compact for stereo pairs, (N, 6, H, W): both views go through it, and look at each other now and then.

    The looks are the cross attention of NAFSSR. Ours: they begin by comparing the features as they are, of which most
    find their place in the other view, and add nothing of what they find. It learns the difference to the bicubic
    enlargement, not to the nearest one as Compact does, whose steps never quite vanish: they stand at the same places
    of both views, and whoever matches the views holds on to them.

    Args:
        num_feat: Width.
        num_conv: Convolutions between the first and the last.
        upscale: Factor of enlargement.
        num_looks: How often the views look at each other, evenly spread, the last time before the last convolution.
    """

    KEY: ClassVar[str] = "looks.0.beta"
    channels: ClassVar[int] = 6

    def __init__(self, num_feat: int = 64, num_conv: int = 16, upscale: int = 4, num_looks: int = 4) -> None:
        super().__init__(num_feat, num_conv, upscale)
        self.looks = nn.ModuleList(_look(num_feat) for _ in range(num_looks))

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> StereoCompact:
        looks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("looks."))
        alone = Compact.like({name: tensor for name, tensor in state.items() if name.startswith("body.")})
        width = state["body.0.weight"].shape[0]
        return cls(width, len(alone.body) // 2 - 1, alone.scales[0], looks)

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        views = torch.cat(x.chunk(2, 1))
        features, after = views, self._places()
        for number, layer in enumerate(self.body):
            features = layer(features)
            if number in after:
                features = torch.cat(self.looks[after.index(number)](*features.chunk(2)))
        base = F.interpolate(views, scale_factor=scale, mode="bicubic", align_corners=False)
        out = F.pixel_shuffle(features, scale) + base
        return torch.cat(out.chunk(2), 1)

    def _places(self) -> list[int]:
        """Layers after which the views look at each other."""
        blocks = len(self.body) // 2
        return [2 * round(blocks * (n + 1) / len(self.looks)) - 1 for n in range(len(self.looks))]
