"""CriticLoss: a weighted sum of critics as one differentiable scalar."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss.critic import Critic, Overshoot
from perceptloss.errors import ConfigError, GradientError, InputError, NonFiniteLoss
from perceptloss.loss.evaluate import Result, crop_box, evaluate, share_trunks
from perceptloss.loss.gradient import Batch, Outcome, attach, direct, fused
from perceptloss.loss.report import Row, report_rows
from perceptloss.loss.terms import GradMode, OnNonFinite, Term, build_terms, option_problems, parse_terms
from perceptloss.networks.trunks import Keep

__all__ = ["CriticLoss"]

_log = logging.getLogger(__name__)
_CHECK_EVERY = 256  # calls between two looks at the range of y, each of which waits for the device


class CriticLoss(nn.Module):
    """Weighted critics as a training loss, differentiable in the judged image only.

    The critics are frozen and hidden: they follow `.to(device)`, but are no part of
    `parameters()`, `state_dict()`, DDP or FSDP, and stay in evaluation mode and at least fp32.

    Args:
        critics: `{name: weight}`, `{name: {term}}`, or a list of `{critic: name, weight: w, ...}`;
            keys of a term: critic, weight, name, shape, tolerance, start, ramp, crop, precision,
            weights (see `perceptloss.loss.terms.TermSpec`).
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
        critics: Any,
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
        problems = option_problems(
            grad=grad,
            micro_batch=micro_batch,
            input_range=input_range,
            overshoot=overshoot,
            on_nonfinite=on_nonfinite,
            share_every=share_every,
            seed=seed,
            lean=lean,
        )
        try:
            specs = parse_terms(critics)
        except ConfigError as error:
            raise ConfigError([*error.problems, *problems], "critic loss") from None
        if problems:
            raise ConfigError(problems, "critic loss")
        self.grad: GradMode = grad
        self.micro_batch, self.input_range = micro_batch, tuple(input_range)
        self.overshoot, self.on_nonfinite = overshoot, on_nonfinite
        self.share_every, self.seed, self.lean = share_every, seed, lean
        self.step = 0
        self.skipped: Counter[str] = Counter()
        self.terms: tuple[Term, ...] = tuple(build_terms(specs))  # a tuple hides the critics from nn.Module
        share_trunks([term.critic for term in self.terms])
        self._eager: Callable[..., Tensor] | None = None
        self._calls = 0
        self._last: tuple[Outcome, dict[int, float]] | None = None
        self._shares: dict[int, Tensor] = {}

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
        weights = {i: term.weight_at(step) for i, term in enumerate(self.terms)}
        active = [i for i, weight in weights.items() if weight > 0]
        batch = self._batch(x, y, weights, active, step)
        needs_grad = torch.is_grad_enabled() and x.requires_grad
        measure = bool(needs_grad and self.share_every and step % self.share_every == 0)
        if not active:
            value, outcome = x.sum() * 0.0, Outcome(x.new_zeros(()))
        elif self.grad == "fused":
            value, outcome = self._fused(batch, active, measure)
        else:
            value, outcome = self._direct(batch, active, measure)
        outcome.value = outcome.value.detach()
        self._last = (outcome, weights)
        self._shares = dict(outcome.norms) if measure else self._shares
        self._calls += 1
        if needs_grad:
            self.step = step + 1
        return value

    def _batch(self, x: Tensor, y: Tensor | None, weights: dict[int, float], active: list[int], step: int) -> Batch:
        if x.ndim != 4 or not x.is_floating_point():
            need = f"floating-point x of shape (N, 3, H, W) in {self.input_range}"
            raise InputError(f"CriticLoss needs {need}, got {tuple(x.shape)} of {x.dtype}. (Use x.float() / 255.)")
        if y is not None and y.shape != x.shape:
            raise InputError(f"CriticLoss needs x and y of one shape, got {tuple(x.shape)} and {tuple(y.shape)}.")
        boxes = {i: crop_box(self.terms[i], x, self.seed, step) for i in active}
        check = self._calls % _CHECK_EVERY == 0

        def run(xs: Tensor, ys: Tensor | None, which: Sequence[int], keep: Keep) -> list[Result]:
            xs, ys = self._unit_range(xs), None if ys is None else self._unit_range(ys.detach())
            if self.overshoot == "clamp":
                xs = xs.clamp(0, 1)
            elif self.overshoot == "raise":
                self.terms[which[0]].critic.check_range("x", xs)
            return evaluate([self.terms[i] for i in which], xs, ys, [boxes[i] for i in which], keep, check)

        together = [i for i in active if self.terms[i].critic.card.couples_batch]
        apart = [i for i in active if i not in together]
        samples = max(1, x.shape[0])
        size = samples if self.micro_batch is None else min(self.micro_batch, samples)
        parts = [(tuple(which), n) for which, n in ((apart, size), (together, samples)) if which]
        return Batch(x, y, [weights[i] for i in range(len(self.terms))], parts, run)

    def _unit_range(self, image: Tensor) -> Tensor:
        return image if self.input_range == (0, 1) else (image + 1) / 2

    def _fused(self, batch: Batch, active: list[int], measure: bool) -> tuple[Tensor, Outcome]:
        keep: Keep = "lean" if self.lean else "all"
        outcome, grad = fused(batch, keep, measure)
        if not _is_finite(outcome.value, grad):
            outcome, grad = self._without_bad_terms(batch, active, keep, measure)
        return attach(batch, outcome, grad), outcome

    def _without_bad_terms(
        self, batch: Batch, active: list[int], keep: Keep, measure: bool
    ) -> tuple[Outcome, Tensor | None]:
        """Evaluate term by term, leaving out those whose loss or gradient is not finite."""
        kept: list[int] = []
        scores: dict[int, Tensor] = {}
        losses: dict[int, Tensor] = {}
        for term in active:
            alone, grad = fused(batch.only([term]), keep)
            scores |= alone.scores
            losses |= alone.losses
            if _is_finite(alone.value, grad):
                kept.append(term)
            else:
                self._report_bad([self.terms[term].label], "loss" if not _is_finite(alone.value) else "gradient")
        outcome, grad = fused(batch.only(kept), keep, measure)
        outcome.scores, outcome.losses = scores, losses
        return outcome, grad

    def _direct(self, batch: Batch, active: list[int], measure: bool) -> tuple[Tensor, Outcome]:
        keep: Keep = "stages" if self.grad == "checkpoint" else "lean" if self.lean else "all"
        labels = [self.terms[i].label for i in active]
        on_bad: Callable[[], None] = lambda: self._report_bad(labels, "gradient")  # noqa: E731
        outcome = direct(batch, keep, measure, on_bad)
        if not _is_finite(outcome.value):
            bad = [i for i in active if not _is_finite(outcome.losses[i])]
            for term in bad:
                self._report_bad([self.terms[term].label], "loss")
            scores, losses = outcome.scores, outcome.losses
            outcome = direct(batch.only([i for i in active if i not in bad]), keep, measure, on_bad)
            outcome.scores, outcome.losses = scores, losses
            if not outcome.value.requires_grad:
                outcome.value = outcome.value + batch.x.nan_to_num(0, 0, 0).sum() * 0.0
        return outcome.value, outcome

    def _report_bad(self, labels: Sequence[str], what: str) -> None:
        names = " or ".join(repr(label) for label in labels)
        if self.on_nonfinite == "raise":
            raise NonFiniteLoss(f"the {what} of term {names} is not finite; on_nonfinite='skip' would leave it out.")
        self.skipped.update(labels)
        count = self.skipped[labels[0]]
        if count & (count - 1) == 0:  # 1st, 2nd, 4th, 8th ... time
            _log.warning("the %s of term %s is not finite: left out of this step (time %d)", what, names, count)

    @property
    def report(self) -> dict[str, Row]:
        """Per term, of the last call: score, loss, weight, weighted, share, skipped.

        `share` is the term's part of the sum of gradient norms when last measured (see
        `share_every`), None before that. Waits for the device.
        """
        if self._last is None:
            return {}
        return report_rows(self.terms, *self._last, self._shares, self.skipped)

    def term_gradients(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Gradient of each term alone per unit of weight, whatever its schedule, shaped like x.

        Args:
            x: Images of a legal size that differ from `y`.
            y: References.

        Raises:
            GradientError: naming every term that sends no gradient, or one that is not finite.
        """
        gradients: dict[str, Tensor] = {}
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            for i, term in enumerate(self.terms):
                batch = self._batch(leaf, y, dict.fromkeys(range(len(self.terms)), 1.0), [i], step=0)
                gradients[term.label] = _given(fused(batch)[1])
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
        self.step, self.skipped = state["step"], Counter(state["skipped"])

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


def _given(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient


def _is_finite(*tensors: Tensor | None) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors if t is not None)
