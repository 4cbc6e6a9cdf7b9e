"""The trunks that critics after papers read in stages: a ResNet, as published, or the small one that ships."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.networks.trunks.lite import LITE_TAPS, Lite
from perceptloss.networks.trunks.resnet import ResNet
from perceptloss.networks.trunks.trunk import Keep, Trunk

__all__ = ["Stages", "TrunkName", "UnitLite", "lite_stages", "staged"]

TrunkName = Literal["resnet", "lite0-smooth"]
_LITE = {"full.block2": 8.3, "full.block4": 7.9, "full.block10": 5.9, "full.block15": 2.6}  # deviation on photographs
_BOTTLENECK = 50


class Stages(NamedTuple):
    """A trunk, the taps behind its stages and their channels; strides 4, 8, 16 and 32."""

    trunk: Trunk
    taps: tuple[str, ...]
    channels: tuple[int, ...]


class UnitLite(Lite):
    """`Lite`, of which the taps of four stages have a deviation of 1 on photographs.

    Behind no ReLU and no normalisation, they are up to ten times larger than those of a ResNet, for which heads are
    drawn: what is read from them would be saturated before it has learned anything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arch += "-unit"

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        found = super().forward(image, taps, keep, dtype)
        return {tap: value / _LITE.get(tap, 1.0) for tap, value in found.items()}


def lite_stages(count: int = 4) -> Stages:
    """The first stages of `UnitLite`, seen from one distance."""
    taps = tuple(_LITE)[:count]
    return Stages(UnitLite(), taps, tuple(LITE_TAPS[tap] for tap in taps))


def staged(name: TrunkName, depth: int, widths: Sequence[int], **more: Any) -> Stages:
    """A trunk by its name, as deep as there are widths.

    Args:
        name: `resnet`, or `lite0-smooth`, to which nothing of the following applies.
        depth: Of the ResNet: 18, 34 or 50.
        widths: Of its stages; with depth 50, four times as many channels leave them.
        more: What else `ResNet` takes.

    Raises:
        ConfigError: if there is no such trunk.
    """
    if name not in get_args(TrunkName):
        raise ConfigError([f"trunk: one of {', '.join(get_args(TrunkName))}, got {name!r}"], "options")
    count = len(widths)
    if name == "lite0-smooth":
        return lite_stages(count)
    taps = tuple(f"layer{stage}" for stage in range(1, count + 1))
    factor = 4 if depth >= _BOTTLENECK else 1
    return Stages(ResNet(depth, count, widths=widths, **more), taps, tuple(factor * w for w in widths))
