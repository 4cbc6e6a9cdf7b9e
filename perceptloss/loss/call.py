"""One call of a loss: what it is given, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from perceptloss.loss.budget import projected
from perceptloss.loss.evaluate import Intake, Result
from perceptloss.loss.terms import GradMode, Term
from perceptloss.networks.tiles import side_for
from perceptloss.networks.trunks import Keep

__all__ = ["PIXELS", "Call", "Outcome", "input_gradient"]

PIXELS = 2**17  # of one group of samples: fewer cost time, more cost memory only


@dataclass(frozen=True)
class Call:
    """One call of a loss.

    Attributes:
        x: Judged images, (N, 3, H, W).
        y: References or None.
        weights: The terms that run, with their effective weights; 0 of those that only watch.
        intake: How the images are taken in.
        mode: How the gradient is obtained.
        lean: Whether frozen layers keep masks instead of activations.
        micro_batch: Samples that `fused` runs at once; None for all, `auto` for about `PIXELS`.
        measure: Whether to measure each term's gradient norm (one more backward per term).
        project: Whether what opposes fidelity to y is taken from the gradient.
        tile: Longest side that a term without a crop is given at once; None never cuts.
    """

    x: Tensor
    y: Tensor | None
    weights: Mapping[Term, float]
    intake: Intake
    mode: GradMode = "fused"
    lean: bool = False
    micro_batch: int | Literal["auto"] | None = None
    measure: bool = False
    project: bool = False
    tile: int | None = None

    @property
    def keep(self) -> Keep:
        """What trunks keep for the backward."""
        return "stages" if self.mode == "checkpoint" else "lean" if self.lean else "all"

    def directed(self, grad: Tensor) -> Tensor:
        """A gradient with respect to x, or what `project` leaves of it."""
        return grad if self.y is None or not self.project else projected(grad, self.x, self.y)

    @property
    def needs_grad(self) -> bool:
        """Whether somebody will ask for the gradient."""
        return torch.is_grad_enabled() and self.x.requires_grad

    @property
    def counting(self) -> dict[Term, float]:
        """The terms that are part of the loss."""
        return {term: weight for term, weight in self.weights.items() if weight > 0}

    @property
    def running(self) -> list[Term]:
        """The terms that are part of the loss, or will be when their share is measured."""
        return [term for term in self.weights if not term.spec.monitor]

    def cuts(self, term: Term) -> bool:
        """Whether a term sees these images tile by tile."""
        tile = side_for(term.critic.card, self.tile)
        return tile is not None and term.spec.crop is None and max(self.x.shape[-2:]) > tile

    def groups(self) -> list[tuple[list[Term], int]]:
        """Terms that run together, with the number of samples they may be given at once."""
        samples = max(1, self.x.shape[0])
        whole = [term for term in self.weights if not self.cuts(term)]
        together = [term for term in whole if term.critic.card.couples_batch]
        apart = [term for term in whole if not term.critic.card.couples_batch]
        size = samples
        if self.micro_batch == "auto":
            size = math.ceil(samples / max(1, math.ceil(samples * self.x.shape[-2:].numel() / PIXELS)))
        elif self.micro_batch is not None:
            size = min(self.micro_batch, samples)
        return [(terms, n) for terms, n in ((apart, size), (together, samples)) if terms]


@dataclass
class Outcome:
    """What one call gave.

    Attributes:
        value: The weighted loss, in at least fp32; a part of the graph in the plain modes.
        grad: d value / d x of `fused`, shaped like x, in at least fp32; None if x needs none.
        entry: In the plain modes the node at which the gradient reaches x; None if x needs none.
        scores: Mean score of each term.
        losses: Mean loss of each term.
        squares: Squared norms of the terms' weighted gradients, measured on request only.
        bad: Terms that were left out, and which of `loss` and `gradient` was not finite.
        refused: What is wrong with the images, if no term was run for that.
    """

    value: Tensor
    grad: Tensor | None = None
    entry: Tensor | None = None
    scores: dict[Term, Tensor] = field(default_factory=dict)
    losses: dict[Term, Tensor] = field(default_factory=dict)
    squares: dict[Term, Tensor] = field(default_factory=dict)
    bad: dict[Term, str] = field(default_factory=dict)
    refused: str | None = None

    def add(self, terms: Sequence[Term], results: Sequence[Result], samples: int) -> None:
        """Collect what a part of the batch gave."""
        for term, result in zip(terms, results, strict=True):
            self.scores[term] = self.scores.get(term, 0) + result.score.detach().sum() / samples
            self.losses[term] = self.losses.get(term, 0) + result.loss.detach().sum() / samples

    def add_squares(self, parts: Mapping[Term, Tensor], x: Tensor) -> Tensor:
        """Collect the norms of the terms' gradients on a part of the batch, and return the sum of these gradients."""
        total = torch.zeros_like(x, requires_grad=False)
        for term, part in parts.items():
            found = input_gradient(part, x, retain=True).detach()
            self.squares[term] = self.squares.get(term, 0) + found.double().square().sum()
            total += found
        return total


def input_gradient(total: Tensor, chunk: Tensor, retain: bool = False) -> Tensor:
    """D total / d chunk, zeros where total does not depend on it."""
    if not total.requires_grad:  # every term is constant in x
        return torch.zeros_like(chunk)
    # autocast would also reach the matrix products of this backward, which runs inside the user's forward
    with torch.autocast(chunk.device.type, enabled=False):
        (found,) = torch.autograd.grad(total, chunk, retain_graph=retain, allow_unused=True)
    return torch.zeros_like(chunk) if found is None else found
