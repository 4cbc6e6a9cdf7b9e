"""The small trunk of our own critics: a plain ladder of convolutions that anyone can train in minutes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from perceptloss.networks.trunks.plain import PlainTrunk
from perceptloss.networks.trunks.trunk import HALF, Normalisation

__all__ = ["Ladder"]


class Ladder(PlainTrunk):
    """Stages of a 4x4 convolution of stride 2 and 3x3 ones, each with a bias and a ReLU, and no normalisation.

    A kernel of 4 at stride 2 reads every pixel equally often, so the gradient has no checkerboard, and
    without batch statistics nothing can drift in joint training. Taps are called `stage1`, `stage2` ...

    Args:
        widths: Channels of the stages; stage k has 1 / 2^k of the resolution.
        depth: Convolutions per stage.
        normalise: Mean and standard deviation taken off the images.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 96, 128), depth: int = 2, normalise: Normalisation | None = HALF
    ) -> None:
        layers: list[nn.Module] = []
        taps: dict[str, int] = {}
        before = 3
        for number, width in enumerate(widths, 1):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
            for _ in range(depth - 1):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
            taps[f"stage{number}"] = len(layers) - 1
            before = width
        self.widths = dict(zip(taps, widths, strict=True))
        super().__init__(f"ladder-{'-'.join(map(str, widths))}x{depth}", layers, taps, normalise)

    def starts(self, last: int) -> Sequence[int]:
        halving = [i for i, layer in enumerate(self.features) if getattr(layer, "stride", None) == (2, 2)]
        return [i for i in halving if 0 < i <= last]
