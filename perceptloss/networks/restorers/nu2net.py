"""NU2Net: underwater enhancement by a plain U-shaped network, taught by a ranker.

Guo, Wu, Jin, Han, Chai, Zhang, Li: "Underwater Ranker: Learn Which Is Better and How to Be Better", AAAI 2023;
RQ-Wu/UnderwaterRanker, commit f9bf3508 (CC BY-NC 4.0), written from its description; names in the state dict are
the authors'. Their training loss is L1 and a fortieth of the `sigmoid` shape of `uranker`.

Their network ends in a stretch: if any value of the batch leaves [0, 1], each channel of each image is stretched to
its own extremes. So an image's output depends on its neighbours in the batch, and jumps. `tail="norm"` keeps that, for
their weights; `tail="each"` asks each image alone; `tail="none"` leaves the values as they are.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import ConfigError, InputError

__all__ = ["NU2Net", "Tail", "stretched"]

Tail = Literal["norm", "each", "none"]
_EPS = 1e-7


def stretched(image: Tensor, tail: Tail) -> Tensor:
    """Channels (N, C, H, W) stretched to their extremes where values leave [0, 1], of a batch or of each image."""
    if tail == "none":
        return image
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    leaves = (low < 0) | (high > 1)
    leaves = leaves.any() if tail == "norm" else leaves.any(1, keepdim=True)
    return torch.where(leaves, (image - low) / (high - low + _EPS), image)


class NU2Net(nn.Module):
    """Enhances RGB images in [0, 1].

    Args:
        width: Channels at full size; twice, four and eight times as many below.
        tail: How values outside [0, 1] are treated: see above. `each` for weights of your own.
    """

    MULTIPLE: Final = 8
    """Sides are multiples of it."""

    def __init__(self, width: int = 64, tail: Tail = "norm") -> None:
        super().__init__()
        if tail not in get_args(Tail):
            raise ConfigError([f"tail: expected one of {', '.join(get_args(Tail))}, got {tail!r}"], "NU2Net")
        self.tail: Tail = tail
        self.encoder, self.decoder = _Encoder(width), _Decoder(width)

    def forward(self, x: Tensor) -> Tensor:
        """Enhance.

        Args:
            x: (N, 3, H, W), RGB in [0, 1], sides multiples of 8, larger than 8x8.

        Returns:
            (N, 3, H, W).

        Raises:
            InputError: for another shape.
        """
        return stretched(self.unstretched(x), self.tail)

    def unstretched(self, x: Tensor) -> Tensor:
        """What goes into the stretch, (N, 3, H, W)."""
        least = self.MULTIPLE
        if x.ndim != 4 or x.shape[1] != 3 or any(n % least for n in x.shape[2:]) or x.shape[2:].numel() <= least**2:
            raise InputError(
                f"NU2Net needs RGB images, (N, 3, H, W), with sides that are multiples of {least}, larger than "
                f"{least}x{least}, got {tuple(x.shape)}; pad by reflection (model.multiple_of: {least} in recipes)."
            )
        return self.decoder(self.encoder(x)) + x


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.ELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class _Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.e_stage1 = nn.Sequential(nn.Conv2d(3, w, 3, padding=1), _Block(w, w))
        self.e_stage2, self.e_stage3, self.e_stage4 = (
            nn.Sequential(nn.MaxPool2d(2), _Block(n * w, 2 * n * w)) for n in (1, 2, 4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        seen = [self.e_stage1(x)]
        for stage in (self.e_stage2, self.e_stage3, self.e_stage4):
            seen.append(stage(seen[-1]))
        return seen


class _Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.d_stage4, self.d_stage3, self.d_stage2 = (
            nn.Sequential(_Block(2 * n * w, n * w), _Doubled()) for n in (4, 2, 1)
        )
        self.d_stage1 = nn.Sequential(_Block(w, w // 4))
        self.output = nn.Sequential(nn.Conv2d(w // 4, 3, 1), nn.Tanh())

    def forward(self, seen: list[Tensor]) -> Tensor:
        first, second, third, last = seen
        h = self.d_stage4(last)
        h = self.d_stage3(h + third)
        h = self.d_stage2(h + second)
        return self.output(self.d_stage1(h + first))


class _Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
