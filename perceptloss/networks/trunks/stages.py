"""The trunks that critics after papers read in stages: a ResNet, as published, or the small one that ships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from perceptloss.errors import ConfigError
from perceptloss.networks.trunks.lite import LITE_TAPS, Lite
from perceptloss.networks.trunks.resnet import ResNet
from perceptloss.networks.trunks.trunk import Trunk

__all__ = ["Stages", "TrunkName", "lite_stages", "staged"]

TrunkName = Literal["resnet", "lite0-smooth"]
_LITE = ("full.block2", "full.block4", "full.block10", "full.block15")
_BOTTLENECK = 50


class Stages(NamedTuple):
    """A trunk, the taps behind its stages and their channels; strides 4, 8, 16 and 32."""

    trunk: Trunk
    taps: tuple[str, ...]
    channels: tuple[int, ...]


def lite_stages(count: int = 4) -> Stages:
    """The first stages of `Lite`, seen from one distance."""
    taps = _LITE[:count]
    return Stages(Lite(), taps, tuple(LITE_TAPS[tap] for tap in taps))


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
