"""Batch normalisation with stored statistics only: a scale and a shift, which a convolution can absorb.

Critics never update statistics, frozen or learning: a score must not depend on the rest of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["COUNTER", "BatchStats", "folded"]

COUNTER = "a counter of training"


class BatchStats(nn.Module):
    """Stored statistics and the learned affine of a batch normalisation, under torch's names.

    Args:
        channels: Number of channels.
        eps: Added to the variance; 1e-5 in torch, 1e-3 in Keras and the original Inception networks.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What the normalisation multiplies by and adds, (C,) each."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, h: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        shape = (1, -1) + (1,) * (h.ndim - 2)
        scale, shift = self.scale_and_shift()
        return h * scale.view(shape) + shift.view(shape)


def folded(weight: Tensor, bias: Tensor | None, norm: BatchStats) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution (out, ...) that includes the normalisation behind it."""
    scale, shift = norm.scale_and_shift()
    view = scale.view(-1, *(1,) * (weight.ndim - 1))
    return weight * view, shift if bias is None else bias * scale + shift
