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

    A pattern that follows the image, such as stairs that go up with a slope and down with it, is averaged away. It
    shows in `of: steps`: there the absolute differences between neighbours take the place of the values, along the rows
    and down the columns, averaged by their place within the period in that direction; the mean of both is the score.

    Args:
        card: What it is.
        period: Of the pattern, pixels, divisors included: 4 for enlargement by 4 and by 2.
        of: What repeats: `values`, or `steps`.

    Raises:
        ConfigError: listing options that are none.

    Example:
        >>> critic = create_critic("grid")
        >>> x, y = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> critic(x, y).sum().backward()
    """

    def __init__(self, card: Card, *, period: int = 4, of: str = "values") -> None:
        problems = []
        if not isinstance(period, int) or period < 2:
            problems.append(f"options.period must be a whole number of at least 2, got {period!r}")
        if of not in ("values", "steps"):
            problems.append(f"options.of must be values or steps, got {of!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(replace(card, min_size=max(card.min_size, 2 * period)))
        self.period, self.of = period, of

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        if self.of == "values":
            return _amplitude(self._means(x - y).flatten(2, 3), 2)
        apart = (x.diff(dim=axis).abs() - y.diff(dim=axis).abs() for axis in (2, 3))
        down, across = (self._means(steps) for steps in apart)
        return (_amplitude(down.mean(3), 2) + _amplitude(across.mean(2), 2)) / 2

    def _means(self, apart: Tensor) -> Tensor:
        """Of the places within a period, (N, C, period, period, windows down, windows across)."""
        p = self.period
        places = F.pixel_unshuffle(F.pad(apart, (0, -apart.shape[3] % p, 0, -apart.shape[2] % p)), p)
        sides = [min(_BLOCKS, n) for n in places.shape[2:]]
        means = F.avg_pool2d(places, sides, [max(1, side // 2) for side in sides])
        return means.unflatten(1, (apart.shape[1], p, p))


def _amplitude(means: Tensor, axis: int) -> Tensor:
    spread = (means - means.mean(axis, keepdim=True)).square().mean(axis)
    return root_above(spread, _FLOOR).flatten(1).mean(1)


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
        "stairs at the low-quality pixels follow the image, so that no mean shows them: options: {of: steps}",
        "a restorer that is shifted, or does not enlarge, may print at another period: options: {period: 2}",
    ),
)

ENTRIES = {"grid": Entry(_CARD, Grid)}
