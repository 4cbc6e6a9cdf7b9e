"""A monotone map of one quality to the opinion scores of a dataset, for training with labels of several.

It keeps the order of the qualities: what a dataset says about the map cannot turn the ranking round.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MonotoneHead"]

_USUAL = 3.0  # qualities of the six test sets of MonotonicIQA lie between 0 and 2.7


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
