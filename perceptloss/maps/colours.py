"""Colours of maps: fixed tables from good to bad, ordered by lightness so that colour-blind readers can use them.

`SEQUENTIAL` grows lighter from good to bad, in even steps. `DIVERGING` is lightest at 0, blue on the
good side and orange on the bad one, as dark on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import LUMA

__all__ = ["DIVERGING", "SEQUENTIAL", "Colours", "Scale", "draw"]

Colours = tuple[tuple[int, int, int], ...]
SEQUENTIAL: Final[Colours] = (
    (10, 14, 58),
    (76, 28, 128),
    (166, 46, 116),
    (232, 102, 72),
    (250, 176, 84),
    (252, 246, 186),
)
DIVERGING: Final[Colours] = ((4, 62, 134), (92, 156, 210), (242, 242, 242), (218, 130, 48), (118, 44, 0))
_MOST: Final = 0.85  # opacity over an image of the strongest colour


@dataclass(frozen=True)
class Scale:
    """Which value gets which colour.

    Attributes:
        first: Value of the first colour of the table: the good end.
        last: Value of the last one; smaller than `first` where higher is better.
        colours: The table; colours between its entries are interpolated in sRGB.
    """

    first: float
    last: float
    colours: Colours = SEQUENTIAL

    @property
    def is_signed(self) -> bool:
        """Whether the middle of the table means 0."""
        return self.colours == DIVERGING

    def places(self, values: Tensor) -> Tensor:
        """Where values are on the table, in [0, 1]; values beyond its ends are drawn as the ends."""
        if self.first == self.last:  # nothing to tell apart
            return torch.full_like(values, 0.5 if self.is_signed else 0.0)
        return ((values - self.first) / (self.last - self.first)).clamp(0, 1)

    def beyond(self, values: Tensor) -> int:
        """Number of values beyond the ends."""
        low, high = sorted((self.first, self.last))
        return int(((values < low) | (values > high)).sum())


def draw(values: Tensor, scale: Scale, size: tuple[int, int], image: Tensor | None = None) -> Tensor:
    """Draw a map at the size of its image, every cell as a block of one colour.

    Args:
        values: The map, (h, w).
        scale: Its colours.
        size: Height and width of the picture.
        image: Laid underneath in grey, (3, H, W) in [0, 1], of that size. It shows through where a value is
            good (or near 0, for signed ones), and hardly where it is bad.

    Returns:
        RGB, (H, W, 3), uint8.
    """
    places = F.interpolate(scale.places(values.float())[None, None], size, mode="nearest-exact")[0, 0]
    picture = _interpolated(places, scale.colours)
    if image is not None:
        grey = 255 * torch.einsum("chw,c->hw", image.float().clamp(0, 1), torch.tensor(LUMA))[..., None]
        strength = (2 * places - 1).abs() if scale.is_signed else places
        picture = torch.lerp(grey.expand_as(picture), picture, _MOST * strength[..., None])
    return picture.round().byte()


def _interpolated(places: Tensor, colours: Colours) -> Tensor:
    """Colours of places in [0, 1], (..., 3), 0 to 255."""
    table = torch.tensor(colours, dtype=torch.float32)
    position = places * (len(colours) - 1)
    below = position.long().clamp(max=len(colours) - 2)
    return torch.lerp(table[below], table[below + 1], (position - below)[..., None])
