"""Weights that follow from shares of the gradient: what a term says as `share`, kept while the restorer changes.

A restorer feels each term's gradient at its output. Its norm is measured there from time to time, in units of that of
the mean absolute error beside the critics, and the weight follows smoothly (after Defossez et al., "High Fidelity
Neural Audio Compression", TMLR 2023, who balance losses so).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from perceptloss.loss.clock import is_recomputed
from perceptloss.loss.processes import summed
from perceptloss.loss.terms import Term

__all__ = ["Shares", "l1_norm", "unhooked"]

_RATE = 0.5  # of a new measurement in the logarithm of a norm


def unhooked() -> saved_tensors_hooks:
    """A context whose graph is nobody else's: `torch.utils.checkpoint` counts no tensor of it."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


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
        self._given: dict[str, float] = {}  # the last factors

    def unknown(self, terms: Mapping[Term, float]) -> list[Term]:
        """Terms that state a share and were never measured."""
        mine = [term for term in terms if term.label in self.shares and term.label not in self.logs]
        return [] if is_recomputed() else mine

    def moves(self, terms: Iterable[Term]) -> bool:
        """Whether a critic among them learns, so that its gradient is measured in every step."""
        return any(term.label in self.shares and term.spec.joint is not None for term in terms)

    def weight(self, term: Term) -> float:
        """Factor of what the schedule of a term says: 1 where it states a weight; of a recomputed call, as before."""
        label = term.label
        if label not in self.shares:
            return 1.0
        if not is_recomputed():
            log = self.logs.get(label, math.inf)
            self._given[label] = self.shares[label] / self.rest * math.exp(-log)
        return self._given.get(label, 0.0)

    def note(self, squares: Mapping[Term, Tensor], weights: Mapping[Term, float], x: Tensor, y: Tensor) -> None:
        """Follow a measurement.

        Args:
            squares: Squared norms of weighted gradients.
            weights: The weights.
            x: Judged images.
            y: References.
        """
        found = {
            term.label: float(square) / weights[term] ** 2 for term, square in squares.items() if weights[term] > 0
        }
        # a value for every share, also where a term was left out here: all processes sum as many
        own = [*(found.get(label, 0.0) for label in self.shares), l1_norm(x, y, self.pixel_weight) ** 2]
        *sums, pixel = summed(own)
        for label, square in zip(self.shares, sums, strict=True):
            if 0 < square < math.inf and pixel > 0:
                log = math.log(square / pixel) / 2
                old = self.logs.get(label, log)
                self.logs[label] = old + _RATE * (log - old)
