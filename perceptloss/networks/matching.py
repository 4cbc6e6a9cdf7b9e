"""Which places of two rectified views belong together, found by windows of pixels: nothing is learned."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import LUMA, mix_channels
from perceptloss.networks.parallax import row_scores

__all__ = ["WINDOW", "MatchingCritic", "Rows", "correspondence", "signs"]

WINDOW = 7
"""Side of the windows by which places are told apart, pixels."""
_LIKE = 0.5  # correlation from which two places are alike
_SLACK = 1.0  # pixels by which a place may miss itself when it comes back
_LITTLE = 1e-5  # variance of a window that shows nothing
_FLOOR = 1e-3  # weight of places that are not sure, so that two views of nothing in common have a gradient, too
_ROWS = 16  # matched at once: memory grows with the square of the width


def signs(image: Tensor) -> Tensor:
    """What tells places apart: windows of the luma with mean 0 and length at most 1, (N, 3, H, W) to (N, 49, H, W)."""
    luma = mix_channels(image, (LUMA,))
    half = WINDOW // 2
    windows = F.unfold(F.pad(luma, (half,) * 4, mode="replicate"), WINDOW).unflatten(2, image.shape[2:])
    windows = windows - windows.mean(1, keepdim=True)
    return windows / (windows.square().sum(1, keepdim=True) + _LITTLE * WINDOW**2).sqrt()


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Column of the largest score of each row (..., W), to a fraction by the parabola through it, and that score."""
    width = scores.shape[-1]
    top, index = scores.max(-1)
    middle = index.clamp(1, width - 2)
    before, at, after = (scores.gather(-1, (middle + step)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp_max(-1e-6)
    fraction = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    return torch.where(middle == index, index + fraction, index.to(fraction)), top


def correspondence(scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the places of two rectified views lie in each other, and whether that is sure.

    Args:
        scores: Correlation of each place of a row of the left view with each of the right one, (N, H, W, W).

    Returns:
        Column of each place of the left view in the right one, and the other way, (N, H, W) each; and for each view
        whether a place is found, is like what is found there, and comes back to where it was, (N, H, W) of zeros and
        ones.
    """
    in_right, like_left = _best(scores)
    in_left, like_right = _best(scores.mT)
    columns = torch.arange(scores.shape[-1], device=scores.device)
    sure = [
        ((other.gather(2, here.round().long()) - columns).abs() <= _SLACK) & (like > _LIKE)
        for here, other, like in ((in_right, in_left, like_left), (in_left, in_right, like_right))
    ]
    return in_right, in_left, sure[0].to(scores.dtype), sure[1].to(scores.dtype)


@dataclass(frozen=True)
class Rows:
    """Some rows of a reference pair, matched.

    Attributes:
        own: Which they are.
        around: Those and what their windows reach.
        within: Which of these they are.
        scores: Correlation of the places of its views, (N, H, W, W).
        places: Column of each place in the other view, for either view, (N, H, W) each.
        sure: Weight of each place, for either view, (N, H, W) each.
    """

    own: slice
    around: slice
    within: slice
    scores: Tensor
    places: tuple[Tensor, Tensor]
    sure: tuple[Tensor, Tensor]


def _scores(pair: Tensor, around: slice, within: slice) -> Tensor:
    left, right = (signs(view)[:, :, within] for view in pair[:, :, around].chunk(2, 1))
    return row_scores(left, right)


class MatchingCritic(Critic):
    """A distance of pairs whose places weigh by how sure their match in the reference is; some rows at a time.

    Args:
        card: What it is.
        every: Look at each n-th row alone, at a fraction of the cost; with a `shift` in training all get their turn.
        problems: What is wrong with other options.

    Raises:
        ConfigError: listing what is wrong with them.
    """

    def __init__(self, card: Card, *, every: int = 1, problems: tuple[str, ...] = ()) -> None:
        super().__init__(card)
        if not isinstance(every, int) or every < 1:
            problems = (f"options.every must be a whole number of at least 1, got {every!r}", *problems)
        if problems:
            raise ConfigError(list(problems), card.name)
        self.every = every

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        strips = [self._strip(x, y, start) for start in range(0, x.shape[2], _ROWS * self.every)]
        apart, sure = (torch.stack(sums).sum(0) for sums in zip(*strips, strict=True))
        return (apart / sure).mean(0)

    def _strip(self, x: Tensor, y: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Of some rows: sums of weighted distances and of weights, (2, N) each."""
        half, stop = WINDOW // 2, min(start + _ROWS * self.every, y.shape[2])
        first = max(0, start - half)
        around, within = slice(first, stop + half), slice(start - first, stop - first, self.every)
        with torch.no_grad():
            scores = _scores(y, around, within)
            in_right, in_left, *sure = correspondence(scores)
            left, right = (_FLOOR + (1 - _FLOOR) * part for part in sure)
        own = slice(start, stop, self.every)
        rows = Rows(own, around, within, scores, (in_right, in_left), (left, right))
        apart = [(weight * part).sum((1, 2)) for weight, part in zip(rows.sure, self.apart(x, y, rows), strict=True)]
        return torch.stack(apart), torch.stack([weight.sum((1, 2)) for weight in rows.sure])

    def scores_in(self, pair: Tensor, rows: Rows) -> Tensor:
        """What `rows.scores` is of the reference, of another pair."""
        return _scores(pair, rows.around, rows.within)

    @abstractmethod
    def apart(self, x: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Distance of a pair from its reference at each place of some rows of either view, (N, H, W) each."""
