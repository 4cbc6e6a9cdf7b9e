"""Scores and losses of several terms on one batch, running each shared trunk once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceptloss.critic import Critic, Overshoot
from perceptloss.errors import InputError
from perceptloss.inputs import check_pixels
from perceptloss.loss.terms import Term, shaped
from perceptloss.networks.tiles import side_for
from perceptloss.networks.trunks import Features, Keep, Trunk, TrunkCritic, features

__all__ = ["Intake", "Result", "admitted", "evaluate", "part_of", "share_trunks", "shift_of", "taken_in"]

_OF_NATURAL = ("distance", "deficit")
_Box = tuple[int, int, int]  # top, left, side


@dataclass(frozen=True)
class Result:
    """What one term says of one batch: natural scores and losses, each (N,)."""

    score: Tensor
    loss: Tensor


@dataclass
class _Arms:
    """Both arms of one run of a trunk: prepared images, and the taps that its critics read."""

    critic: TrunkCritic
    x: Tensor
    y: Tensor | None
    is_trained: bool = False
    taps: set[str] = field(default_factory=set)
    fx: Features = field(default_factory=dict)
    fy: Features = field(default_factory=dict)

    def run(self, keep: Keep) -> None:
        trunk, taps, precision = self.critic.trunk, tuple(sorted(self.taps)), self.critic.precision
        with torch.set_grad_enabled(self.is_trained and torch.is_grad_enabled()):
            self.fx = features(trunk, self.x, taps, precision, keep)
        if self.y is not None:
            with torch.no_grad():
                self.fy = features(trunk, self.y, taps, precision)


@dataclass
class _View:
    """What a term sees: its part of the images, admitted by its critic, y only if it is used, and trunk features."""

    term: Term
    x: Tensor
    y: Tensor | None
    box: _Box | None
    arms: _Arms | None = None

    @property
    def reference(self) -> Tensor | None:
        """What the critic compares with; `y` is there for the anchor of critics without reference, too."""
        return self.y if self.term.critic.card.needs_reference else None


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


@dataclass(frozen=True)
class Intake:
    """How a loss takes in its images.

    Attributes:
        input_range: Range of x and y, (0, 1) or (-1, 1).
        overshoot: What happens to x outside of it.
        seed: Of the places of random crops.
        step: Of the training, which moves them.
        check_range: Whether to look at the range of y, which waits for the device.
        shift: Lines and columns that are left out, a random number of them at the top and at the left.
        tile: Side of the random part that a term without a crop sees of larger images; None: all of them.
    """

    input_range: tuple[float, ...] = (0, 1)
    overshoot: Overshoot = "pass"
    seed: int = 0
    step: int = 0
    check_range: bool = False
    shift: int = 0
    tile: int | None = None


def evaluate(terms: Sequence[Term], x: Tensor, y: Tensor | None, intake: Intake, keep: Keep = "all") -> list[Result]:
    """Evaluate terms on one batch.

    Args:
        terms: What to evaluate.
        x: Judged images, (N, 3, H, W), in the range that `intake` says.
        y: References, same shape, or None.
        intake: How to take in the images.
        keep: What trunks keep for the backward.

    Returns:
        A result per term, in order.

    Raises:
        InputError: if images are not what a critic accepts.
    """
    for term in terms:
        term.critic.refreeze()
    with torch.autocast(x.device.type, enabled=False):
        x, y = taken_in(x, intake), None if y is None else _unit_range(y.detach(), intake)
        if intake.shift:
            place = (slice(None), *shift_of(x, intake))
            x, y = x[place], None if y is None else y[place]
        if intake.overshoot == "raise":
            check_pixels(terms[0].critic.card, "x", x)
        views = [_view(term, x, y, intake) for term in terms]
        for arms in _shared_arms(views):
            arms.run(keep)
        return [_judge(view, keep) if not view.term.spec.monitor else _watch(view, keep) for view in views]


def admitted(term: Term, x: Tensor, y: Tensor | None, intake: Intake) -> tuple[Tensor, Tensor | None]:
    """Judged images and references of a term without a crop as its critic is given them."""
    x, y = taken_in(x, intake), None if y is None else _unit_range(y.detach(), intake)
    if intake.overshoot == "raise":
        check_pixels(term.critic.card, "x", x)
    view = _view(term, x, y, intake)
    return view.x, view.y


def shift_of(image: Tensor, intake: Intake) -> tuple[slice, slice, slice]:
    """All but `shift` lines and columns, from a place that seed and step decide."""
    if not intake.shift:
        return (slice(None),) * 3
    height, width = (n - intake.shift for n in image.shape[-2:])
    if min(height, width) < 1:
        raise InputError(f"shift {intake.shift} leaves nothing of images of {image.shape[-2]}x{image.shape[-1]}.")
    generator = torch.Generator().manual_seed(_mixed(intake.seed, intake.step, 0))
    top, left = torch.randint(intake.shift + 1, (2,), generator=generator, device="cpu").tolist()
    return slice(None), slice(top, top + height), slice(left, left + width)


def taken_in(x: Tensor, intake: Intake) -> Tensor:
    """Judged images in [0, 1], but for what overshoots and may."""
    x = _unit_range(x, intake)
    return x.clamp(0, 1) if intake.overshoot == "clamp" else x


def part_of(term: Term, x: Tensor, y: Tensor | None, intake: Intake) -> tuple[Tensor, Tensor | None, _Box | None]:
    """The part of the images that a term looks at, in colour, and where it is if it is not all of them."""
    box = _crop_box(term, x.shape[-2], x.shape[-1], intake)
    if box is not None:
        top, left, side = box
        part = (..., slice(top, top + side), slice(left, left + side))
        x, y = x[part], None if y is None else y[part]
    if term.spec.grey == "replicate" and x.shape[1] == 1:
        x, y = x.expand(-1, 3, -1, -1), None if y is None else y.expand(-1, 3, -1, -1)
    return x, y, box


def _unit_range(image: Tensor, intake: Intake) -> Tensor:
    return image if intake.input_range == (0, 1) else (image + 1) / 2


def _view(term: Term, x: Tensor, y: Tensor | None, intake: Intake) -> _View:
    needs_anchor = term.is_relative and term.critic.card.identity is None
    if needs_anchor and y is None:
        raise InputError(
            f"term {term.label!r} (shape {term.spec.shape!r}) compares with the reference: give y, or choose 'sigmoid'."
        )
    x, y, box = part_of(term, x, y, intake)
    if intake.check_range and y is not None:
        check_pixels(term.critic.card, "y", y)
    x, y = term.critic.admit(x, y, check_range=False)
    is_shown = isinstance(term.critic, TrunkCritic) and term.critic.is_shown_references
    return _View(term, x, y if term.critic.card.needs_reference or needs_anchor or is_shown else None, box)


def _crop_box(term: Term, height: int, width: int, intake: Intake) -> _Box | None:
    """Place of a term's random crop.

    Decided by seed, step and side alone, so that resumed runs repeat it and terms share it.
    """
    side, card = term.spec.crop, term.critic.card
    tile = side_for(card, intake.tile)
    if side is None and tile is not None and max(height, width) > tile:
        side = min(height, width, tile) // card.multiple_of * card.multiple_of
    if side is None or side == height == width:
        return None
    if side > min(height, width):
        raise InputError(f"term {term.label!r} crops {side}x{side}, but the images are {height}x{width}.")
    generator = torch.Generator().manual_seed(_mixed(intake.seed, intake.step, side))
    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator, device="cpu")) for n in (height, width))
    return top, left, side


def _mixed(*numbers: int) -> int:
    """A 63-bit number from a few integers, the same in every process."""
    value = 0xCBF29CE484222325
    for number in numbers:
        value = ((value ^ (number & 0xFFFFFFFF)) * 0x100000001B3) % 2**63
    return value


def _shared_arms(views: Sequence[_View]) -> Iterable[_Arms]:
    """Give views of one trunk, precision and place the same arms, and return each once."""
    shared: dict[tuple[object, ...], _Arms] = {}
    for view in views:
        critic = view.term.critic
        if not isinstance(critic, TrunkCritic):
            continue
        px, py = critic.prepare_both(view.x, view.y)
        owner: object = id(critic) if px is not view.x else "as given"
        key = (id(critic.trunk), critic.precision, critic.overshoot, view.box, owner)
        view.arms = shared.setdefault(key, _Arms(critic, px, py))
        view.arms.taps.update(critic.taps)
        view.arms.is_trained |= not view.term.spec.monitor
        if view.arms.y is None:
            view.arms.y = py
    return shared.values()


@torch.no_grad()
def _watch(view: _View, keep: Keep) -> Result:
    return _judge(view, keep)


def _judge(view: _View, keep: Keep) -> Result:
    spec, critic, card, arms = view.term.spec, view.term.critic, view.term.critic.card, view.arms
    run: Callable[..., tuple[Tensor, Tensor]] = critic.read
    arguments: tuple[Any, ...] = (view.x, view.reference)
    if arms is not None:
        assert isinstance(critic, TrunkCritic)
        run, arguments = critic.read_taps, (*arguments, arms.fx, arms.fy if card.needs_reference else {})
    if keep == "stages" and torch.is_grad_enabled():
        score, linear = checkpoint(run, *arguments, use_reentrant=False)
    else:
        score, linear = run(*arguments)
    anchor: Tensor | float = 0.0
    if view.term.is_relative:
        anchor = _anchor(view) if card.identity is None else card.identity
    return Result(score, shaped(spec, score if spec.shape in _OF_NATURAL else linear, anchor))


def _anchor(view: _View) -> Tensor:
    """Linear read-out of the references themselves, (N,), without a graph."""
    critic, y, arms = view.term.critic, view.y, view.arms
    assert y is not None
    with torch.no_grad():
        if arms is None:
            return critic.linear(y, view.reference)
        assert isinstance(critic, TrunkCritic)
        return critic.compare(y, view.reference, arms.fy, arms.fy if critic.card.needs_reference else {})
