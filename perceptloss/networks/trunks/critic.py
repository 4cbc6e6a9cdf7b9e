"""The base of critics that read features of a trunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from perceptloss.critic import Critic, Precision
from perceptloss.networks.trunks.trunk import Keep, Trunk

__all__ = ["Features", "TrunkCritic", "features", "references_kept"]

Features = Mapping[str, Tensor]
_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrunkCritic(Critic):
    """A critic that compares features of a trunk, which several critics of one loss may share.

    Subclasses implement `compare`; `score` and the shared evaluation of `CriticLoss` both call it.
    """

    trunk: Trunk
    taps: tuple[str, ...] = ()
    precision: Precision = "fp32"
    is_shown_references: ClassVar[bool] = False
    """Whether a loss shows it what images should be even if its score does not compare: to `prepare_both`."""
    keeps_reference: bool = False
    """Whether taps of the last reference are kept for further images that are compared with it: `references_kept`."""
    _last: tuple[Tensor, tuple[object, ...], Features] | None = None

    def prepare(self, image: Tensor) -> Tensor:
        """What the trunk is fed; the image itself unless the system shrinks it first."""
        return image

    def prepare_both(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`prepare` of images of a loss, and of what they should be, without a graph."""
        with torch.no_grad():
            prepared = None if y is None else self.prepare(y)
        return self.prepare(x), prepared

    def _look_again(self, y: Tensor) -> Mapping[str, Tensor]:
        """Taps of a reference, run once while it is the same memory, unchanged, however often `expand` repeats it."""
        once = y[:1] if y.stride(0) == 0 else y
        place = _place(once)
        if self._last is None or self._last[1] != place:
            self._last = None
            self._last = once, place, self.look(once)  # with it, so that nothing else comes to lie there
        taps = self._last[2]
        return taps if once is y else {name: tap.expand(len(y), *tap.shape[1:]) for name, tap in taps.items()}

    def look(self, image: Tensor) -> dict[str, Tensor]:
        """Taps of an image, as `compare` is given them."""
        return features(self.trunk, self.prepare(image), self.taps, self.precision)

    def look_at(self, x: Tensor, y: Tensor) -> tuple[Features, Features]:
        """Taps of both images; those of the reference with a graph only if the trunk learns from it."""
        fx = self.look(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):  # both arms teach a trunk
            return fx, self._look_again(y) if self.keeps_reference else self.look(y)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        """Scores (N,) from images and their taps; linear read-outs, if the critic defines `squash`.

        Args:
            x: Judged images (not what `prepare` made of them).
            y: References, or None.
            fx: Taps of `x`, name to (N, C, h, w), in the critic's own precision.
            fy: Taps of `y`; empty if there is no reference.
        """
        raise NotImplementedError

    def read_taps(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        """Score and linear read-out; to be overridden where the score is more than `squash` of the read-out."""
        linear = self.compare(x, y, fx, fy)
        return self.squash(linear), linear

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read(x, y)[0]

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read(x, y)[1]

    def read(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if y is None or not self.card.needs_reference:
            return self.read_taps(x, None, self.look(x), {})
        return self.read_taps(x, y, *self.look_at(x, y))


def _place(image: Tensor) -> tuple[object, ...]:
    version = None if image.is_inference() else image._version
    return image.data_ptr(), image.shape, image.stride(), image.dtype, version


@contextmanager
def references_kept(critics: Sequence[Critic]) -> Iterator[None]:
    """Keep the features of a reference meanwhile, for images compared with it one after another."""
    kept = [critic for critic in critics if isinstance(critic, TrunkCritic)]
    try:
        for critic in kept:
            critic.keeps_reference = True
        yield
    finally:
        for critic in kept:
            critic.keeps_reference, critic._last = False, None


def features(
    trunk: Trunk, image: Tensor, taps: tuple[str, ...], precision: Precision = "fp32", keep: Keep = "all"
) -> dict[str, Tensor]:
    """Run a trunk, in low precision if asked, and return its taps in the image's own type."""
    if precision == "fp32":
        return trunk(image, taps, keep=keep)
    low = trunk(image, taps, keep=keep, dtype=_LOW[precision])
    return {name: tap.to(image.dtype) for name, tap in low.items()}
