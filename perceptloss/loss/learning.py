"""What a loss learns while a restorer trains: weights of shares, its budget, joint critics, counters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.inputs import all_finite, usable
from perceptloss.loss.budget import Budget
from perceptloss.loss.checks import check_anchors
from perceptloss.loss.clock import Clock
from perceptloss.loss.evaluate import Intake, part_of, share_trunks, taken_in
from perceptloss.loss.hidden import Hidden
from perceptloss.loss.joint.learner import Learner
from perceptloss.loss.processes import agreed
from perceptloss.loss.report import Skips
from perceptloss.loss.shares import Shares
from perceptloss.loss.terms import OnNonFinite, Term

__all__ = ["Anchors", "Learning"]

_log = logging.getLogger(__name__)


Anchors = Mapping[str, tuple[Tensor, Tensor | None, Tensor]]
"""Name of a labelled set to images, references or None, and labels (N,)."""


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
        if problems := self._common_parameters():
            raise ConfigError(problems, "joint")
        self._shares, self._skips = Shares(self.terms, pixel_weight), Skips(on_nonfinite)
        timed = [term.label for term in self.terms if term.is_timed]
        matters = bool(timed or shift or joint) or any(term.spec.crop for term in self.terms)
        self._clock = Clock(timed, matters=matters)

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
        for learner in self.learners.values():
            learner.move(move)
        return self

    def _common_parameters(self) -> list[str]:
        """Which joint critics would change what another term counts with."""
        return [
            f"the critic of {label!r} learns, and shares parameters with that of {term.label!r}: give each its own"
            for label, learner in self.learners.items()
            for term in self.terms
            if term.label != label
            and not term.spec.monitor
            and not {id(p) for p in learner.parameters}.isdisjoint(map(id, term.critic.parameters()))
        ]

    @torch.inference_mode(False)
    def teach(
        self, x: Tensor, y: Tensor | None, intake: Intake, anchors: Anchors | None = None
    ) -> dict[str, dict[str, float]]:
        """A step of every joint critic, of checked images; see `CriticLoss.learn`."""
        if y is None:
            raise InputError("learn(x, y) needs the ground truth y: a critic learns what x has not of it.")
        check_anchors({} if anchors is None else anchors, intake.input_range)
        x, y = (usable(image.detach()) for image in (x, y))
        # a step adds up the gradients of all processes, so that all take it or none
        if not self.learners or not agreed(len(x) > 0 and all_finite(x, y)):
            return {label: {} for label in self.learners}
        x, y = (taken_in(image.to(torch.promote_types(image.dtype, torch.float32)), intake) for image in (x, y))
        labelled = {
            name: (taken_in(images, intake), None if references is None else taken_in(references, intake), labels)
            for name, (images, references, labels) in (anchors or {}).items()
        }
        found = {}
        for term in self.terms:
            if (learner := self.learners.get(term.label)) is not None:
                seen, reference, _ = part_of(term, x, y, intake)
                assert reference is not None
                found[term.label] = learner.learn(seen, reference, intake.step, labelled)
                if learner.is_skipped:
                    self._skips.add([term.label], "own gradient")
        return found

    def learns_at(self, step: int) -> bool:
        """Whether it is the turn of a joint critic, so that labelled images would be used."""
        return any(step % learner.joint.every == 0 for learner in self.learners.values())

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
        if not isinstance(step, int) or not isinstance(skipped, Mapping) or not isinstance(joint, Mapping):
            got = ", ".join(map(repr, state)) or "nothing"
            raise ConfigError([f"expected a step and a mapping skipped, got {got}"], "the state of the loss")
        if joint.keys() != self.learners.keys():
            shown = (", ".join(map(repr, labels)) or "none" for labels in (self.learners, joint))
            problem = "the joint terms of this loss are {}, those of the checkpoint {}".format(*shown)
            raise ConfigError([problem], "the state of the loss")
        self.step, self._skips.counts = step, Counter(skipped)
        self._shares.logs = dict(state.get("shares", {}))
        if self.budget is not None:
            if "budget" in state:
                self.budget.load_state(state["budget"])
            elif step:
                _log.warning("the checkpoint had no budget: that of this loss is held against what it is told next")
        for label, learned in joint.items():
            self.learners[label].load_state(learned)
