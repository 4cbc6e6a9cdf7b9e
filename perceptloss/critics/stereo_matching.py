r"""stereo-matching: whether the rows of a pair match as those of its reference do.

The parallax attention of Wang et al., "Learning Parallax Attention for Stereo Image Super-Resolution", CVPR 2019
(https://arxiv.org/abs/1903.05784), says of each place of a view where in the row of the other one it may lie. Ours: it
is read from windows of pixels, nothing is learned, and it is a distance. A restorer that leaves a faint pattern at the
low-quality grid in both views makes them match at multiples of its factor (pixel locking): no error of a pixel shows
that, the matches do.
"""

from __future__ import annotations

import math

from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.networks.matching import WINDOW, MatchingCritic, Rows

__all__ = ["ENTRIES", "StereoMatching"]


class StereoMatching(MatchingCritic):
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
        is_wrong = not isinstance(sharpness, (int, float)) or not 0 < sharpness < math.inf
        wrong = (f"options.sharpness must be a number above 0, got {sharpness!r}",) if is_wrong else ()
        super().__init__(card, every=every, problems=wrong)
        self.sharpness = sharpness

    def apart(self, x: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        wanted, found = (self.sharpness * scores for scores in (rows.scores, self.scores_in(x, rows)))
        return _divergence(wanted, found), _divergence(wanted.mT, found.mT)


def _divergence(wanted: Tensor, found: Tensor) -> Tensor:
    said = wanted.log_softmax(-1)
    return (said.exp() * (said - found.log_softmax(-1))).sum(-1)


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
