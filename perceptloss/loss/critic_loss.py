"""CriticLoss: a weighted sum of critics as one differentiable scalar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from perceptloss.critic import Overshoot
from perceptloss.errors import InputError
from perceptloss.inputs import usable
from perceptloss.loss.budget import Allowed, Budget
from perceptloss.loss.call import Call, Outcome
from perceptloss.loss.checks import check_call, check_gradients, transforms_named
from perceptloss.loss.clock import is_recomputed, whole
from perceptloss.loss.domains import Domain
from perceptloss.loss.evaluate import Intake
from perceptloss.loss.gradient import attach, fused, gradient
from perceptloss.loss.learning import Anchors, Learning
from perceptloss.loss.parsing import parse_loss
from perceptloss.loss.report import Record, Row
from perceptloss.loss.shares import unhooked
from perceptloss.loss.terms import GradMode, Grey, OnNonFinite, Term, Terms, build_terms

__all__ = ["CriticLoss"]

_CHECK_EVERY = 256  # calls between two looks at the range of y, each of which waits for the device


class CriticLoss(Learning):
    """Weighted critics as a training loss, differentiable in the judged image only.

    The critics are frozen and hidden: they follow `.to(device)`, but are no part of `parameters()`, `state_dict()`, DDP
    or FSDP, and stay in evaluation mode and at least fp32.

    Args:
        critics: `{name: weight}`, `{name: {term}}`, or a list of `{critic: name, weight: w, ...}`; see `TermOptions`.
        grad: `fused` (value and gradient in the forward, nothing but d loss / d x is kept), `checkpoint` (recompute
            stages in the backward) or `autograd`.
        micro_batch: Samples that `fused` runs at once; None for all; `auto` for as many as have about 2^17 pixels.
        input_range: Range of x and y, (0, 1) or (-1, 1).
        overshoot: What happens to x outside the range: `pass`, `clamp` (no gradient there), `raise`.
        on_nonfinite: `skip` leaves a term out of a call in which its loss or gradient is not finite, names it in the
            log and counts it; `raise` stops.
        share_every: Steps between measurements of each term's share of the gradient, which cost one more backward per
            term; 0 never measures.
        pixel_weight: Weight of the mean absolute error beside the critics, which shares are relative to.
        shift: Lines and columns of the images that no critic sees, a random number of them at the top and at the left,
            anew in every step: then no stride of a critic prints its grid at one place.
        budget: Full-reference critics and what they may change against the start, such as `{"psnr": -0.5}`, or their
            worst scores, `{"psnr": {"worst": 28}}`, or a `Budget`; tell its `note` scores on held-out images, first
            those of the start.
        tile: Longest side in pixels that a term without a crop is given at once, its halo included, so that memory does
            not grow with the image: exact where the critic's card says so, else the mean of the tiles' losses by area.
            A joint critic learns from a random square of that side. None: whole images. Needs `fused`.
        seed: Of the places of random crops, which depend on nothing else but the step.
        lean: Frozen layers keep ReLU masks and pooling positions instead of activations.
        grey: What happens to images of one channel, for terms that do not say: `refuse`, or `replicate` them.
        stereo: Images are stereo pairs, (N, 6, H, W): left RGB, right RGB. Critics of pairs see both views, critics of
            single images each of them, and their scores are averaged.
        domain: What the images are: critics that were made for others warn once.

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
        micro_batch: int | Literal["auto"] | None = "auto",
        input_range: Sequence[float] = (0, 1),
        overshoot: Overshoot = "pass",
        on_nonfinite: OnNonFinite = "skip",
        share_every: int = 100,
        pixel_weight: float = 1.0,
        shift: int = 0,
        tile: int | None = None,
        budget: Allowed | Budget | None = None,
        seed: int = 0,
        lean: bool = False,
        grey: Grey = "refuse",
        stereo: bool = False,
        domain: Domain = "natural",
    ) -> None:
        specs = parse_loss(
            critics,
            grad=grad,
            micro_batch=micro_batch,
            input_range=input_range,
            overshoot=overshoot,
            on_nonfinite=on_nonfinite,
            share_every=share_every,
            pixel_weight=pixel_weight,
            shift=shift,
            tile=tile,
            seed=seed,
            lean=lean,
            grey=grey,
            stereo=stereo,
            domain=domain,
        )
        super().__init__(build_terms(specs, stereo=stereo), on_nonfinite, pixel_weight, shift, seed)
        self.budget = budget if isinstance(budget, Budget) else None if budget in (None, {}) else Budget(budget)
        self.grad: GradMode = grad
        self.overshoot: Overshoot = overshoot
        self.micro_batch, self.input_range = micro_batch, tuple(input_range)
        self.share_every, self.seed, self.lean, self.shift, self.tile = share_every, seed, lean, shift, tile
        self._eager: Callable[..., Tensor] | None = None
        self._calls = 0
        self._record = Record()

    def forward(self, x: Tensor, y: Tensor | None = None, *, step: int | None = None) -> Tensor:
        """The weighted loss.

        Args:
            x: Judged images, (N, 3, H, W), in `input_range`; may carry a gradient.
            y: References, same shape; may be left out if no term needs them. They are constants and get no gradient.
            step: Training step for schedules and crops. Counted if left out: calls before the same optimizer step are
                of one step, and so is what `torch.utils.checkpoint` calls again.

        Returns:
            Scalar loss, in fp32 or better; 0 if no term has started, none is left, or the batch is empty.

        Raises:
            InputError: if images are not what a critic accepts; if y asks for a gradient and x does not; if pixels are
                not finite where no gradient is wanted.
            NonFiniteLoss: if a term or, in training, an image is not finite and `on_nonfinite` is `raise`.
        """
        return self._eagerly(self._forward, x, y, step)  # type: ignore[no-any-return]

    def value_and_gradient(
        self, x: Tensor, y: Tensor | None = None, *, step: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted loss and d loss / d x, without a graph: for `x.backward(gradient)`, or to look at.

        Args:
            x: As for `forward`; need not carry a gradient.
            y: As for `forward`.
            step: As for `forward`.

        Returns:
            The scalar loss, and its gradient, shaped like x, both in fp32 or better.
        """
        return self._eagerly(self._value_and_gradient, x, y, step)  # type: ignore[no-any-return]

    def _eagerly(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call at once; a compiled training step does so, too, as one graph break."""
        if torch.compiler.is_compiling():
            if self._eager is None:
                self._eager = torch.compiler.disable(lambda call, *arguments: call(*arguments))
            call, arguments = self._eager, (call, *arguments)
        return call(*arguments)

    def _value_and_gradient(self, x: Tensor, y: Tensor | None, step: int | None) -> tuple[Tensor, Tensor]:
        check_call(x, y, self.terms, self.input_range, "fused")
        now = self._clock.now(x, step)
        with torch.inference_mode(False), torch.enable_grad():
            leaf = usable(x.detach()).requires_grad_()
            outcome = self._take(replace(self._call(leaf, y, self._weights(leaf, y, now), now), mode="fused"))
        self._clock.begin(x, now, step is not None)
        self._clock.passed(now)
        assert outcome.grad is not None
        return outcome.value, outcome.grad

    def _forward(self, x: Tensor, y: Tensor | None, step: int | None) -> Tensor:
        check_call(x, y, self.terms, self.input_range, self.grad)
        now = self._clock.now(x, step)
        call = self._call(x, y, self._weights(x, y, now), now)
        with transforms_named(x):
            value = attach(call, self._take(call), self._skips)
        if call.needs_grad:
            self._clock.begin(x, now, step is not None)
            value.register_hook(lambda _: self._clock.passed(now))
        return value

    def _weights(self, x: Tensor, y: Tensor | None, step: int) -> dict[Term, float]:
        """Weights of the terms that run at a step; those of shares from what their gradients were, or are."""
        scheduled = {term: term.weight_at(step) for term in self.terms if term.runs_at(step)}
        if unknown := self._shares.unknown(scheduled):
            self._measure(x, y, unknown, step)
        factor = self.factor * (1.0 if self.budget is None else self.budget.factor)
        return {term: weight * factor * self._shares.weight(term) for term, weight in scheduled.items()}

    def _measure(self, x: Tensor, y: Tensor | None, terms: Sequence[Term], step: int) -> None:
        if y is None:
            raise InputError("a share of the gradient is relative to the L1 loss, so the loss needs references y.")
        with torch.inference_mode(False), torch.enable_grad(), unhooked():
            leaf = usable(x.detach()).requires_grad_()
            call = replace(self._call(leaf, y, dict.fromkeys(terms, 1.0), step), mode="fused", measure=True)
            outcome = gradient(call)
        self._note(call, replace(outcome, refused=None))  # of which the call itself tells
        self._shares.note(outcome.squares, call.weights, leaf, y)

    def _take(self, call: Call) -> Outcome:
        """Make a call and note what became of its terms."""
        outcome = gradient(call)
        if outcome.refused is not None and not call.needs_grad:
            raise InputError(f"CriticLoss needs finite images, but {outcome.refused}. Nothing can be scored.")
        if not is_recomputed():
            self._note(call, outcome)
        if call.measure and call.y is not None and self._shares.shares and not is_recomputed():
            self._shares.note(outcome.squares, call.weights, call.x, call.y)
        squares = outcome.squares if call.measure else self._record.squares
        weights = {term: call.weights.get(term, 0.0) for term in self.terms}
        self._record = Record(weights, outcome.scores, outcome.losses, squares)
        self._calls += 1
        return outcome

    def _note(self, call: Call, outcome: Outcome) -> None:
        if outcome.refused is not None:
            self._skips.add_images([term.label for term in call.running], outcome.refused)
        for term, what in outcome.bad.items():
            self._skips.add([term.label], what)

    def _call(self, x: Tensor, y: Tensor | None, weights: Mapping[Term, float], step: int) -> Call:
        check = self._calls % _CHECK_EVERY == 0
        intake = Intake(self.input_range, self.overshoot, self.seed, step, check, self.shift)
        y = None if y is None else usable(y.detach())
        project = self.budget is not None and self.budget.must_project
        call = Call(
            usable(x), y, weights, intake, self.grad, self.lean, self.micro_batch, project=project, tile=self.tile
        )
        due = self.share_every and (step % self.share_every == 0 or self._shares.moves(call.counting))
        return replace(call, measure=bool(call.needs_grad and due))

    def learn(
        self, x: Tensor, y: Tensor, *, step: int | None = None, anchors: Anchors | None = None
    ) -> dict[str, dict[str, float]]:
        """Let the joint critics learn from what the restorer gave; for after its step.

        Args:
            x: Restored images, (N, 3, H, W), in `input_range`; may still carry a graph, which is not followed.
            y: Ground truth, same shape.
            step: Training step; that of the next call of the loss if left out.
            anchors: Name of a labelled set, the same in all processes, to images in `input_range`, references or None,
                and labels (N,), in [0, 1] or so, higher is better: what keeps a critic to opinions.

        Returns:
            Label of each joint term to its losses; empty where it was not its turn, or images are not finite.

        Raises:
            InputError: if images are not what the loss accepts.
            NonFiniteLoss: if a critic's own gradient is not finite and `on_nonfinite` is `raise`.
        """
        return self._eagerly(self._learn, x, y, step, anchors)  # type: ignore[no-any-return]

    def _learn(self, x: Tensor, y: Tensor, step: int | None, anchors: Anchors | None) -> dict[str, dict[str, float]]:
        check_call(x, y, self.terms, self.input_range, "fused")
        now = self.step if step is None else whole(step)
        return self.teach(x, y, Intake(self.input_range, self.overshoot, self.seed, now, tile=self.tile), anchors)

    @property
    def report(self) -> dict[str, Row]:
        """Per term, of the last call: score, loss, weight, weighted, share, skipped.

        `share` is the term's part of the sum of gradient norms when last measured, None before. Waits for the device.
        """
        return self._record.rows(self.skipped)

    def term_gradients(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Gradient of each term alone per unit of weight, whatever its schedule, shaped like x.

        Args:
            x: Images of a legal size that differ from `y`.
            y: References.

        Raises:
            GradientError: naming every term that sends no gradient, or one that is not finite.
        """
        check_call(x, y, self.terms, self.input_range, "fused")
        terms = [term for term in self.terms if not term.spec.monitor]
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            calls = {term.label: replace(self._call(leaf, y, {term: 1.0}, 0), measure=False) for term in terms}
            alone = {label: fused(call).grad for label, call in calls.items()}
        gradients = {label: gradient for label, gradient in alone.items() if gradient is not None}
        check_gradients(gradients)
        return gradients

    def check_gradient(self, x: Tensor, y: Tensor | None = None) -> dict[str, float]:
        """Norms of `term_gradients`; raises GradientError as it does. For hosts to call at start-up."""
        return {label: float(gradient.norm()) for label, gradient in self.term_gradients(x, y).items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_eager": None}

    def extra_repr(self) -> str:
        """One line per term."""
        rows = [f"{t.label}: {t.critic.card.name} x {t.spec.weight:g} ({t.spec.shape})" for t in self.terms]
        return "\n".join([*rows, f"grad={self.grad!r}, micro_batch={self.micro_batch}"])
