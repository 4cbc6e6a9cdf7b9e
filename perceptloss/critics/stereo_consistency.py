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
from perceptloss.networks.functional import LUMA, mix_channels
from perceptloss.networks.parallax import carry, row_scores, shares

__all__ = ["ENTRIES", "StereoConsistency", "correspondence"]

_WINDOW = 7  # pixels by which places are told apart
_SHARPNESS = 40.0  # of their correlation
_LITTLE = 1e-4  # variance of a window that shows nothing
_ROWS = 32  # matched at once: memory grows with the square of the width


def _signs(image: Tensor) -> Tensor:
    """Windows of the luma around each place with mean 0 and length at most 1, (N, 49, H, W)."""
    luma = mix_channels(image, (LUMA,))
    half = _WINDOW // 2
    windows = F.unfold(F.pad(luma, (half,) * 4, mode="replicate"), _WINDOW).unflatten(2, image.shape[2:])
    windows = windows - windows.mean(1, keepdim=True)
    return windows / (windows.square().sum(1, keepdim=True) + _LITTLE * _WINDOW**2).sqrt()


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
    scores = _SHARPNESS * row_scores(_signs(left), _signs(right))
    to_left, to_right = shares(scores), shares(scores.mT)
    back = to_left * to_right.mT
    return to_left, to_right, back.sum(3)[:, None], back.sum(2)[:, None]


class StereoConsistency(Critic):
    r"""Mean difference between the errors of two views at places that belong together, >= 0, lower is better.

    .. math:: d = \tfrac12 \sum_v \frac{\sum_p c_v(p)\,|e_v(p) - (M e_{\bar v})(p)|}{\sum_p c_v(p)}, \quad e = x - y

    M and c are those of `correspondence` in the reference. It is 0 for equal pairs, and blind to errors that both
    views share: a term beside others.

    Example:
        >>> critic = create_critic("stereo-consistency")
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 6, 64, 96)).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        error = x - y
        apart, sure = [], []
        for start in range(0, x.shape[2], _ROWS):
            found = self._strip(error, y, start)
            apart.append(found[0])
            sure.append(found[1])
        total = torch.stack(apart).sum(0) / torch.stack(sure).sum(0)
        return total.mean(0)

    @staticmethod
    def _strip(error: Tensor, y: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Of some rows: sums of weighted differences and of weights, (2, N) each."""
        half = _WINDOW // 2
        first, last = max(0, start - half), min(y.shape[2], start + _ROWS + half)
        inner = slice(start - first, min(start + _ROWS, y.shape[2]) - first)
        with torch.no_grad():
            whole = correspondence(*y[:, :, first:last].chunk(2, 1))
            to_left, to_right, at_left, at_right = (
                whole[0][:, inner],
                whole[1][:, inner],
                *(w[:, :, inner] for w in whole[2:]),
            )
        left, right = error[:, :, start : start + _ROWS].chunk(2, 1)
        apart = [
            (c * (own - carry(share, other)).abs()).sum((1, 2, 3)) / 3
            for c, own, other, share in ((at_left, left, right, to_left), (at_right, right, left, to_right))
        ]
        return torch.stack(apart), torch.stack([c.sum((1, 2, 3)) for c in (at_left, at_right)])


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
        "memory grows with the square of the width: about 64 W^2 shares at once",
    ),
)

ENTRIES = {"stereo-consistency": Entry(_CARD, StereoConsistency)}
