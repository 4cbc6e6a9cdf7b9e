"""Random maps over an image: smooth fields, and blocks of which a growing share is hit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.operations import gaussian_blur

__all__ = ["Blocks", "local_energy", "smooth_field"]


def smooth_field(x: Tensor, generator: torch.Generator, cells: int = 3, channels: int = 1) -> Tensor:
    """Smooth random maps that run from 0 to 1 over each image, (N, channels, H, W).

    Args:
        x: Images, for their size and device.
        generator: Of the draws.
        cells: Hills and valleys along a side, about.
        channels: Independent maps of each image.
    """
    coarse = torch.rand(x.shape[0], channels, cells + 1, cells + 1, generator=generator).to(x.device)
    fine = F.interpolate(coarse, x.shape[2:], mode="bicubic", align_corners=True)
    low, high = fine.amin((2, 3), keepdim=True), fine.amax((2, 3), keepdim=True)
    return (fine - low) / (high - low)


def local_energy(band: Tensor, sigma: float) -> Tensor:
    """Root mean square of a band of an image in a Gaussian window, same shape."""
    return gaussian_blur(band.square(), sigma).sqrt()


@dataclass(frozen=True)
class Blocks:
    """A grid of square blocks over each image of a batch, its corner drawn.

    Attributes:
        rows: Number of the block row of each pixel row, (N, H).
        columns: Number of the block column of each pixel column, (N, W).
        shape: Number of block rows and columns.
    """

    rows: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @classmethod
    def draw(cls, x: Tensor, generator: torch.Generator, size: int | Tensor) -> Blocks:
        """Blocks of a side in pixels, a number or one for each image (N,)."""
        sizes = torch.as_tensor(size).expand(x.shape[0])[:, None]
        corner = (torch.rand(x.shape[0], 2, generator=generator) * sizes).long()
        rows = ((torch.arange(x.shape[2]) + corner[:, :1]) // sizes).to(x.device)
        columns = ((torch.arange(x.shape[3]) + corner[:, 1:]) // sizes).to(x.device)
        return cls(rows, columns, (int(rows.max()) + 1, int(columns.max()) + 1))

    def spread(self, values: Tensor) -> Tensor:
        """One value for each block, (N, C, rows, columns), to one for each pixel, (N, C, H, W)."""
        image = torch.arange(values.shape[0], device=values.device)[:, None, None]
        return values[image, :, self.rows[:, :, None], self.columns[:, None]].movedim(-1, 1)

    def moved(self, x: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """Each block filled from elsewhere in x, so many pixels away (N, 1, rows, columns), wrapped round."""
        height, width = x.shape[2:]
        rows = (torch.arange(height, device=x.device)[:, None] + self.spread(down)[:, 0]) % height
        columns = (torch.arange(width, device=x.device) + self.spread(across)[:, 0]) % width
        places = (rows * width + columns).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        return x.flatten(2).gather(2, places).reshape(x.shape)

    def hit(self, priority: Tensor, share: float) -> Tensor:
        """1 in the share of the blocks that come first, (N, 1, H, W); the last one is in part.

        In part, so that the damage rises steadily even where an image has few blocks.

        Args:
            priority: Who comes first, (N, 1, rows, columns).
            share: Of the blocks, 0 to 1.
        """
        rows, columns = self.rows[:, -1, None, None, None], self.columns[:, -1, None, None, None]
        down, across = (torch.arange(count, device=rows.device) for count in self.shape)
        missing = (down[:, None] > rows) | (across > columns)  # an image needs fewer blocks than another of the batch
        rank = priority.masked_fill(missing, math.inf).flatten(1).argsort(1).argsort(1).reshape(priority.shape)
        return self.spread((share * (rows + 1) * (columns + 1) - rank).clamp(0, 1))

    def random(self, generator: torch.Generator, channels: int = 1) -> Tensor:
        """Uniform numbers, (N, channels, rows, columns)."""
        draw = torch.rand(self.rows.shape[0], channels, *self.shape, generator=generator)
        return draw.to(self.rows.device)
