"""Which step of the training a loss is in, where nobody tells it.

A step is an optimizer step: the calls before it share one number, however many micro-batches, outputs and
recomputations there are. torch tells of each step of its optimizers; where none updates what the loss trains, a
backward pass is a step.
"""

from __future__ import annotations

import gc
import logging
import operator
from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from perceptloss.errors import InputError

__all__ = ["Clock", "ignored", "is_recomputed", "whole"]

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
        self._mine: WeakSet[Optimizer] = WeakSet()  # those that update what the loss trains
        self._strangers: WeakSet[Optimizer] = WeakSet()  # others that stepped while calls were open
        self._knows_mine = self._follows_optimizer = self._is_told = False
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
        self.step = whole(step)
        self._start_counting()
        self._is_told = True

    def now(self, x: Tensor, step: int | None = None) -> int:
        """Step of a call: what it is told, or counted; a recomputation in the backward repeats the step of its call.

        Raises:
            InputError: if it is told something else than a whole number of at least 0.
        """
        if step is not None:
            return whole(step)
        if self._strangers:
            self._meet(x)
        step = self._last = self._last if is_recomputed() else self.step
        return step

    def _meet(self, x: Tensor) -> None:
        """Count the steps of strangers that update what the loss trains by now, as in a later phase of training."""
        leaves = _leaves_of(x)
        for optimizer in list(self._strangers):
            if not leaves.isdisjoint(_parameters(optimizer)):
                self._mine.add(optimizer)
                self.updated(optimizer)
        self._strangers.clear()

    def begin(self, x: Tensor, step: int, is_told: bool) -> None:
        """Take note of a call at a step, with a gradient to x."""
        if is_told:
            self._is_told = True
            if not is_recomputed():
                self.step = step
        elif self._first is None:
            self._first = step
            self._mine = _optimizers_of(x) if self.matters else WeakSet()
            self._knows_mine = self._follows_optimizer = bool(self._mine)
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
        is_first = self._first == 0 and (self.step == 0 or not self._follows_optimizer)  # of the steps counted here
        if is_first and self.timed and self._is_mine(optimizer) and not self._is_told:
            self._is_told = True
            _log.warning(
                "the optimizer goes on from an earlier run, but the schedule of %s began again at step 0: load what "
                "the loss saved (load_state, or accelerator.register_for_checkpointing), or pass step=.",
                ", ".join(self.timed),
            )

    def updated(self, optimizer: Optimizer) -> None:
        """Take note of a step of an optimizer."""
        if not self._is_mine(optimizer):
            if self._open is not None:
                self._strangers.add(optimizer)
            return
        self._waited = 0
        if self._first is not None and not self._follows_optimizer:  # what was counted till now is its first step
            self._follows_optimizer, self.step, self._open = True, self._first, self._first
        if self._open is not None:
            self._close(self._open)

    def _is_mine(self, optimizer: Optimizer) -> bool:
        return not self._knows_mine or optimizer in self._mine

    def _close(self, step: int) -> None:
        if self.step == step:
            self.step, self._open = step + 1, None


def whole(step: object) -> int:
    """A step, be it a number of Python, of numpy or in a tensor.

    Raises:
        InputError: if it is something else, or below 0.
    """
    try:
        number = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"a step is a whole number of at least 0, got {step!r}.")
    return number


ignored: WeakSet[Optimizer] = WeakSet()
"""Optimizers whose steps are none of the restorer's: those of joint critics."""
_clocks: WeakSet[Clock] = WeakSet()
_stepped: WeakSet[Optimizer] = WeakSet()
_resumed: WeakSet[Optimizer] = WeakSet()  # in their first step here, with a past of another process


@cache
def _listen() -> None:
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: Optimizer, *_: object) -> None:
    if torch.compiler.is_compiling() or optimizer in _stepped or optimizer in ignored:
        return
    _stepped.add(optimizer)
    if any(map(_has_past, optimizer.state.values())):
        _resumed.add(optimizer)


def _has_past(state: object) -> bool:
    """Whether the state of a parameter comes of steps: it counts some, or what it gathers is not zero any more."""
    if not isinstance(state, dict):  # some optimizers keep settings there
        return False
    gathered = [state["step"]] if "step" in state else state.values()
    return any(bool(torch.as_tensor(value).any()) for value in gathered if isinstance(value, (int, float, Tensor)))


def _after_step(optimizer: Optimizer, *_: object) -> None:
    if torch.compiler.is_compiling() or optimizer in ignored:
        return
    is_resumed = optimizer in _resumed
    _resumed.discard(optimizer)
    for clock in list(_clocks):
        if is_resumed:  # said after the step, because its closure may be what calls the loss
            clock.resumed(optimizer)
        clock.updated(optimizer)


def is_recomputed() -> bool:
    """Whether a backward pass is under way, which calls a forward again that was checkpointed."""
    return bool(torch._C._current_graph_task_id() != -1)


def _optimizers_of(x: Tensor) -> WeakSet[Optimizer]:
    """Living optimizers that update leaves of the graph of x."""
    leaves = _leaves_of(x)
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer))
    return WeakSet(optimizer for optimizer in found if not leaves.isdisjoint(_parameters(optimizer)))


def _leaves_of(x: Tensor) -> set[int]:
    """Identities of the leaves of the graph of x."""
    leaves, seen, nodes = {id(x)}, set[object](), [x.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            leaves.add(id(getattr(node, "variable", None)))
            nodes += [following for following, _ in node.next_functions]
    return leaves - {id(None)}


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]}
