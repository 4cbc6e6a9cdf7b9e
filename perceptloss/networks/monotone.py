"""Monotone maps of one quality to the opinion scores of a dataset, for training with labels of several.

All keep the order of the qualities: what a dataset says about the map cannot turn the ranking round.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MonotoneHead", "PublishedHead"]

_USUAL = 3.0  # qualities of the six test sets of MonotonicIQA lie between 0 and 2.7


class _Positive(nn.Linear):
    """A linear map by the absolute values of its weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight.abs())


class PublishedHead(nn.Module):
    """The published map of quality to a dataset's scores, in which weights count as |W|, with ELUs between layers.

    No bias is ever added. A quality q >= 0 keeps all units >= 0, where ELU is the identity, so
    there the map is exactly the line c q with c = |W5| |W4| |W3| |W2| |W1|: one gain per dataset, which cannot
    align labels with an offset. Below 0 it bends to a finite floor and its slope dies away.

    Args:
        widths: Of the layers, from 1 to 1.
    """

    def __init__(self, widths: Sequence[int] = (1, 10, 20, 20, 10, 1)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Positive(inputs, outputs) for inputs, outputs in pairwise(widths))

    def forward(self, q: Tensor) -> Tensor:
        """Qualities of any shape to scores of that shape."""
        h = q[..., None]
        for position, layer in enumerate(self.layers):
            h = layer(F.elu(h) if position else h)
        return h[..., 0]


class MonotoneHead(nn.Module):
    r"""A map of quality to a dataset's scores that bends and shifts, and rises everywhere.

    .. math:: f(q) = b + s(g) q + \sum_k s(h_k) \operatorname{sigmoid}(s(r_k) (q - p_k)), \quad s = \log(1 + e^x)

    Its slope is at least s(g) > 0, whatever it learns. It starts as a gentle curve over the usual qualities.

    Args:
        steps: Number of logistic steps.
    """

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.offset, self.gain = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.heights, self.rates = nn.Parameter(torch.zeros(steps)), nn.Parameter(torch.ones(steps))
        self.places = nn.Parameter(torch.linspace(0, _USUAL, steps))

    def forward(self, q: Tensor) -> Tensor:
        """Qualities of any shape to scores of that shape."""
        steps = torch.sigmoid(F.softplus(self.rates) * (q[..., None] - self.places))
        return self.offset + F.softplus(self.gain) * q + (F.softplus(self.heights) * steps).sum(-1)
