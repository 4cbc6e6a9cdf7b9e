r"""stereo-matching: whether the rows of a pair match as those of its reference do.

The parallax attention of Wang et al., "Learning Parallax Attention for Stereo Image Super-Resolution", CVPR 2019
(https://arxiv.org/abs/1903.05784), says of each place of a view where in the row of the other one it may lie. Ours: it
is read from windows of pixels, nothing is learned, and it is a distance. A restorer that leaves a faint pattern at the
low-quality grid in both views makes them match at multiples of its factor (pixel locking): no error of a pixel shows
that, the matches do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.matching import WINDOW, correspondence, signs
from perceptloss.networks.parallax import row_scores

__all__ = ["ENTRIES", "StereoMatching"]

_FLOOR = 1e-3  # weight of places that are not sure, so that two views of nothing in common have a gradient, too
_ROWS = 16  # matched at once: memory grows with the square of the width


class StereoMatching(Critic):
    r"""Divergence of where places may lie, in the pair and in its reference, >= 0, lower is better.

    .. math:: d = \tfrac12 \sum_v \frac{\sum_p c_v(p)\, \mathrm{KL}(P^y_v(p) \,\|\, P^x_v(p))}{\sum_p c_v(p)}

    P is the softmax over the row of the other view of the correlation of 7x7 windows of the luma, each of mean 0 and
    about unit length, times `sharpness`; c is whether a place is found in the reference, as in stereo-consistency. It
    is 0 for equal pairs, and little of what each view shows alone is seen: a term beside others.

    Args:
        card: What it is.
        every: Match each n-th row alone, at a fraction of the cost; with a `shift` in training all get their turn.
        sharpness: How sure a matcher is; windows a pixel beside the place correlate by some hundredths less.

    Raises:
        ConfigError: listing what is wrong with them.

    Example:
        >>> critic = create_critic("stereo-matching")
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 6, 64, 96)).sum().backward()
    """

    def __init__(self, card: Card, *, every: int = 1, sharpness: float = 30.0) -> None:
        super().__init__(card)
        problems = []
        if not isinstance(every, int) or every < 1:
            problems.append(f"options.every must be a whole number of at least 1, got {every!r}")
        if not isinstance(sharpness, (int, float)) or not 0 < sharpness < math.inf:
            problems.append(f"options.sharpness must be a number above 0, got {sharpness!r}")
        if problems:
            raise ConfigError(problems, card.name)
        self.every, self.sharpness = every, sharpness

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        strips = [self._strip(x, y, start) for start in range(0, x.shape[2], _ROWS * self.every)]
        apart, sure = (torch.stack(sums).sum(0) for sums in zip(*strips, strict=True))
        return (apart / sure).mean(0)

    def _strip(self, x: Tensor, y: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Of some rows: sums of weighted divergences and of weights, (2, N) each."""
        half, stop = WINDOW // 2, min(start + _ROWS * self.every, y.shape[2])
        first = max(0, start - half)
        inner = slice(start - first, stop - first, self.every)
        rows = slice(first, stop + half)

        def seen(pair: Tensor) -> list[Tensor]:
            return [signs(view)[:, :, inner] for view in pair[:, :, rows].chunk(2, 1)]

        with torch.no_grad():
            views = seen(y)
            sure = [_FLOOR + (1 - _FLOOR) * part for part in correspondence(*views)[2:]]
            wanted = self.sharpness * row_scores(*views)
        found = self.sharpness * row_scores(*seen(x))
        apart = []
        for weight, want, have in ((sure[0], wanted, found), (sure[1], wanted.mT, found.mT)):
            said = want.log_softmax(-1)
            apart.append((weight * (said.exp() * (said - have.log_softmax(-1))).sum(-1)).sum((1, 2)))
        return torch.stack(apart), torch.stack([weight.sum((1, 2)) for weight in sure])


_CARD: Card = distance_card(
    name="stereo-matching",
    summary="Whether each place of a view may lie in the other one where it does in the reference.",
    kind="stereo-fr",
    domains=frozenset({"stereo"}),
    min_size=WINDOW,
    fidelity="after-paper",
    licence_code="Apache-2.0 (ours)",
    paper="after Wang et al., Learning Parallax Attention for Stereo Image Super-Resolution, CVPR 2019",
    source="perceptloss",
    notes=(
        "rows must correspond: feed rectified pairs, wide enough for their disparity",
        "memory grows with the square of the width: about 64 W^2 numbers at once",
    ),
)

ENTRIES = {"stereo-matching": Entry(_CARD, StereoMatching)}
