r"""stereo-consistency: whether what a restorer did wrong is the same in both views of a stereo pair.

After the consistency loss of Wang et al., "Symmetric Parallax Attention for Stereo Image Super-Resolution", CVPRW 2021
(https://arxiv.org/abs/2011.03802), which asks the size of the errors to agree between the views at low-quality size.
Ours: the errors themselves, at full size, and correspondence from the reference alone. A detail that is made up alike
in both views costs nothing here; one that is made up in each view for itself costs its whole amplitude, because it
has no depth.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.networks.matching import WINDOW, MatchingCritic, Rows

__all__ = ["ENTRIES", "StereoConsistency"]

_LEVEL = 1 / 255


def _smooth(difference: Tensor) -> Tensor:
    """Its absolute value, rounded off below a level of 8 bits, so that no gradient hangs on the sign of nothing."""
    return (difference.square() + _LEVEL**2).sqrt() - _LEVEL


class StereoConsistency(MatchingCritic):
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

    def apart(self, x: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        left, right = (x[:, :, rows.own] - y[:, :, rows.own]).chunk(2, 1)
        in_right, in_left = rows.places
        return _smooth(left - _at(right, in_right)).mean(1), _smooth(right - _at(left, in_left)).mean(1)


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
    min_size=WINDOW,
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
