"""The mean of a map of similarities by a map of weights, which FSIM, SR-SIM and VSI are."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.critic import Critic, given
from perceptloss.networks.functional import weighted_mean

__all__ = ["WeighedCritic"]


class WeighedCritic(Critic):
    """Similarity of two images in [0, 1]; higher is better, 1 for equal images. Subclasses give `compared`."""

    is_stabilised: bool = True
    """Whether the precision's epsilon is added above and below, so that images without any weight score 1."""

    def compared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities and weights, (N, 1, h, w) each, of images (N, 3, H, W), RGB in [0, 1]."""
        raise NotImplementedError

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return weighted_mean(*self.compared(x, given(y)), torch.finfo(x.dtype).eps if self.is_stabilised else 0.0)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Similarity before weighting, (N, 1, h, w), after downsampling if any."""
        return self.compared(x, given(y))[0]
