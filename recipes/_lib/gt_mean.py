"""Scores after the brightness of the ground truth is given to the output, as low-light papers report them."""

from __future__ import annotations

from torch import Tensor

from perceptloss import Critic
from perceptloss.networks.functional import mix_channels

__all__ = ["GTMean"]

_GREY = ((0.299, 0.587, 0.114),)  # BT.601
_DARK = 1e-6


class GTMean(Critic):
    """A critic with reference that sees an output scaled so that its mean grey is the reference's, then clamped.

    Its signature ends in `gt-mean`: such scores say nothing of exposure, and compare with no others.

    Args:
        critic: Any critic that compares.
    """

    def __init__(self, critic: Critic) -> None:
        super().__init__(critic.card)
        self.critic, self.weights_id = critic, critic.weights_id

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """One score per image, (N,)."""
        return self.critic.score(_matched(x, y), y)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The critic's own."""
        return self.critic.quality_map(_matched(x, y), y)

    @property
    def has_maps(self) -> bool:
        """Whether the critic has them."""
        return self.critic.has_maps

    @property
    def signature(self) -> str:
        """That of the critic, and what is done before."""
        return f"{self.critic.signature}|gt-mean"


def _matched(x: Tensor, y: Tensor | None) -> Tensor:
    assert y is not None
    light, wanted = (mix_channels(image, _GREY).mean((1, 2, 3), keepdim=True) for image in (x, y))
    return (x * wanted / light.clamp_min(_DARK)).clamp(0, 1)
