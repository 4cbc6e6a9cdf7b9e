"""stereo-srqa: what a super-resolved stereo pair looks like, in each view and between the views.

After Ma, Yan, Tan, Jiang: "Perception-Oriented Stereo Image Super-Resolution", ACM MM 2021,
https://arxiv.org/abs/2207.06617, of which neither code nor weights are public. From the paper: a quality model of
super-resolved pairs whose verdict trains the network that makes them. Ours: the architecture. Heads that judge each
view alone, row-wise attention that finds what belongs together (as in NAFSSR, Chu et al., CVPRW 2022), a head that
judges how the views agree there, and a fusion in which the view of more energy rules (Levelt, "On Binocular
Rivalry", 1965). Views are treated alike: exchanging them leaves the score as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry
from perceptloss.networks.layers import draw, mean_and_variance, unit_norm
from perceptloss.networks.parallax import carry, row_scores, shares, valid
from perceptloss.networks.pointwise import root_lifted
from perceptloss.networks.trunks import Features, TrunkCritic, TrunkName, resnet_rules, staged

__all__ = ["ENTRIES", "Parts", "StereoSRQA", "agreement", "match"]

_SHARPNESS = 20.0  # of the cosines that the attention starts with
_RIVALRY = 2.0  # how strongly energy decides, at the start
_HALF = 0.5  # share of the consistency in the score
_LEAST = 1e-6  # variance below which a deviation has next to no slope


class Parts(NamedTuple):
    """What a score is made of, each (N,) but the first: views (2, N), left and right."""

    views: Tensor
    weights: Tensor
    consistency: Tensor


def match(left: Tensor, right: Tensor, sharpness: float | Tensor) -> tuple[Tensor, Tensor]:
    """Where each place of a view lies in the same row of the other.

    Args:
        left: Features, (N, C, H, W).
        right: Features, same shape.
        sharpness: Factor of the cosine similarities.

    Returns:
        Shares of the right view that make the left one, and the other way, (N, H, W, W), with rows that sum to 1.
    """
    scores = sharpness * row_scores(unit_norm(left), unit_norm(right))
    return shares(scores), shares(scores.mT)


def agreement(own: Tensor, other: Tensor, to_own: Tensor, to_other: Tensor) -> tuple[Tensor, Tensor]:
    """How a view differs from the other one carried to it, and where the other one sees it.

    Args:
        own: Features of this view, (N, C, H, W).
        other: Features of the other, same shape.
        to_own: Shares from `match` by which the other one makes this one, (N, H, W, W).
        to_other: Shares of the opposite direction, same shape.

    Returns:
        Absolute differences, 0 where nothing is seen, (N, C, H, W), and the mask (N, 1, H, W) in [0, 1).
    """
    mask = valid(to_other.sum(2))[:, None].to(own.dtype)
    return mask * (own - carry(to_own, other)).abs(), mask


class StereoSRQA(TrunkCritic):
    r"""After StereoSRQA, architecture ours: opinion of a pair (left RGB, right RGB), unbounded, higher is better.

    .. math:: S = \tfrac12 \sum_v w_v s_v + \tfrac12 s_C, \quad w = \operatorname{softmax}(\rho \log e)

    s_v is read from means and deviations of the second and the third stage of a trunk at view v, e_v is the deviation
    of the features of the third. s_C is read from the second: the features of a view beside their difference from what
    the other view has at the same places, averaged over the views.

    Args:
        card: What it is.
        trunk: `resnet` or `lite0-smooth`.
        depth: Of the ResNet: 18 or 34.
        widths: Of its three stages.
        matched: Channels by which places are matched.
        hidden: Units of the heads.

    Example:
        >>> critic = create_critic("stereo-srqa", weights=None)
        >>> x = torch.rand(2, 6, 64, 128, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    rules = resnet_rules(stages=3)

    def __init__(
        self,
        card: Card,
        *,
        trunk: TrunkName = "resnet",
        depth: int = 18,
        widths: Sequence[int] = (64, 128, 256),
        matched: int = 64,
        hidden: int = 128,
    ) -> None:
        super().__init__(card)
        self.trunk, taps, (_, near, far) = staged(trunk, depth, widths)
        self.taps = taps[1:]
        self.view = nn.Sequential(nn.Linear(2 * (near + far), hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.key = nn.Conv2d(near, matched, 1)
        self.between = nn.Sequential(nn.Conv2d(2 * near, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
        draw(self.view, self.key, self.between)
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        self.rivalry = nn.Parameter(torch.tensor(_RIVALRY))

    def prepare(self, image: Tensor) -> Tensor:
        return rearrange(image, "n (view c) h w -> (view n) c h w", view=2)

    def parts(self, fx: Features) -> Parts:
        """Scores of the views, their weights, and the score of what is between them."""
        near, far = (fx[tap] for tap in self.taps)
        mean, variance = mean_and_variance(near, far)
        views = self.view(torch.cat([mean, root_lifted(variance, _LEAST)], 1)).view(2, -1)
        energy = far.flatten(1).std(1).view(2, -1)
        weights = torch.softmax(self.rivalry * torch.log(energy + 1e-6), 0)
        (left, right), (left_key, right_key) = near.chunk(2), self.key(near).chunk(2)
        to_left, to_right = match(left_key, right_key, self.sharpness)
        seen = [
            torch.cat([own, agreement(own, other, here, there)[0]], 1)
            for own, other, here, there in ((left, right, to_left, to_right), (right, left, to_right, to_left))
        ]
        consistency = self.between(torch.cat(seen)).mean((1, 2, 3)).view(2, -1).mean(0)
        return Parts(views, weights, consistency)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        views, weights, consistency = self.parts(fx)
        return (1 - _HALF) * (self.held(weights) * views).sum(0) + _HALF * consistency


_CARD = after_paper_card(
    name="stereo-srqa",
    summary="Opinion score of super-resolved stereo pairs: each view, and how the views agree.",
    kind="stereo-nr",
    shape="softplus",
    domains=frozenset({"stereo"}),
    min_size=32,
    weights=("resnet18", "stereo-srqa"),
    paper="Ma, Yan, Tan, Jiang, Perception-Oriented Stereo Image Super-Resolution, ACM MM 2021",
    source="none public; perceptloss",
    notes=(
        "neither code nor weights are published, nor opinions of super-resolved pairs: a term of it says weights: null "
        "and joint: true, or names a checkpoint of your own",
        "rows must correspond: feed rectified pairs, wide enough for their disparity",
        "memory grows with the square of the width: H W^2 / 512 shares for each direction",
    ),
)

ENTRIES = {"stereo-srqa": Entry(_CARD, StereoSRQA)}
