"""Critics of single images as critics of stereo pairs: each view is judged, and the score is the mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from perceptloss.card import Card, Kind
from perceptloss.critic import Area, Critic

__all__ = ["EachView", "each_view_card", "side_by_side"]

V = TypeVar("V", bound="EachView")
_KINDS: dict[Kind, Kind] = {"fr": "stereo-fr", "nr": "stereo-nr"}


def each_view_card(card: Card) -> Card:
    """The card of a critic when each view of a pair is judged; that of a critic of pairs as it is."""
    return replace(card, kind=_KINDS.get(card.kind, card.kind))


def side_by_side(pair: Tensor) -> Tensor:
    """Both views of pairs (N, 6, ...) as one batch (2 N, 3, ...): all left ones, then all right ones."""
    return torch.cat(pair.chunk(2, 1))


class EachView(Critic):
    """A critic of single images, asked of each view of a pair (N, 6, H, W); the score is the mean of the two.

    Such a critic does not see whether the views agree.

    Args:
        critic: Of single images; it learns and is frozen with this one.

    Example:
        >>> critic = EachView(create_critic("ssim"))
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 6, 64, 96)).sum().backward()
    """

    def __init__(self, critic: Critic) -> None:
        super().__init__(each_view_card(critic.card))
        self.of_view = critic
        self.weights_id, self.overshoot, self.is_turned = critic.weights_id, critic.overshoot, critic.is_turned
        self.is_frozen = critic.is_frozen

    def _views(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        self.of_view.is_frozen, self.of_view.hold_weights = self.is_frozen, self.hold_weights
        return side_by_side(x), None if y is None else side_by_side(y)

    def read(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        score, linear = self.of_view.read(*self._views(x, y))
        return score.view(2, -1).mean(0), linear.view(2, -1).mean(0)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.of_view.score(*self._views(x, y)).view(2, -1).mean(0)

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.of_view.linear(*self._views(x, y)).view(2, -1).mean(0)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        """Sums of the left view beside those of the right one."""
        return torch.cat(self.of_view.tally(*self._views(x, y), area).chunk(2), 1)

    def settle(self, sums: Tensor) -> Tensor:
        return self.of_view.settle(side_by_side(sums)).view(2, -1).mean(0)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Mean of the maps of the views."""
        maps = self.of_view.quality_map(*self._views(x, y))
        return maps.unflatten(0, (2, -1)).mean(0)

    @property
    def has_maps(self) -> bool:
        return self.of_view.has_maps

    @property
    def map_better(self) -> str:  # type: ignore[override]
        return self.of_view.map_better

    @property
    def signature(self) -> str:
        return f"{self.of_view.signature}|views:mean"

    def as_published(self: V) -> V:
        self.of_view = self.of_view.as_published()
        return self
