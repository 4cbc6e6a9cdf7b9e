"""mini-stereo: a small full-reference distance of stereo pairs of our own.

Not from a paper. Each view is compared with its reference as in mini-fr. The view with more contrast counts more, as
it does in binocular rivalry (Levelt, 1965), and so does the worse one: their distances are added by a power mean. A
third part asks whether the views still
agree: the reference says which places of the two views belong together (row-wise attention, Wang et al., CVPR 2019),
and the disagreement of the judged views there must be that of the reference. After the aims of Ma et al.,
"Perception-Oriented Stereo Image Super-Resolution", ACM MM 2021, whose network is not public. Trained by
`recipes/critic.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.critics.mini.pair_distance import PairCritic, Positive
from perceptloss.critics.mini.viewing import TRUNK
from perceptloss.networks.functional import root_above
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.trunks import Features

__all__ = ["ENTRIES", "MiniStereo", "dominance", "row_attention", "smooth_norm"]

_SHARPNESS = 30.0  # of the matching: unit vectors differ by little
_RIVALRY = 2.0  # how strongly contrast decides which view is seen
_LITTLE = 1e-3  # below this two distances are as good as equal


def row_attention(left: Tensor, right: Tensor, sharpness: float = _SHARPNESS) -> Tensor:
    """Where each place of the left view lies in the same row of the right one.

    Args:
        left: Features, (N, C, H, W).
        right: Features, same shape.
        sharpness: Factor of the cosine similarities.

    Returns:
        Shares (N, H, W, W) that sum to 1 over the last axis.
    """
    u, v = unit_norm(left), unit_norm(right)
    return torch.softmax(sharpness * torch.einsum("nchi,nchj->nhij", u, v), -1)


class MiniStereo(PairCritic):
    """A distance >= 0 of two stereo pairs (left RGB, right RGB), lower is better, exactly 0 for equal pairs.

    Exchanging the views of both pairs leaves the score as it is. Arguments are those of `PairCritic`.

    Example:
        >>> critic = create_critic("mini-stereo")
        >>> x = torch.rand(2, 6, 64, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 6, 64, 96)).sum().backward()
    """

    match_at = "near.block2"

    def __init__(
        self, card: Card, *, views: int = 6, scales: int = 5, hidden: int = 48, pixels_per_degree: float = 60.0
    ) -> None:
        super().__init__(card, views=views, scales=scales, hidden=hidden, pixels_per_degree=pixels_per_degree)
        self.power = nn.Parameter(torch.tensor(1.0))
        self.agreement = Positive(2, 1)

    def prepare(self, image: Tensor) -> Tensor:
        return super().prepare(rearrange(image, "n (view c) h w -> (view n) c h w", view=2))

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        of_views = self.judge(self.reading(x, y, fx, fy)).view(2, -1)
        apart = self._disagreement(fx[self.match_at], fy[self.match_at])
        shares = self.held(dominance(self.prepare(x)))
        return smooth_norm(of_views, shares, 1 + F.softplus(self.power)) + self.agreement(apart)[:, 0]

    def _disagreement(self, fx: Tensor, fy: Tensor) -> Tensor:
        """How differently the views differ from each other in judged and reference pair, (N, 2): mean and spread."""
        (xl, xr), (yl, yr) = fx.chunk(2), fy.chunk(2)
        found = []
        for a, b, c, d in ((xl, xr, yl, yr), (xr, xl, yr, yl)):
            shares = self.held(row_attention(c, d))
            judged, true = (
                (unit_norm(here) - torch.einsum("nhij,nchj->nchi", shares, unit_norm(there))).square().sum(1)
                for here, there in ((a, b), (c, d))
            )
            gap = (judged - true).square().flatten(1)
            spread = (gap - gap.mean(1, keepdim=True)).square().mean(1)
            found.append(torch.stack([gap.mean(1), root_above(spread, 1e-3)], 1))
        return (found[0] + found[1]) / 2


def smooth_norm(of_views: Tensor, shares: Tensor, power: Tensor) -> Tensor:
    """Weighted power mean of the distances of two views, (2, N) and weights (2, N) that sum to 1, to (N,).

    The greater the power, the more the worse view decides; a power of 1 is the mean. Its slopes are bounded, also at 0.
    """
    relative = (of_views + _LITTLE) / (of_views.amax(0).detach() + _LITTLE)  # all 1 where both are 0
    gain = (shares * relative**power).sum(0) ** (1 / power) / (shares * relative).sum(0)
    return (shares * of_views).sum(0) * gain


def dominance(x: Tensor) -> Tensor:
    """Share of each view in what is seen, from its contrast: (2 N, 3, H, W) to (2, N)."""
    light = x.mean(1)
    contrast = (light[:, 1:] - light[:, :-1]).abs().mean((1, 2)) + (light[..., 1:] - light[..., :-1]).abs().mean((1, 2))
    return torch.softmax(_RIVALRY * (contrast + 1e-3).log().view(2, -1), 0)


_CARD = distance_card(
    name="mini-stereo",
    summary="Small distance of stereo pairs of our own that ships with perceptloss: both views, and their agreement.",
    kind="stereo-fr",
    domains=frozenset({"stereo"}),
    min_size=32,
    licence_code="Apache-2.0 (ours)",
    licence_weights="Apache-2.0 (trunk: EfficientNet-lite0; ours: weights/mini-stereo.md lists the photographs)",
    weights=(TRUNK, "mini-stereo"),
    fidelity="after-paper",
    paper="none; after Ma et al., Perception-Oriented Stereo Image Super-Resolution, ACM MM 2021",
    source="perceptloss, recipes/configs/mini_stereo.yaml",
    notes=(
        "taught by mini-fr on each view and by the order of stereo degradations, never by people",
        "rows must correspond: feed rectified pairs",
        "memory grows with the square of the width: H W^2 / 512 shares for each direction",
    ),
)

ENTRIES = {"mini-stereo": Entry(_CARD, MiniStereo)}
