r"""stereo-consistency: whether what a restorer did wrong is the same in both views of a stereo pair.

After the consistency loss of Wang et al., "Symmetric Parallax Attention for Stereo Image Super-Resolution", CVPRW 2021
(https://arxiv.org/abs/2011.03802), which asks the size of the errors to agree between the views at low-quality size.
Ours: the errors themselves, at full size, and correspondence from the reference alone. A detail that is made up alike
in both views costs nothing here; one that is made up in each view for itself costs its whole amplitude, because it
has no depth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import LUMA, mix_channels
from perceptloss.networks.parallax import row_scores

__all__ = ["ENTRIES", "StereoConsistency", "correspondence", "signs"]

_WINDOW = 7  # pixels by which places are told apart
_LIKE = 0.5  # correlation from which two places are alike
_SLACK = 1.0  # pixels by which a place may miss itself when it comes back
_FLOOR = 1e-3  # weight of places that are not sure, so that two views of nothing in common have a gradient, too
_LEVEL = 1 / 255
_LITTLE = 1e-5  # variance of a window that shows nothing
_ROWS = 16  # matched at once: memory grows with the square of the width


def _smooth(difference: Tensor) -> Tensor:
    """Its absolute value, rounded off below a level of 8 bits, so that no gradient hangs on the sign of nothing."""
    return (difference.square() + _LEVEL**2).sqrt() - _LEVEL


def signs(image: Tensor) -> Tensor:
    """What tells places apart: windows of the luma with mean 0 and length at most 1, (N, 3, H, W) to (N, 49, H, W)."""
    luma = mix_channels(image, (LUMA,))
    half = _WINDOW // 2
    windows = F.unfold(F.pad(luma, (half,) * 4, mode="replicate"), _WINDOW).unflatten(2, image.shape[2:])
    windows = windows - windows.mean(1, keepdim=True)
    return windows / (windows.square().sum(1, keepdim=True) + _LITTLE * _WINDOW**2).sqrt()


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Column of the largest score of each row (..., W), to a fraction by the parabola through it, and that score."""
    width = scores.shape[-1]
    top, index = scores.max(-1)
    middle = index.clamp(1, width - 2)
    before, at, after = (scores.gather(-1, (middle + step)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp_max(-1e-6)
    fraction = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    return torch.where(middle == index, index + fraction, index.to(fraction)), top


def correspondence(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the places of two rectified views lie in each other, and whether that is sure.

    Args:
        left: Signs of the left view, as of `signs`, (N, C, H, W).
        right: Of the right view, same shape.

    Returns:
        Column of each place of the left view in the right one, and the other way, (N, H, W) each; and for each view
        whether a place is found, is like what is found there, and comes back to where it was, (N, H, W) of zeros and
        ones.
    """
    scores = row_scores(left, right)
    in_right, like_left = _best(scores)
    in_left, like_right = _best(scores.mT)
    columns = torch.arange(left.shape[3], device=left.device)
    sure = [
        ((other.gather(2, here.round().long()) - columns).abs() <= _SLACK) & (like > _LIKE)
        for here, other, like in ((in_right, in_left, like_left), (in_left, in_right, like_right))
    ]
    return in_right, in_left, sure[0].to(left.dtype), sure[1].to(left.dtype)


class StereoConsistency(Critic):
    r"""Mean difference between the errors of two views at places that belong together, >= 0, lower is better.

    .. math:: d = \tfrac12 \sum_v \frac{\sum_p c_v(p)\,|e_v(p) - e_{\bar v}(q_v(p))|}{\sum_p c_v(p)}, \quad e = x - y

    |.| is rounded off below one level of 8 bits; q and c, the place in the other view and whether it is sure, are those
    of `correspondence` in the reference, which tells places apart by 7x7 pixels. It is 0 for equal pairs, and blind to
    errors that both views share: a term beside others.

    Args:
        card: What it is.
        every: Compare each n-th row alone, at a fraction of the cost; with a `shift` in training all get their turn.

    Raises:
        ConfigError: if that is no number of rows.

    Example:
        >>> critic = create_critic("stereo-consistency")
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 6, 64, 96)).sum().backward()
    """

    def __init__(self, card: Card, *, every: int = 1) -> None:
        super().__init__(card)
        if not isinstance(every, int) or every < 1:
            raise ConfigError([f"options.every must be a whole number of at least 1, got {every!r}"], card.name)
        self.every = every

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        strips = [self._strip(x - y, y, start) for start in range(0, x.shape[2], _ROWS * self.every)]
        apart, sure = (torch.stack(sums).sum(0) for sums in zip(*strips, strict=True))
        return (apart / sure).mean(0)

    def _strip(self, error: Tensor, y: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Of some rows: sums of weighted differences and of weights, (2, N) each."""
        half, stop = _WINDOW // 2, min(start + _ROWS * self.every, y.shape[2])
        first = max(0, start - half)
        inner = slice(start - first, stop - first, self.every)
        with torch.no_grad():
            views = y[:, :, first : stop + half].chunk(2, 1)
            in_right, in_left, *sure = correspondence(*(signs(view)[:, :, inner] for view in views))
            weights = [_FLOOR + (1 - _FLOOR) * part for part in sure]
        left, right = error[:, :, start : stop : self.every].chunk(2, 1)
        apart = [
            (weight[:, None] * _smooth(own - _at(other, place))).sum((1, 2, 3)) / 3
            for weight, own, other, place in ((weights[0], left, right, in_right), (weights[1], right, left, in_left))
        ]
        return torch.stack(apart), torch.stack([weight.sum((1, 2)) for weight in weights])


def _at(image: Tensor, columns: Tensor) -> Tensor:
    """An image (N, C, H, W) at columns (N, H, W) of its rows, by linear interpolation."""
    last = image.shape[3] - 1
    start = columns.clamp(0, last).floor().clamp_max(max(last - 1, 0))
    index = start.long()[:, None].expand(-1, image.shape[1], -1, -1)
    share = (columns - start).clamp(0, 1)[:, None]
    return image.gather(3, index).lerp(image.gather(3, (index + 1).clamp_max(last)), share)


_CARD: Card = distance_card(
    name="stereo-consistency",
    summary="Whether the errors of two views agree where both show the same: what has no depth costs.",
    kind="stereo-fr",
    domains=frozenset({"stereo"}),
    min_size=_WINDOW,
    fidelity="after-paper",
    licence_code="Apache-2.0 (ours)",
    paper="after Wang et al., Symmetric Parallax Attention for Stereo Image Super-Resolution, CVPRW 2021",
    source="perceptloss",
    notes=(
        "blind to errors that both views share: a term beside others, such as L1 and critics of single views",
        "rows must correspond: feed rectified pairs, wide enough for their disparity",
        "memory grows with the square of the width: about 32 W^2 numbers at once",
    ),
)

ENTRIES = {"stereo-consistency": Entry(_CARD, StereoConsistency)}
