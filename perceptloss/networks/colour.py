"""Colour spaces of sRGB images that several critics use: linear light, XYZ, YCxCz, and the CIE's L*a*b* and L*u*v*.

Values outside of the gamut are taken as they are, with bounded slopes, because a restorer that learns overshoots.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from perceptloss.networks.filters import mix_channels
from perceptloss.networks.pointwise import power_above

__all__ = ["OPPONENT", "RGB_OF_XYZ", "XYZ", "cie_curve", "from_opponent", "lab_of_light", "light", "opponent"]

Rows = tuple[tuple[float, float, float], ...]
WHITE: Final = (0.950428545, 1.0, 1.088900371)
XYZ: Final[Rows] = (
    (10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794),
    (2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897),
    (1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382),
)
"""XYZ of linear light, for D65, as in the software of FLIP."""
RGB_OF_XYZ: Final[Rows] = (
    (3.241003275, -1.537398934, -0.498615861),
    (-0.969224334, 1.875930071, 0.041554224),
    (0.055639423, -0.204011202, 1.057148933),
)
OPPONENT: Final[Rows] = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
"""Lightness and two opponents of a curve over XYZ; 16 is taken off the lightness besides."""
_KNEE = 6 / 29
_OF_WHITE: Final = tuple(tuple(weight / white for weight in row) for row, white in zip(XYZ, WHITE, strict=True))


def light(image: Tensor) -> Tensor:
    """Linear light of sRGB values (IEC 61966-2-1), any shape; below 0 the line goes on."""
    return power_above(image, 0.04045, 2.4, (1 / 1.055, 0.055 / 1.055), (1 / 12.92, 0.0))


def cie_curve(share: Tensor) -> Tensor:
    """The CIE's cube root with a line below (6/29)^3, of shares of the white, any shape."""
    return power_above(share, _KNEE**3, 1 / 3, (1.0, 0.0), (1 / (3 * _KNEE**2), 4 / 29))


def _less_sixteen(planes: Tensor) -> Tensor:
    return torch.cat([planes[:, :1] - 16, planes[:, 1:]], 1)


def opponent(linear: Tensor) -> Tensor:
    """YCxCz of linear light, (N, 3, H, W): L*a*b* without its curve."""
    return _less_sixteen(mix_channels(mix_channels(linear, _OF_WHITE), OPPONENT))


def from_opponent(planes: Tensor) -> Tensor:
    """Linear light of YCxCz, (N, 3, H, W)."""
    luma, red, blue = planes.unbind(1)
    y = (luma + 16) / 116
    xyz = torch.stack([(y + red / 500) * WHITE[0], y, (y - blue / 200) * WHITE[2]], 1)
    return mix_channels(xyz, RGB_OF_XYZ)


def lab_of_light(linear: Tensor) -> Tensor:
    """CIE 1976 L*a*b* of linear light, (N, 3, H, W)."""
    return _less_sixteen(mix_channels(cie_curve(mix_channels(linear, _OF_WHITE)), OPPONENT))
