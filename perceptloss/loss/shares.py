"""Weights that follow from shares of the gradient: what a term says as `share`, kept while the restorer changes.

A restorer feels each term's gradient at its output. Its norm is measured there from time to time, in units of that of
the mean absolute error beside the critics, and the weight follows smoothly (after Defossez et al., "High Fidelity
Neural Audio Compression", TMLR 2023, who balance losses so).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from perceptloss.loss.terms import Term

__all__ = ["Shares", "l1_norm"]

_RATE = 0.5  # of a new measurement in the logarithm of a norm


def l1_norm(x: Tensor, y: Tensor, weight: float) -> float:
    """Norm of the gradient of `weight` x the mean absolute error: 1 / count wherever the images differ."""
    return weight * math.sqrt(float(torch.count_nonzero(x.detach() != y))) / max(1, x.numel())


class Shares:
    """Keeps the weights of terms that state a share.

    Args:
        terms: Of the loss.
        pixel_weight: Weight of the mean absolute error beside the critics.

    Attributes:
        logs: Logarithm of each term's gradient norm per unit of weight, in that of the mean absolute error.
    """

    def __init__(self, terms: Sequence[Term], pixel_weight: float) -> None:
        self.shares = {term.label: term.spec.share for term in terms if term.spec.share is not None}
        self.rest = 1 - sum(self.shares.values())
        self.pixel_weight = pixel_weight
        self.logs: dict[str, float] = {}

    def unknown(self, terms: Mapping[Term, float]) -> list[Term]:
        """Terms that state a share and were never measured."""
        return [term for term in terms if term.label in self.shares and term.label not in self.logs]

    def moves(self, terms: Iterable[Term]) -> bool:
        """Whether a critic among them learns, so that its gradient is measured in every step."""
        return any(term.label in self.shares and term.spec.joint is not None for term in terms)

    def weight(self, term: Term) -> float:
        """Factor of what the schedule of a term says: 1 where it states a weight."""
        share = self.shares.get(term.label)
        if share is None:
            return 1.0
        return share / self.rest * math.exp(-self.logs[term.label]) if term.label in self.logs else 0.0

    def note(self, squares: Mapping[Term, Tensor], weights: Mapping[Term, float], x: Tensor, y: Tensor) -> None:
        """Follow a measurement.

        Args:
            squares: Squared norms of weighted gradients.
            weights: The weights.
            x: Judged images.
            y: References.
        """
        pixel_norm = l1_norm(x, y, self.pixel_weight)
        mine = [term for term in squares if term.label in self.shares and weights.get(term, 0.0) > 0]
        *sums, pixel = _summed([*(float(squares[term]) / weights[term] ** 2 for term in mine), pixel_norm**2])
        for term, square in zip(mine, sums, strict=True):
            if 0 < square < math.inf and pixel > 0:
                log = math.log(square / pixel) / 2
                old = self.logs.get(term.label, log)
                self.logs[term.label] = old + _RATE * (log - old)


def _summed(values: list[float]) -> list[float]:
    """Sums over the processes, so that all keep the weights that one would, with the whole batch."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()  # type: ignore[no-any-return]
