"""Value and gradient of a term on images that are too large for it at once: tile by tile.

Where the card says `exact`, the sums of all tiles are taken first, then the score and what it owes to each sum, and
a second pass brings that back to the pixels: the value and the gradient of the whole image. Where it says
`approximate`, the loss is the mean of the tiles' losses by area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from perceptloss.loss.call import Call, Outcome, input_gradient
from perceptloss.loss.evaluate import Intake, Result, admitted, evaluate, shift_of
from perceptloss.loss.terms import Term, shaped
from perceptloss.networks.tiles import Place, areas, parts

__all__ = ["add_tiled"]


def add_tiled(call: Call, outcome: Outcome) -> None:
    """Add what the terms give that see their images tile by tile, image by image."""
    samples, needs_grad = len(call.x), outcome.grad is not None
    shift = shift_of(call.x, call.intake)
    for term, weight in call.weights.items():
        if not call.cuts(term):
            continue
        for number in range(samples):
            place = (slice(number, number + 1), *shift)
            x = call.x.detach()[place].to(outcome.value.dtype)
            y = None if call.y is None else call.y[place]
            factor = weight / samples if needs_grad else 0.0
            part = _Part(call, term, replace(call.intake, shift=0), factor)
            grad = torch.zeros_like(x) if call.measure or outcome.grad is None else outcome.grad[place]
            result = (part.exact if term.critic.card.tiling == "exact" else part.mean)(x, y, grad)
            outcome.add([term], [result], samples)
            if weight > 0:
                outcome.value = outcome.value + weight * result.loss.detach().sum().to(outcome.value.dtype) / samples
            if outcome.grad is not None and factor and call.measure:
                outcome.grad[place] += grad
                outcome.squares[term] = outcome.squares.get(term, 0) + grad.double().square().sum()


class _Part:
    """One term of a call on one image; `factor` of its loss counts, and no gradient is asked for where it is 0."""

    def __init__(self, call: Call, term: Term, intake: Intake, factor: float) -> None:
        assert call.tile is not None
        self.side, self.keep = call.tile, call.keep
        self.term, self.intake, self.factor = term, intake, factor

    def exact(self, x: Tensor, y: Tensor | None, grad: Tensor) -> Result:
        """Result (1,) of the whole image, whose gradient is added to `grad`."""
        critic, identity = self.term.critic, self.term.critic.card.identity
        with torch.no_grad():
            sums = torch.stack([tile.double() for _, _, tile in self._tallies(x, y)]).sum(0)
            anchor: Tensor | float = 0.0 if identity is None else identity
            if self.term.is_relative and identity is None:
                assert y is not None
                anchor = critic.settle(torch.stack([t.double() for _, _, t in self._tallies(y, y)]).sum(0))
        with torch.set_grad_enabled(bool(self.factor)):
            sums.requires_grad_(bool(self.factor))
            score = critic.settle(sums)
            result = Result(score.detach(), shaped(self.term.spec, score, anchor))
            if not (self.factor and result.loss.requires_grad):
                return result
            owed = input_gradient(self.factor * result.loss.sum(), sums)
            for place, chunk, tile in self._tallies(x, y):
                grad[place] += input_gradient((tile * owed.to(tile.dtype)).sum(), chunk)
        return result

    def _tallies(self, x: Tensor, y: Tensor | None) -> Iterator[tuple[Place, Tensor, Tensor]]:
        critic, wants = self.term.critic, torch.is_grad_enabled()
        critic.refreeze()
        for place, area in areas(critic.card, (x.shape[-2], x.shape[-1]), self.side):
            chunk = x[place].detach().requires_grad_(wants)
            with torch.autocast(x.device.type, enabled=False):
                seen = admitted(self.term, chunk, None if y is None else y[place], self.intake)
                yield place, chunk, critic.tally(*seen, area)

    def mean(self, x: Tensor, y: Tensor | None, grad: Tensor) -> Result:
        """Result (1,) of the mean over tiles, whose gradient is added to `grad`."""
        height, width = x.shape[-2:]
        score, loss = x.new_zeros(1), x.new_zeros(1)
        with torch.set_grad_enabled(bool(self.factor)):
            for pixels, place in parts(height, width, self.side, self.term.critic.card.multiple_of):
                share = pixels / (height * width)
                chunk = x[place].detach().requires_grad_(bool(self.factor))
                (found,) = evaluate([self.term], chunk, None if y is None else y[place], self.intake, self.keep)
                score, loss = score + share * found.score.detach(), loss + share * found.loss.detach()
                if self.factor:
                    grad[place] += input_gradient(self.factor * share * found.loss.sum(), chunk)
        return Result(score, loss)
