"""How the gradient of a critic loss with respect to the judged image is obtained.

`fused` rests on one fact: the loss is a scalar, a sum over samples, and frozen critics need no
parameter gradient. So value and input gradient are computed together in the forward, one
micro-batch at a time, activations are freed at once, and only d loss / d x is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perceptloss.errors import GradientError
from perceptloss.loss.evaluate import Result
from perceptloss.networks.trunks import Keep

__all__ = ["Batch", "Outcome", "attach", "direct", "fused"]

Evaluate = Callable[[Tensor, Tensor | None, Sequence[int], Keep], list[Result]]


@dataclass(frozen=True)
class Batch:
    """One call of a loss: the images, the terms' weights, and how samples may be grouped.

    Attributes:
        x: Judged images, (N, 3, H, W).
        y: References or None.
        weights: Effective weight of each term.
        parts: Indices of terms with the number of samples they may be given at once.
        evaluate: Scores and losses of chosen terms on some samples.
    """

    x: Tensor
    y: Tensor | None
    weights: Sequence[float]
    parts: Sequence[tuple[tuple[int, ...], int]]
    evaluate: Evaluate

    def only(self, terms: Sequence[int]) -> Batch:
        """The same call with some of the terms."""
        parts = [(tuple(t for t in which if t in terms), size) for which, size in self.parts]
        return Batch(self.x, self.y, self.weights, [p for p in parts if p[0]], self.evaluate)


@dataclass
class Outcome:
    """What one call gave: the weighted loss, and per term the mean score and loss.

    `norms` are the norms of the terms' weighted gradients, measured on request only.
    """

    value: Tensor
    scores: dict[int, Tensor] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    norms: dict[int, Tensor] = field(default_factory=dict)

    def add(self, term: int, result: Result, samples: int) -> None:
        """Collect a part of the batch for a term."""
        for store, values in ((self.scores, result.score), (self.losses, result.loss)):
            part = values.detach().sum() / samples
            store[term] = store[term] + part if term in store else part


class _Attach(torch.autograd.Function):
    """Gives a value that was computed with its gradient a place in the graph of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, grad: Tensor, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(grad, *(() if scale is None else (scale,)))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise GradientError(
                "grad='fused' gives first derivatives only, but this backward was asked for a graph "
                "(create_graph=True). Use CriticLoss(..., grad='autograd')."
            )
        grad, *scale = ctx.saved_tensors
        factor = incoming[0] * scale[0] if scale else incoming[0]
        gradient = factor * (grad.to(factor.dtype) if scale else grad)
        return gradient.to(grad.dtype), None, None, None


def fused(batch: Batch, keep: Keep = "all", measure: bool = False) -> tuple[Outcome, Tensor | None]:
    """Value and d value / d x together, sample group by sample group.

    Args:
        batch: The call.
        keep: What trunks keep inside one group.
        measure: Whether to measure each term's gradient norm (one more backward per term).

    Returns:
        The outcome and the gradient in at least fp32, shaped like x; None if x needs no gradient.
    """
    x, samples = batch.x, batch.x.shape[0]
    needs_grad = torch.is_grad_enabled() and x.requires_grad
    work = torch.promote_types(x.dtype, torch.float32)
    grad = torch.zeros_like(x, dtype=work, requires_grad=False) if needs_grad else None
    outcome = Outcome(x.new_zeros((), dtype=work))
    for which, size in batch.parts:
        for start in range(0, samples, size):
            part = slice(start, start + size)
            chunk = x.detach()[part].to(work).requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad):
                results = batch.evaluate(chunk, None if batch.y is None else batch.y[part], which, keep)
                parts = [batch.weights[t] * r.loss.sum() / samples for t, r in zip(which, results, strict=True)]
                total = torch.stack(parts).sum()
            for term, result in zip(which, results, strict=True):
                outcome.add(term, result, samples)
            outcome.value = outcome.value + total.detach()
            if grad is not None:
                if measure:
                    _add_norms(outcome, which, parts, chunk)
                grad[part] += _input_gradient(total, chunk)
    outcome.norms = {term: square.sqrt() for term, square in outcome.norms.items()}
    return outcome, grad


def _input_gradient(total: Tensor, chunk: Tensor, retain: bool = False) -> Tensor:
    if not total.requires_grad:  # every term is constant in x
        return torch.zeros_like(chunk)
    # autocast would also reach the matrix products of this backward, which runs inside the user's forward
    with torch.autocast(chunk.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(total, chunk, retain_graph=retain, allow_unused=True)
    return torch.zeros_like(chunk) if gradient is None else gradient


def _add_norms(outcome: Outcome, which: Sequence[int], parts: Sequence[Tensor], x: Tensor) -> None:
    for term, part in zip(which, parts, strict=True):
        square = _input_gradient(part, x, retain=True).detach().double().square().sum()
        outcome.norms[term] = outcome.norms[term] + square if term in outcome.norms else square


def attach(batch: Batch, outcome: Outcome, grad: Tensor | None) -> Tensor:
    """The loss as a node of the graph of x, holding one tensor of the size of x."""
    x = batch.x
    if grad is None:
        return outcome.value
    if x.dtype != torch.float16:
        return _Attach.apply(x, outcome.value, grad.to(x.dtype), None)
    # per-pixel gradients are below what fp16 can hold: keep them scaled, so that a later loss scale still finds them
    top = grad.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    scale = torch.exp2(torch.ceil(torch.log2(top)))
    return _Attach.apply(x, outcome.value, (grad / scale).to(x.dtype), scale)


def direct(
    batch: Batch, keep: Keep, measure: bool = False, on_bad_gradient: Callable[[], None] | None = None
) -> Outcome:
    """The plain graph: `autograd` (keep all) and `checkpoint` (keep stages); value has the graph.

    Args:
        batch: The call.
        keep: What the graph keeps.
        measure: Whether to measure each term's gradient norm.
        on_bad_gradient: Called in the backward if the gradient is not finite; it is then zeroed.
    """
    needs_grad = batch.x.requires_grad and torch.is_grad_enabled()
    x = batch.x.view_as(batch.x) if needs_grad else batch.x
    outcome = Outcome(x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32)))
    for which, _ in batch.parts:
        results = batch.evaluate(x, batch.y, which, keep)
        parts = [batch.weights[t] * r.loss.mean() for t, r in zip(which, results, strict=True)]
        for term, result in zip(which, results, strict=True):
            outcome.add(term, result, x.shape[0])
        if measure and needs_grad:
            _add_norms(outcome, which, parts, x)
        outcome.value = outcome.value + torch.stack(parts).sum()
    outcome.norms = {term: square.sqrt() for term, square in outcome.norms.items()}
    if on_bad_gradient is not None and needs_grad:  # after the measurement, whose NaN concern the report alone
        _watch(x, on_bad_gradient)
    return outcome


def _watch(x: Tensor, on_bad_gradient: Callable[[], None]) -> None:
    """Replace the gradient of x by zero, with a call, if it is not finite."""

    def guard(gradient: Tensor) -> Tensor | None:
        if torch.isfinite(gradient).all():
            return None
        on_bad_gradient()
        return torch.zeros_like(gradient)

    x.register_hook(guard)
