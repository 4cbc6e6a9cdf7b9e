"""Affine couplings: networks that are undone exactly, with the logarithm of their volume change."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Coupling", "Couplings"]

_SLOPE = 0.2
_START = 0.1  # share of the usual deviation that new weights have, so that a new coupling is nearly the identity


def _pointwise(channels: int, hidden: int) -> nn.Sequential:
    """Four 1x1 convolutions with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((channels, hidden, hidden, hidden, channels)):
        conv = nn.Conv2d(wide, narrow, 1)
        nn.init.xavier_normal_(conv.weight, _START)
        nn.init.zeros_(conv.get_parameter("bias"))
        layers += [conv, nn.LeakyReLU(_SLOPE, inplace=True)]
    return nn.Sequential(*layers[:-1])


class Coupling(nn.Module):
    r"""One affine coupling of two maps of the same shape.

    .. math:: y_1 = x_1 + F(x_2), \quad y_2 = x_2 e^{s} + G(y_1), \quad s = 2 \sigma(H(y_1)) - 1

    F is called `add`, G `shift` and H `scale`.

    Args:
        channels: Of each map.
        hidden: Channels between the convolutions of F, G and H.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.add, self.shift, self.scale = (_pointwise(channels, hidden) for _ in range(3))

    def _log_scale(self, y1: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.scale(y1)) - 1

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, h, w) twice to the same, and the log-determinant of the map, (N,)."""
        y1 = x1 + self.add(x2)
        s = self._log_scale(y1)
        return y1, x2 * s.exp() + self.shift(y1), s.sum((1, 2, 3))

    def inverse(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` was given."""
        x2 = (y2 - self.shift(y1)) * (-self._log_scale(y1)).exp()
        return y1 - self.add(x2), x2


class Couplings(nn.ModuleList):
    """Couplings in a row; the maps keep their roles between them.

    Args:
        blocks: How many.
        channels: Of each of the two maps.
        hidden: Channels inside the couplings.
    """

    def __init__(self, blocks: int, channels: int, hidden: int) -> None:
        super().__init__(Coupling(channels, hidden) for _ in range(blocks))

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, h, w) twice to the same, and the log-determinant of the whole, (N,)."""
        log_det = x1.new_zeros(len(x1))
        for block in self:
            x1, x2, more = block(x1, x2)
            log_det = log_det + more
        return x1, x2, log_det

    def inverse(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` was given."""
        for block in list(self)[::-1]:
            assert isinstance(block, Coupling)
            y1, y2 = block.inverse(y1, y2)
        return y1, y2
