"""AffineUNet: colours by local affine maps of light, then detail by a small U-shaped network; ours.

Enhancement at the size of the input, for casts, veils and darkness, which are smooth over an image, and the noise and
blur that come with them, which are not. The first part looks at an eighth of the size and gives each place an affine
map of colours, as bilateral-grid networks do (Gharbi et al., "Deep bilateral learning for real-time image
enhancement", SIGGRAPH 2017), here also of their square roots, which lift shadows. The second part adds a residual
(Ronneberger et al., "U-Net", MICCAI 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import InputError

__all__ = ["AffineUNet"]

_SHRINK = 8  # of what the first part looks at
_MULTIPLE = 4  # of the sides in the second part
_DARK = 1e-4  # keeps the slope of square roots finite


class AffineUNet(nn.Module):
    """Enhances RGB images in [0, 1] of any size; the output is not clamped, and at the start it is the input.

    Args:
        width: Channels at full size; twice and three times as many at a half and at a quarter.
        grid_width: Channels of the part that gives the affine maps.
    """

    def __init__(self, width: int = 16, grid_width: int = 48) -> None:
        super().__init__()
        g, (a, b, c) = grid_width, (width, 2 * width, 3 * width)
        self.look = nn.Sequential(_conv(6, g), _conv(g, g, stride=2), _conv(g, g))
        self.about = nn.Sequential(nn.Linear(2 * g, g), nn.PReLU(g), nn.Linear(g, g))
        self.to_maps, self.maps = _conv(g, g), nn.Conv2d(g, 21, 1)
        self.down1 = nn.Sequential(_conv(6, a), _conv(a, a))
        self.down2 = nn.Sequential(_conv(a, b, stride=2), _conv(b, b))
        self.down4 = nn.Sequential(_conv(b, c, stride=2), _conv(c, c), _conv(c, c))
        self.to_half, self.up2 = nn.Conv2d(c, b, 1), _conv(b, b)
        self.to_full, self.up1 = nn.Conv2d(b, a, 1), _conv(a, a)
        self.residual = nn.Conv2d(a, 3, 3, padding=1)
        for parameter in (*self.maps.parameters(), *self.residual.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Enhance.

        Args:
            x: (N, 3, H, W), RGB in [0, 1].

        Returns:
            (N, 3, H, W).

        Raises:
            InputError: for another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 1:
            raise InputError(f"AffineUNet needs RGB images, (N, 3, H, W), got {tuple(x.shape)}.")
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
        coloured = self.coloured(x)
        return (coloured + self._detail(coloured, x))[..., :height, :width]

    def coloured(self, x: Tensor) -> Tensor:
        """The first part alone, (N, 3, H, W)."""
        lifted = _lifted(x)
        size = [max(2, -(-n // _SHRINK)) for n in x.shape[2:]]
        small = F.interpolate(lifted, size=size, mode="area")
        seen = self.look(small)
        about = self.about(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))
        maps = self.maps(self.to_maps(seen + about[..., None, None]))
        maps = F.interpolate(maps, size=x.shape[2:], mode="bilinear", align_corners=False)
        mixes, offset = maps[:, :18].unflatten(1, (3, 6)), maps[:, 18:]
        return x + (mixes * lifted[:, None]).sum(2) + offset

    def _detail(self, coloured: Tensor, x: Tensor) -> Tensor:
        full = self.down1(torch.cat([coloured, x], 1))
        half = self.down2(full)
        half = self.up2(half + _doubled(self.to_half(self.down4(half))))
        return self.residual(self.up1(full + _doubled(self.to_full(half))))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.PReLU(outputs))


def _lifted(x: Tensor) -> Tensor:
    """Colours and their square roots, (N, 6, H, W)."""
    return torch.cat([x, (x.clamp_min(0) + _DARK).sqrt()], 1)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
