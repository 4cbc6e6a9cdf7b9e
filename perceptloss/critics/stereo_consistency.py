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
from perceptloss.networks.parallax import carry, row_scores

__all__ = ["ENTRIES", "StereoConsistency", "correspondence"]

_WINDOW = 7  # pixels by which places are told apart
_SHARPNESS = 40.0  # of their correlation
_LEVEL = 1 / 255
_LITTLE = 1e-4  # variance of a window that shows nothing
_ROWS = 16  # matched at once: memory grows with the square of the width


def _smooth(difference: Tensor) -> Tensor:
    """Its absolute value, rounded off below a level of 8 bits, so that no gradient hangs on the sign of nothing."""
    return (difference.square() + _LEVEL**2).sqrt() - _LEVEL


def _signs(image: Tensor) -> Tensor:
    """Windows of the luma around each place with mean 0 and length at most 1, (N, 49, H, W)."""
    luma = mix_channels(image, (LUMA,))
    half = _WINDOW // 2
    windows = F.unfold(F.pad(luma, (half,) * 4, mode="replicate"), _WINDOW).unflatten(2, image.shape[2:])
    windows = windows - windows.mean(1, keepdim=True)
    return windows / (windows.square().sum(1, keepdim=True) + _LITTLE * _WINDOW**2).sqrt()


def _likeness(left: Tensor, right: Tensor) -> Tensor:
    """Exponentials of the scaled correlations of all signs of two views, row by row, (N, H, W, W): left, then right.

    Correlations are bounded, so that one table serves the shares of both directions without another exponential.
    """
    return (_SHARPNESS * row_scores(left, right) - _SHARPNESS).exp_()


def correspondence(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the places of two rectified views lie in each other, and how surely.

    Args:
        left: RGB in [0, 1], (N, 3, H, W).
        right: Same shape.

    Returns:
        Shares of the right view that make the left one, and the other way, (N, H, W, W); and for each view the share
        of a place that comes back to it from the other view, (N, 1, H, W) in [0, 1]: near 1 where both views show a
        place that its window tells from all others of its row.
    """
    like = _likeness(_signs(left), _signs(right))
    to_left, to_right = like / like.sum(3, keepdim=True), (like / like.sum(2, keepdim=True)).mT
    back = to_left * to_right.mT
    return to_left, to_right, back.sum(3)[:, None], back.sum(2)[:, None]


class StereoConsistency(Critic):
    r"""Mean difference between the errors of two views at places that belong together, >= 0, lower is better.

    .. math:: d = \tfrac12 \sum_v \frac{\sum_p c_v(p)\,|e_v(p) - (M e_{\bar v})(p)|}{\sum_p c_v(p)}, \quad e = x - y

    |.| is rounded off below one level of 8 bits; M and c are those of `correspondence` in the reference. It is 0 for
    equal pairs, and blind to errors that both views share: a term beside others.

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
            like = _likeness(*(_signs(view)[:, :, inner] for view in views))
            of_left, of_right = like.sum(3), like.sum(2)
            back = like.square()
            sure = [
                torch.einsum("nhij,nhj->nhi", back, 1 / of_right) / of_left,
                torch.einsum("nhij,nhi->nhj", back, 1 / of_left) / of_right,
            ]
        left, right = error[:, :, start : stop : self.every].chunk(2, 1)
        seen = carry(like, right) / of_left[:, None], carry(like.mT, left) / of_right[:, None]
        apart = [
            (c[:, None] * _smooth(own - other)).sum((1, 2, 3)) / 3
            for c, own, other in zip(sure, (left, right), seen, strict=True)
        ]
        return torch.stack(apart), torch.stack([c.sum((1, 2)) for c in sure])


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
