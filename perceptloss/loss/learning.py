"""What a loss learns while a restorer trains: weights of shares, its budget, joint critics, counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import ConfigError
from perceptloss.inputs import all_finite, usable
from perceptloss.loss.budget import Budget
from perceptloss.loss.clock import Clock
from perceptloss.loss.evaluate import share_trunks
from perceptloss.loss.hidden import Hidden
from perceptloss.loss.joint.learner import Learner
from perceptloss.loss.report import Skips
from perceptloss.loss.shares import Shares
from perceptloss.loss.terms import OnNonFinite, Term

__all__ = ["Learning"]


class Learning(Hidden):
    """The part of `CriticLoss` that a checkpoint keeps.

    Args:
        terms: Of the loss, built.
        on_nonfinite: As for the loss.
        pixel_weight: As for the loss.
        shift: As for the loss.
        seed: As for the loss.

    Attributes:
        terms: The same.
        budget: What may be spent, and is; None without one.
        factor: Of all weights, for who reacts to alarms.
        learners: Label of each joint term to what teaches its critic.
    """

    budget: Budget | None = None
    factor: float = 1.0

    def __init__(
        self,
        terms: Sequence[Term],
        on_nonfinite: OnNonFinite,
        pixel_weight: float,
        shift: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)  # a tuple hides the critics from nn.Module
        joint = {term: term.spec.joint for term in self.terms if term.spec.joint is not None}
        whole = [term.critic for term, options in joint.items() if options.learns == "all"]
        share_trunks([term.critic for term in self.terms if term.critic not in whole])
        self.learners = {term.label: Learner(term.critic, options, seed) for term, options in joint.items()}
        self._shares, self._skips = Shares(self.terms, pixel_weight), Skips(on_nonfinite)
        timed = [term.label for term in self.terms if term.is_timed]
        self._clock = Clock(timed, matters=bool(timed or shift) or any(term.spec.crop for term in self.terms))

    @property
    def critics(self) -> list[Critic]:
        """The distinct critics, in order of the terms."""
        return list({id(term.critic): term.critic for term in self.terms}.values())

    @property
    def step(self) -> int:
        """Step of the next call that is not told one; see `CriticLoss.forward`."""
        return self._clock.step

    @step.setter
    def step(self, step: int) -> None:
        self._clock.set(step)

    @property
    def skipped(self) -> Counter[str]:
        """How often each term was left out, by label."""
        return self._skips.counts

    @property
    def on_nonfinite(self) -> OnNonFinite:
        """What happens to a term whose loss or gradient is not finite."""
        return self._skips.policy

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Learning:
        super()._apply(fn, recurse)

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_low = moved.is_floating_point() and moved.dtype.itemsize < 4 <= tensor.dtype.itemsize
            return tensor.to(moved.device) if is_low else moved

        for critic in self.critics:
            critic._apply(move)
        return self

    def teach(
        self,
        x: Tensor,
        y: Tensor,
        step: int | None = None,
        anchors: Mapping[str, tuple[Tensor, Tensor | None, Tensor]] | None = None,
    ) -> dict[str, dict[str, float]]:
        """A step of every joint critic, of checked images in [0, 1]; see `CriticLoss.learn`."""
        now = self.step if step is None else step
        x, y = (usable(image.detach()).float() for image in (x, y))
        if not all_finite(x, y):
            return {label: {} for label in self.learners}
        return {label: learner.learn(x, y, now, anchors) for label, learner in self.learners.items()}

    @property
    def is_learning(self) -> bool:
        """Whether `state` holds more than a step and counters."""
        return bool(self.learners or self._shares.shares or self.budget)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: step and counters of skipped terms, and what else it learned, where it does."""
        state: dict[str, Any] = {"step": self.step, "skipped": dict(self.skipped)}
        if self._shares.shares:
            state["shares"] = dict(self._shares.logs)
        if self.budget is not None:
            state["budget"] = self.budget.state()
        if self.learners:
            state["joint"] = {label: learner.state() for label, learner in self.learners.items()}
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ConfigError: if it is something else, or of other joint terms.
        """
        step, skipped, joint = state.get("step"), state.get("skipped"), state.get("joint", {})
        if not isinstance(step, int) or not isinstance(skipped, Mapping):
            got = ", ".join(map(repr, state)) or "nothing"
            raise ConfigError([f"expected a step and a mapping skipped, got {got}"], "the state of the loss")
        if joint.keys() != self.learners.keys():
            shown = (", ".join(map(repr, labels)) or "none" for labels in (self.learners, joint))
            problem = "the joint terms of this loss are {}, those of the checkpoint {}".format(*shown)
            raise ConfigError([problem], "the state of the loss")
        self.step, self._skips.counts = step, Counter(skipped)
        self._shares.logs = dict(state.get("shares", {}))
        if self.budget is not None and "budget" in state:
            self.budget.load_state(state["budget"])
        for label, learned in joint.items():
            self.learners[label].load_state(learned)
