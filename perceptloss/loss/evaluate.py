"""Scores and losses of several terms on one batch, running each shared trunk once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceptloss.critic import Critic
from perceptloss.errors import InputError
from perceptloss.loss.terms import Term, shaped
from perceptloss.networks.trunks import Features, Keep, Trunk, TrunkCritic, features

__all__ = ["Box", "Result", "crop_box", "evaluate", "share_trunks"]

_OF_NATURAL = ("distance", "deficit")
Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Result:
    """What one term says of one batch: natural scores and losses, each (N,)."""

    score: Tensor
    loss: Tensor


@dataclass
class _Arms:
    """Prepared images of one run of a trunk, and the taps that its critics read."""

    trunk: Trunk
    x: Tensor
    y: Tensor | None
    critic: TrunkCritic
    taps: set[str]
    fx: Features | None = None
    fy: Features | None = None

    def run(self, keep: Keep) -> None:
        taps = tuple(sorted(self.taps))
        self.fx = features(self.trunk, self.x, taps, self.critic.precision, keep)
        self.fy = {}
        if self.y is not None:
            with torch.no_grad():
                self.fy = features(self.trunk, self.y, taps, self.critic.precision)


def share_trunks(critics: Sequence[Critic]) -> None:
    """Let critics whose trunks compute the same thing hold one and the same trunk."""
    seen: list[Trunk] = []
    for critic in critics:
        if isinstance(critic, TrunkCritic):
            twin = next((trunk for trunk in seen if trunk.same_as(critic.trunk)), None)
            if twin is None:
                seen.append(critic.trunk)
            else:
                critic.trunk = twin


def evaluate(
    terms: Sequence[Term],
    x: Tensor,
    y: Tensor | None,
    boxes: Sequence[Box | None],
    keep: Keep = "all",
    check_range: bool = False,
) -> list[Result]:
    """Evaluate terms on one batch.

    Args:
        terms: What to evaluate.
        x: Judged images in [0, 1], (N, 3, H, W).
        y: References, same shape, or None.
        boxes: For each term the part of the images it looks at.
        keep: What trunks keep for the backward.
        check_range: Whether to look at the range of `y` (synchronises with the device).

    Returns:
        A result per term, in order.
    """
    for term in terms:
        term.critic.refreeze()
    with torch.autocast(x.device.type, enabled=False):
        views = [_view(term, x, y, box, check_range) for term, box in zip(terms, boxes, strict=True)]
        arms = _arms(terms, views, boxes)
        for arm in {id(arm): arm for arm in arms if arm is not None}.values():
            arm.run(keep)
        return [_judge(term, *view, arm, keep) for term, view, arm in zip(terms, views, arms, strict=True)]


def _view(term: Term, x: Tensor, y: Tensor | None, box: Box | None, check_range: bool) -> tuple[Tensor, Tensor | None]:
    if term.is_relative and y is None and term.critic.card.identity is None:
        raise InputError(
            f"term {term.label!r} (shape {term.spec.shape!r}) compares with the reference: give y, or choose 'sigmoid'."
        )
    if box is not None:
        top, left, height, width = box
        x = x[..., top : top + height, left : left + width]
        y = None if y is None else y[..., top : top + height, left : left + width]
    if check_range and y is not None:
        term.critic.check_range("y", y)
    x, y = term.critic.admit(x, y, check_range=False)
    needs_y = term.critic.card.needs_reference or (term.is_relative and term.critic.card.identity is None)
    return x, y if needs_y else None


def _arms(
    terms: Sequence[Term], views: Sequence[tuple[Tensor, Tensor | None]], boxes: Sequence[Box | None]
) -> list[_Arms | None]:
    """One `_Arms` per distinct trunk, precision and view; terms that share it get the same object."""
    shared: dict[tuple[object, ...], _Arms] = {}
    arms: list[_Arms | None] = []
    for term, (x, y), box in zip(terms, views, boxes, strict=True):
        critic = term.critic
        if not isinstance(critic, TrunkCritic):
            arms.append(None)
            continue
        px = critic.prepare(x)
        with torch.no_grad():
            py = None if y is None else critic.prepare(y)
        owner: object = id(critic) if px is not x else "as given"
        key = (id(critic.trunk), critic.precision, critic.overshoot, box, owner)
        arm = shared.setdefault(key, _Arms(critic.trunk, px, py, critic, set()))
        arm.taps.update(critic.taps)
        if arm.y is None:
            arm.y = py
        arms.append(arm)
    return arms


def _judge(term: Term, x: Tensor, y: Tensor | None, arm: _Arms | None, keep: Keep) -> Result:
    critic, card = term.critic, term.critic.card
    is_nr = not card.needs_reference
    run: Callable[..., tuple[Tensor, Tensor]]
    arguments: tuple[Any, ...]
    if arm is None:
        run, arguments = critic.read, (x, None if is_nr else y)
    else:
        assert isinstance(critic, TrunkCritic) and arm.fx is not None and arm.fy is not None
        run, arguments = critic.read_taps, (x, None if is_nr else y, arm.fx, {} if is_nr else arm.fy)
    if keep == "stages" and torch.is_grad_enabled():
        score, linear = checkpoint(run, *arguments, use_reentrant=False)
    else:
        score, linear = run(*arguments)
    anchor: Tensor | float = 0.0
    if term.is_relative:
        anchor = card.identity if card.identity is not None else _anchor(critic, y, arm)
    return Result(score, shaped(term.spec, score if term.spec.shape in _OF_NATURAL else linear, anchor))


def _anchor(critic: Critic, y: Tensor | None, arm: _Arms | None) -> Tensor:
    """Linear read-out of the references themselves, (N,), without a graph."""
    assert y is not None
    reference = y if critic.card.needs_reference else None
    with torch.no_grad():
        if arm is None:
            return critic.linear(y, reference)
        assert isinstance(critic, TrunkCritic) and arm.fy is not None
        return critic.compare(y, reference, arm.fy, {} if reference is None else arm.fy)


def crop_box(term: Term, x: Tensor, seed: int, step: int) -> Box | None:
    """Place of a term's random crop.

    Decided by seed, step and side alone, so that resumed runs repeat it and terms share it.
    """
    side = term.spec.crop
    height, width = x.shape[-2:]
    if side is None or side == height == width:
        return None
    if side > min(height, width):
        raise InputError(f"term {term.label!r} crops {side}x{side}, but the images are {height}x{width}.")
    generator = torch.Generator().manual_seed(_mixed(seed, step, term.spec.crop or 0))
    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator, device="cpu")) for n in (height, width))
    return top, left, side, side


def _mixed(*numbers: int) -> int:
    """A 63-bit number from a few integers, the same in every process."""
    value = 0xCBF29CE484222325
    for number in numbers:
        value = ((value ^ (number & 0xFFFFFFFF)) * 0x100000001B3) % 2**63
    return value
