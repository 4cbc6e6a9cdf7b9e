"""CARN-M: cascading residual network, the mobile variant, for scales 2, 3 and 4 in one set of weights.

Ahn, Kang, Sohn: Fast, accurate, and lightweight super-resolution with cascading residual network, ECCV 2018,
https://arxiv.org/abs/1803.08664. Written from the paper and the layout of the authors' weights
(nmhkahn/CARN-pytorch, MIT), which see RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["CARNM"]

_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
_CASCADE = 3


class _Shift(nn.Module):
    """Adds a constant per channel; a 1x1 convolution because the weights are stored as one."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.shifter.weight.copy_(torch.eye(3)[..., None, None])
            self.shifter.get_parameter("bias").copy_(sign * torch.tensor(_MEAN))

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


class _Fuse(nn.Module):
    """1x1 convolution and ReLU over everything that a cascade gathered so far."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _EfficientResidual(nn.Module):
    """Two grouped convolutions and a pointwise one around a skip."""

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + x)


def _cascade(x: Tensor, steps: tuple[Callable[[Tensor], Tensor], ...], fuses: tuple[nn.Module, ...]) -> Tensor:
    gathered = x
    for step, fuse in zip(steps, fuses, strict=True):
        gathered = torch.cat([gathered, step(x)], 1)
        x = fuse(gathered)
    return x


class _Block(nn.Module):
    """Local cascade; its three residual blocks are one and the same (the paper's recursion)."""

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.b1 = _EfficientResidual(features, groups)
        self.c1, self.c2, self.c3 = (_Fuse(n * features, features) for n in range(2, 2 + _CASCADE))

    def forward(self, x: Tensor) -> Tensor:
        return _cascade(x, (self.b1,) * _CASCADE, (self.c1, self.c2, self.c3))


class _Enlarge(nn.Module):
    def __init__(self, features: int, scale: int, groups: int) -> None:
        super().__init__()
        factors = (2, 2) if scale == 4 else (scale,)
        layers: list[nn.Module] = []
        for factor in factors:
            conv = nn.Conv2d(features, factor**2 * features, 3, padding=1, groups=groups)
            layers += [conv, nn.ReLU(), nn.PixelShuffle(factor)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class CARNM(SuperResolver):
    """CARN-M.

    Args:
        features: Width.
        groups: Of the 3x3 convolutions.
    """

    KEY: ClassVar[str] = "entry.weight"
    scales = (2, 3, 4)

    def __init__(self, features: int = 64, groups: int = 4) -> None:
        super().__init__()
        self.sub_mean = _Shift(-1)
        self.add_mean = _Shift(1)
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.b1, self.b2, self.b3 = (_Block(features, groups) for _ in range(_CASCADE))
        self.c1, self.c2, self.c3 = (_Fuse(n * features, features) for n in range(2, 2 + _CASCADE))
        self.upsample = nn.ModuleDict({f"up{scale}": _Enlarge(features, scale, groups) for scale in self.scales})
        self.exit = nn.Conv2d(features, 3, 3, padding=1)

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> CARNM:
        features = state[cls.KEY].shape[0]
        return cls(features, features // state["b1.b1.body.0.weight"].shape[1])

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        features = self.entry(self.sub_mean(x))
        features = _cascade(features, (self.b1, self.b2, self.b3), (self.c1, self.c2, self.c3))
        return self.add_mean(self.exit(self.upsample[f"up{scale}"](features)))
