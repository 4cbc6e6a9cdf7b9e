"""Which step of the training a loss is in, where nobody tells it.

A step is an optimizer step: the calls before it share one number, however many micro-batches, outputs and
recomputations there are. torch tells of each step of its optimizers; where none updates what the loss trains, a
backward pass is a step.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

__all__ = ["Clock", "is_recomputed"]

_log = logging.getLogger(__name__)
_PATIENCE = 1000  # backward passes without a step of the optimizer that was found


class Clock:
    """Counts the steps of one loss.

    Args:
        timed: Names of terms that follow a schedule; of these it warns if their schedule begins again in a resumed run.
        matters: Whether anything depends on the step, so that the optimizer is worth a search before its first step.

    Attributes:
        step: Of the next call that is not told one.
    """

    def __init__(self, timed: Iterable[str] = (), *, matters: bool = True) -> None:
        self.timed, self.matters = tuple(timed), matters
        self.step = 0
        self._start_counting()

    def _start_counting(self) -> None:
        self._last = self.step
        self._first: int | None = None  # step of the first counted call
        self._open: int | None = None  # step of the calls since the last one that is over
        self._optimizers: WeakSet[Optimizer] = WeakSet()  # those that update what the loss trains, where they are found
        self._follows_optimizer = self._is_told = False
        self._waited = 0
        _listen()
        _clocks.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"timed": self.timed, "matters": self.matters, "step": self.step}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_counting()

    def set(self, step: int) -> None:
        """Go on from a step that somebody knows."""
        self.step = step
        self._start_counting()
        self._is_told = True

    def now(self, step: int | None = None) -> int:
        """Step of a call: what it is told, or counted; a recomputation in the backward repeats the step of its call."""
        if step is None:
            step = self._last if is_recomputed() else self.step
        self._last = step
        return step

    def begin(self, x: Tensor, step: int, is_told: bool) -> None:
        """Take note of a call at a step, with a gradient to x."""
        if is_told:
            self._is_told = True
            if not is_recomputed():
                self.step = step
        elif self._first is None:
            self._first = step
            self._optimizers = _optimizers_of(x) if self.matters else WeakSet()
            self._follows_optimizer = bool(self._optimizers)
        self._open = step

    def passed(self, step: int) -> None:
        """Take note of the backward of a call at a step."""
        if not self._follows_optimizer:
            self._close(step)
            return
        self._waited += 1
        if self._waited == _PATIENCE:
            _log.warning(
                "no optimizer step was seen in %d backward passes: schedules stand still at step %d. Pass step= to the "
                "loss.",
                *(_PATIENCE, self.step),
            )

    def resumed(self, optimizer: Optimizer) -> None:
        """Take note of the first step of an optimizer that has a past of another process."""
        if self._first == 0 and self.timed and self._is_mine(optimizer) and not self._is_told:
            self._is_told = True
            _log.warning(
                "the optimizer goes on from an earlier run, but the schedule of %s began again at step 0: load what "
                "the loss saved (load_state, or accelerator.register_for_checkpointing), or pass step=.",
                ", ".join(self.timed),
            )

    def updated(self, optimizer: Optimizer) -> None:
        """Take note of a step of an optimizer."""
        if not self._is_mine(optimizer):
            return
        self._waited = 0
        if self._first is not None and not self._follows_optimizer:  # what was counted till now is its first step
            self._follows_optimizer, self.step, self._open = True, self._first, self._first
        if self._open is not None:
            self._close(self._open)

    def _is_mine(self, optimizer: Optimizer) -> bool:
        return not self._optimizers or optimizer in self._optimizers

    def _close(self, step: int) -> None:
        if self.step == step:
            self.step, self._open = step + 1, None


_clocks: WeakSet[Clock] = WeakSet()
_stepped: WeakSet[Optimizer] = WeakSet()


@cache
def _listen() -> None:
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: Optimizer, *_: object) -> None:
    if torch.compiler.is_compiling() or optimizer in _stepped:
        return
    _stepped.add(optimizer)
    if any(float(state.get("step", 1)) > 0 for state in optimizer.state.values() if state):
        for clock in list(_clocks):
            clock.resumed(optimizer)


def _after_step(optimizer: Optimizer, *_: object) -> None:
    if not torch.compiler.is_compiling():
        for clock in list(_clocks):
            clock.updated(optimizer)


def is_recomputed() -> bool:
    """Whether a backward pass is under way, which calls a forward again that was checkpointed."""
    return bool(torch._C._current_graph_task_id() != -1)


def _optimizers_of(x: Tensor) -> WeakSet[Optimizer]:
    """Living optimizers that update leaves of the graph of x."""
    leaves, seen, nodes = {id(x)}, set[object](), [x.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            leaves.add(id(getattr(node, "variable", None)))
            nodes += [following for following, _ in node.next_functions]
    leaves.discard(id(None))
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer))
    return WeakSet(optimizer for optimizer in found if not leaves.isdisjoint(_parameters(optimizer)))


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]}
