"""How the gradient of a critic loss with respect to the judged image is obtained.

`fused` rests on one fact: the loss is a scalar, a sum over samples, and frozen critics need no
parameter gradient. So value and input gradient are computed together in the forward, one
micro-batch at a time, activations are freed at once, and only d loss / d x is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from perceptloss.errors import GradientError
from perceptloss.inputs import all_finite, not_finite
from perceptloss.loss.call import Call, Outcome, input_gradient
from perceptloss.loss.evaluate import evaluate
from perceptloss.loss.report import Skips
from perceptloss.loss.terms import Term
from perceptloss.loss.tiled import add_tiled

__all__ = ["attach", "fused", "gradient"]


def gradient(call: Call) -> Outcome:
    """Value and gradient of a call, as `_gradient`; that of `fused` as the call directs it."""
    outcome = _gradient(call)
    if outcome.grad is not None and outcome.refused is None:
        outcome.grad = call.directed(outcome.grad)
    return outcome


def _gradient(call: Call) -> Outcome:
    """Value and gradient of a call without the terms that are not finite, which are named in `bad`.

    In the plain modes a gradient that is not finite shows in the backward only; `attach` sees to it.
    """
    run = fused if call.mode == "fused" else _direct
    if not (call.weights and len(call.x)):
        return run(replace(call, weights={}))
    if not all_finite(call.x, call.y):
        named = {"x": call.x, "y": call.y}
        found = [f"{name} has {not_finite(i)}" for name, i in named.items() if i is not None and not all_finite(i)]
        return replace(run(replace(call, weights={})), refused=", ".join(found))
    outcome = run(call)
    if all_finite(outcome.value, outcome.grad):
        return outcome
    bad: dict[Term, str] = {}
    for term, weight in call.counting.items():
        if not all_finite(outcome.losses[term]):
            bad[term] = "loss"
        elif call.mode == "fused":
            alone = fused(replace(call, weights={term: weight}, measure=False))
            if not all_finite(alone.value, alone.grad):
                bad[term] = "gradient" if all_finite(alone.value) else "loss"
    rest = run(replace(call, weights={term: w for term, w in call.weights.items() if term not in bad}))
    return replace(rest, scores=outcome.scores, losses=outcome.losses, bad=bad)


def fused(call: Call) -> Outcome:
    """Value and d value / d x together, sample group by sample group, whatever is finite."""
    x, samples, needs_grad = call.x, call.x.shape[0], call.needs_grad
    work = torch.promote_types(x.dtype, torch.float32)
    grad = torch.zeros_like(x, dtype=work, requires_grad=False) if needs_grad else None
    outcome = Outcome(x.new_zeros((), dtype=work), grad)
    for terms, size in call.groups():
        for start in range(0, samples, size):
            part = slice(start, start + size)
            chunk = x.detach()[part].to(work).requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad):
                results = evaluate(terms, chunk, None if call.y is None else call.y[part], call.intake, call.keep)
                parts = {
                    term: call.weights[term] * result.loss.sum() / samples
                    for term, result in zip(terms, results, strict=True)
                    if call.weights[term] > 0
                }
                total = torch.stack([*parts.values()]).sum() if parts else chunk.new_zeros(())
            outcome.add(terms, results, samples)
            outcome.value = outcome.value + total.detach()
            if grad is not None:
                grad[part] += outcome.add_squares(parts, chunk) if call.measure else input_gradient(total, chunk)
    if call.tile is not None:
        add_tiled(call, outcome)
    return outcome


def _direct(call: Call) -> Outcome:
    """The plain graph: `autograd` (keep all) and `checkpoint` (keep stages)."""
    x = call.x.view_as(call.x) if call.needs_grad else call.x
    seen = x.to(torch.promote_types(x.dtype, torch.float32))  # norms are measured here, where half precision holds them
    outcome = Outcome(seen.new_zeros(()))
    for terms, _ in call.groups():
        results = evaluate(terms, seen, call.y, call.intake, call.keep)
        parts = {
            term: call.weights[term] * result.loss.mean()
            for term, result in zip(terms, results, strict=True)
            if call.weights[term] > 0
        }
        outcome.add(terms, results, x.shape[0])
        if call.measure:
            outcome.add_squares(parts, seen)
        if parts:
            outcome.value = outcome.value + torch.stack([*parts.values()]).sum()
    if call.needs_grad:
        outcome.entry = x
        if not outcome.value.requires_grad:  # no term, or none that depends on x
            outcome.value = outcome.value + x[:0].sum()
    return outcome


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


def attach(call: Call, outcome: Outcome, skips: Skips) -> Tensor:
    """The loss as a node of the graph of x: with one tensor of the size of x, or the whole graph with a guard.

    Args:
        call: The call.
        outcome: What it gave.
        skips: Where the guard of the plain modes notes a gradient that is not finite, which it replaces by zero.
    """
    x, grad, entry = call.x, outcome.grad, outcome.entry
    if entry is not None:
        labels = [term.label for term in call.counting if term not in outcome.bad]
        constant, is_refused = (
            replace(call, x=x.detach()),
            outcome.refused is not None,
        )  # a hook must not keep the graph

        def guard(incoming: Tensor) -> Tensor | None:
            if all_finite(incoming):
                return None if is_refused else constant.directed(incoming)
            skips.add(labels, "gradient")
            return torch.zeros_like(incoming)

        entry.register_hook(guard)
    if grad is None:
        return outcome.value
    if x.dtype != torch.float16 or not x.numel():
        return _Attach.apply(x, outcome.value, grad.to(x.dtype), None)
    # per-pixel gradients are below what fp16 can hold: keep them scaled, so that a later loss scale still finds them
    top = grad.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    scale = torch.exp2(torch.ceil(torch.log2(top)))
    return _Attach.apply(x, outcome.value, (grad / scale).to(x.dtype), scale)
