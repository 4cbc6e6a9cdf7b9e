"""What an objective sees of a batch, and what it is to the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from perceptloss import Card, Critic
from perceptloss.networks.trunks import Features
from perceptloss.teach.run.sources import Source

__all__ = ["Judged", "Look", "Objective", "Reads", "own", "plain"]

_TENSORS = ("mask", "ranker")  # options that no configuration can give


@dataclass(frozen=True)
class Judged:
    """The images of one source in one step, of all processes: qualities, and the columns of `Batch`.

    Attributes:
        features: Of `critic.tap`, (N, ...); None without.
        looked: What the objective's own look at the images gave, (N, ...) each.
        card: Of the critic.
    """

    q: Tensor
    features: Tensor | None
    target: Tensor
    content: Tensor
    reference: Tensor
    group: Tensor
    level: Tensor
    kind: Tensor
    card: Card
    looked: tuple[Tensor, ...] = ()

    def labelled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Qualities and targets of the images that have one, and which these are."""
        known = torch.isfinite(self.target)
        return self.q[known], self.target[known], known


class Reads(Protocol):
    """What a look may ask: the critic, qualities (N,) of images and references, scores of another critic, and taps."""

    critic: Critic
    read: str
    sign: int

    def quality(self, x: Tensor, y: Tensor | None) -> Tensor: ...

    def score_by(self, critic: Critic, x: Tensor, y: Tensor | None) -> Tensor: ...

    def taps(self, image: Tensor) -> Features: ...


Loss = Callable[[Judged, nn.Module | None, Mapping[str, Any]], Tensor]
Part = Callable[[Mapping[str, Any], Source, int], nn.Module]
Look = Callable[[Reads, Tensor, Tensor | None, Mapping[str, Any]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Objective:
    """An objective of a batch.

    Attributes:
        loss: Of judged images, the part with parameters if there is one, and the options.
        options: Names of the options.
        needs: What a source must know; see `Source.gives`.
        part: Makes the parameters that belong to it and not to the critic.
        look: What it asks of the critic besides the score, (N, ...) each.
        is_classification: For weighing by uncertainty.
    """

    loss: Loss
    options: tuple[str, ...]
    needs: frozenset[str] = frozenset({"target"})
    part: Part | None = None
    look: Look | None = None
    is_classification: bool = False


def plain(function: Callable[..., Tensor]) -> Objective:
    """A function of qualities and targets."""
    options = tuple(o for o in list(inspect.signature(function).parameters)[2:] if o not in _TENSORS)

    def loss(judged: Judged, part: nn.Module | None, given: Mapping[str, Any]) -> Tensor:
        q, target, _ = judged.labelled()
        return function(q, target, **given)

    return Objective(loss, options)


def own(
    function: Callable[..., Tensor],
    needs: str,
    part: Part | None = None,
    look: Look | None = None,
    *,
    is_classification: bool = False,
) -> Objective:
    """A function of judged images (and of its part)."""

    def loss(judged: Judged, made: nn.Module | None, given: Mapping[str, Any]) -> Tensor:
        return function(judged, **given) if made is None else function(judged, made, **given)

    options = tuple(inspect.signature(function).parameters)[1 if part is None else 2 :]
    return Objective(loss, options, frozenset(needs.split()), part, look, is_classification)
