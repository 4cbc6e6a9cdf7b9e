"""CriticLoss: a weighted sum of critics as one differentiable scalar."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss.critic import Critic, Overshoot
from perceptloss.errors import GradientError, InputError
from perceptloss.loss.evaluate import Intake, share_trunks
from perceptloss.loss.gradient import Call, attach, fused, gradient
from perceptloss.loss.report import Record, Row, Skips
from perceptloss.loss.terms import GradMode, OnNonFinite, Term, Terms, build_terms, parse_loss

__all__ = ["CriticLoss"]

_CHECK_EVERY = 256  # calls between two looks at the range of y, each of which waits for the device


class CriticLoss(nn.Module):
    """Weighted critics as a training loss, differentiable in the judged image only.

    The critics are frozen and hidden: they follow `.to(device)`, but are no part of
    `parameters()`, `state_dict()`, DDP or FSDP, and stay in evaluation mode and at least fp32.

    Args:
        critics: `{name: weight}`, `{name: {term}}`, or a list of `{critic: name, weight: w, ...}`;
            the keys of a term are those of `TermOptions`.
        grad: `fused` (value and gradient in the forward, nothing but d loss / d x is kept),
            `checkpoint` (recompute stages in the backward) or `autograd`.
        micro_batch: Samples that `fused` runs at once; None for all.
        input_range: Range of x and y, (0, 1) or (-1, 1).
        overshoot: What happens to x outside the range: `pass`, `clamp` (no gradient there), `raise`.
        on_nonfinite: `skip` leaves a term out of a call in which its loss or gradient is not
            finite, names it in the log and counts it; `raise` stops.
        share_every: Steps between measurements of each term's share of the gradient, which cost
            one more backward per term; 0 never measures.
        seed: Of the places of random crops, which depend on nothing else but the step.
        lean: Frozen layers keep ReLU masks and pooling positions instead of activations.

    Raises:
        ConfigError: with everything that is wrong.

    Example:
        >>> loss_fn = CriticLoss({"ssim": 1.0, "gmsd": {"weight": 0.5, "start": 1000}})
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> loss_fn(x, torch.rand(2, 3, 64, 64)).backward()
    """

    def __init__(
        self,
        critics: Terms,
        *,
        grad: GradMode = "fused",
        micro_batch: int | None = 4,
        input_range: Sequence[float] = (0, 1),
        overshoot: Overshoot = "pass",
        on_nonfinite: OnNonFinite = "skip",
        share_every: int = 100,
        seed: int = 0,
        lean: bool = False,
    ) -> None:
        super().__init__()
        specs = parse_loss(
            critics,
            grad=grad,
            micro_batch=micro_batch,
            input_range=input_range,
            overshoot=overshoot,
            on_nonfinite=on_nonfinite,
            share_every=share_every,
            seed=seed,
            lean=lean,
        )
        self.grad: GradMode = grad
        self.overshoot: Overshoot = overshoot
        self.micro_batch, self.input_range = micro_batch, tuple(input_range)
        self.share_every, self.seed, self.lean = share_every, seed, lean
        self.step = 0
        self.terms: tuple[Term, ...] = tuple(build_terms(specs))  # a tuple hides the critics from nn.Module
        share_trunks([term.critic for term in self.terms])
        self._eager: Callable[..., Tensor] | None = None
        self._calls = 0
        self._record, self._skips = Record(), Skips(on_nonfinite)

    @property
    def critics(self) -> list[Critic]:
        """The distinct critics, in order of the terms."""
        return list({id(term.critic): term.critic for term in self.terms}.values())

    def forward(self, x: Tensor, y: Tensor | None = None, *, step: int | None = None) -> Tensor:
        """The weighted loss.

        Args:
            x: Judged images, (N, 3, H, W), in `input_range`; may carry a gradient.
            y: References, same shape; may be left out if no term needs them.
            step: Training step for schedules and crops; counted by itself if left out.

        Returns:
            Scalar loss, in fp32 or better.

        Raises:
            InputError: if images are not what a critic accepts.
            NonFiniteLoss: if a term is not finite and `on_nonfinite` is `raise`.
        """
        if torch.compiler.is_compiling():  # a compiled training step calls this eagerly, as one graph break
            if self._eager is None:
                self._eager = torch.compiler.disable(self._forward)
            return self._eager(x, y, step)
        return self._forward(x, y, step)

    def _forward(self, x: Tensor, y: Tensor | None, step: int | None) -> Tensor:
        step = self.step if step is None else step
        needs_grad = torch.is_grad_enabled() and x.requires_grad
        measure = bool(needs_grad and self.share_every and step % self.share_every == 0)
        weights = {term: term.weight_at(step) for term in self.terms}
        call = self._call(x, y, {term: weight for term, weight in weights.items() if weight > 0}, step, measure)
        outcome = gradient(call)
        value = attach(call, outcome, self._skips)
        for term, what in outcome.bad.items():
            self._skips.add([term.label], what)
        squares = outcome.squares if measure else self._record.squares
        self._record = Record(weights, outcome.scores, outcome.losses, squares)
        self._calls += 1
        if needs_grad:
            self.step = step + 1
        return value

    def _call(self, x: Tensor, y: Tensor | None, weights: Mapping[Term, float], step: int, measure: bool) -> Call:
        if x.ndim != 4 or not x.is_floating_point():
            need = f"floating-point x of shape (N, 3, H, W) in {self.input_range}"
            raise InputError(f"CriticLoss needs {need}, got {tuple(x.shape)} of {x.dtype}. (Use x.float() / 255.)")
        if y is not None and y.shape != x.shape:
            raise InputError(f"CriticLoss needs x and y of one shape, got {tuple(x.shape)} and {tuple(y.shape)}.")
        check_range = self._calls % _CHECK_EVERY == 0
        intake = Intake(self.input_range, self.overshoot, self.seed, step, check_range)
        return Call(x, y, weights, intake, self.grad, self.lean, self.micro_batch, measure)

    @property
    def report(self) -> dict[str, Row]:
        """Per term, of the last call: score, loss, weight, weighted, share, skipped.

        `share` is the term's part of the sum of gradient norms when last measured (see
        `share_every`), None before that. Waits for the device.
        """
        return self._record.rows(self.skipped)

    @property
    def skipped(self) -> Counter[str]:
        """How often each term was left out, by label."""
        return self._skips.counts

    @property
    def on_nonfinite(self) -> OnNonFinite:
        """What happens to a term whose loss or gradient is not finite."""
        return self._skips.policy

    def term_gradients(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Gradient of each term alone per unit of weight, whatever its schedule, shaped like x.

        Args:
            x: Images of a legal size that differ from `y`.
            y: References.

        Raises:
            GradientError: naming every term that sends no gradient, or one that is not finite.
        """
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            alone = {term.label: fused(self._call(leaf, y, {term: 1.0}, 0, False)).grad for term in self.terms}
        gradients = {label: gradient for label, gradient in alone.items() if gradient is not None}
        norms = {label: float(gradient.norm()) for label, gradient in gradients.items()}
        bad = {label: norm for label, norm in norms.items() if not (math.isfinite(norm) and norm > 0)}
        if bad:
            listed = ", ".join(f"{label!r} ({'no gradient' if norm == 0 else norm})" for label, norm in bad.items())
            raise GradientError(f"these terms send no usable gradient to the image: {listed}. Remove or repair them.")
        return gradients

    def check_gradient(self, x: Tensor, y: Tensor | None = None) -> dict[str, float]:
        """Norms of `term_gradients`; raises GradientError as it does. For hosts to call at start-up."""
        return {label: float(gradient.norm()) for label, gradient in self.term_gradients(x, y).items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_eager": None}

    def get_extra_state(self) -> dict[str, Any]:
        """Step and counters; all that `state_dict` holds."""
        return {"step": self.step, "skipped": dict(self.skipped)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from `get_extra_state`."""
        self.step, self._skips.counts = state["step"], Counter(state["skipped"])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CriticLoss:
        super()._apply(fn, recurse)

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_low = moved.is_floating_point() and moved.dtype.itemsize < 4 <= tensor.dtype.itemsize
            return tensor.to(moved.device) if is_low else moved

        for critic in self.critics:
            critic._apply(move)
        return self

    def extra_repr(self) -> str:
        """One line per term."""
        rows = [f"{t.label}: {t.critic.card.name} x {t.spec.weight:g} ({t.spec.shape})" for t in self.terms]
        return "\n".join([*rows, f"grad={self.grad!r}, micro_batch={self.micro_batch}"])
