"""A small auto-encoder of images: a code at a quarter of their size in three channels, and a decoder that enlarges it.

What it gives back is what of an image can be told from its code, without the detail that restorers make up.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers import Compact

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """Encoder of images to a code that is the shrunk image and what a network adds to it; the decoder is `Compact`.

    Args:
        width: Channels of both.
        depth: Convolutions between the first and the last of the encoder; the decoder has twice as many.
        factor: By which the code is smaller.
    """

    def __init__(self, width: int = 32, depth: int = 4, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.encoder = nn.Sequential()
        for channels in (3 * factor**2, *(width,) * depth):
            self.encoder += nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.PReLU(width))
        self.encoder.append(nn.Conv2d(width, 3, 3, padding=1))
        self.decoder = Compact(width, 2 * depth, factor)

    def encode(self, image: Tensor) -> Tensor:
        """The code, (N, 3, H / factor, W / factor)."""
        return F.avg_pool2d(image, self.factor) + self.encoder(F.pixel_unshuffle(image, self.factor))

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W), sides multiples of `factor`, to what their code tells of them."""
        return self.decoder(self.encode(image))
