"""grid: what repeats every few pixels in the difference of two images, as shuffled pixels and strides print it.

Such patterns are described by Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016. The
measure is ours: texture that is merely different does not repeat, so that it costs next to nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import root_above

__all__ = ["ENTRIES", "Grid"]

_BLOCKS = 8  # periods in a window, along each side
_FLOOR = 1e-4  # amplitudes below are of no interest


class Grid(Critic):
    """Amplitude of the pattern that repeats in the difference, a mean over windows and colours; 0 or more.

    In each window of 8 x 8 periods the difference is averaged by its place within the period; the deviation of these
    averages is the amplitude, in units of the images. Half the windows' side lies between their corners.

    Args:
        card: What it is.
        period: Of the pattern, pixels, divisors included: 4 for enlargement by 4 and by 2.

    Raises:
        ConfigError: if the period is none.

    Example:
        >>> critic = create_critic("grid")
        >>> x, y = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> critic(x, y).sum().backward()
    """

    def __init__(self, card: Card, *, period: int = 4) -> None:
        if not isinstance(period, int) or period < 2:
            raise ConfigError([f"options.period must be a whole number of at least 2, got {period!r}"], card.name)
        super().__init__(replace(card, min_size=max(card.min_size, 2 * period)))
        self.period = period

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        apart, p = x - given(y), self.period
        apart = F.pad(apart, (0, -apart.shape[3] % p, 0, -apart.shape[2] % p))
        places = F.pixel_unshuffle(apart, p)
        sides = [min(_BLOCKS, n) for n in places.shape[2:]]
        means = F.avg_pool2d(places, sides, [max(1, side // 2) for side in sides])
        means = means.unflatten(1, (x.shape[1], p * p))
        spread = (means - means.mean(2, keepdim=True)).square().mean(2)
        return root_above(spread, _FLOOR).mean((1, 2, 3))


_CARD = distance_card(
    name="grid",
    summary="Patterns of a short period in the difference, as pixel shuffling and strides print them.",
    min_size=8,
    tiling="approximate",
    fidelity="after-paper",
    licence_code="Apache-2.0 (ours)",
    paper="after Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016",
    source="perceptloss",
    notes=(
        "made to stand beside others: it sees nothing but patterns that repeat",
        "a restorer that is shifted, or does not enlarge, may print at another period: options: {period: 2}",
    ),
)

ENTRIES = {"grid": Entry(_CARD, Grid)}
