"""PieAPP v0.1: error of 64x64 patches, learned from pairwise preferences, and a learned weight for each.

Prashnani, Cai, Mostofi, Sen: "PieAPP: Perceptual Image-Error Assessment through Pairwise
Preference", CVPR 2018. Original: https://github.com/prashnani/PerceptualImageError (commit 0513613,
BSD-2-Clause terms for non-commercial use only). Patches start at every 27th pixel, the authors'
sparse sampling. Ours: where the weights of an image nearly cancel, the gradient is faded.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry, given
from perceptloss.networks.functional import soften
from perceptloss.networks.patches import cut, per_image, strided
from perceptloss.networks.trunks import Features, Trunk, TrunkCritic
from perceptloss.networks.trunks.plain import PlainTrunk, vgg_layers
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "PieAPP", "weighted_mean"]

_SIDE = 64
_PLAN = (1, 1, "M", 1, 2, "M", 2, 2, "M", 4, 4, "M", 4, 8, "M", 8)  # channels in units of the width
_POSITIONS = (0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25)  # of the convolutions, conv1 ... conv11
_TAPS = {f"relu{n}": _POSITIONS[n - 1] + 1 for n in (3, 5, 7, 9, 11)}
_SAME_SIGN = 0.1  # below this share of |sum w| in sum |w| the gradient is faded


def _trunk(width: int) -> Trunk:
    layers = vgg_layers([step if isinstance(step, str) else width * step for step in _PLAN])
    return PlainTrunk(f"pieapp{width}", layers, _TAPS, None)


def weighted_mean(errors: Tensor, weights: Tensor) -> Tensor:
    """Sum of weighted errors over the sum of the weights, which may be negative.

    Where weights of both signs nearly cancel, the quotient follows rounding noise: below a tenth of
    what weights of one sign would sum to, the gradient is faded, and the sum is kept off zero.

    Args:
        errors: Of the patches, (N, K).
        weights: Of the patches, (N, K).

    Returns:
        One score per image, (N,).
    """
    total, magnitude = weights.sum(1), weights.abs().sum(1)
    least = 1e-6 * magnitude + torch.finfo(weights.dtype).tiny
    divisor = torch.where(total.abs() < least, least.copysign(total), total)
    share = divisor.abs() / magnitude.clamp_min(torch.finfo(weights.dtype).tiny)
    return soften((errors * weights).sum(1) / divisor, share, _SAME_SIGN)


class PieAPP(TrunkCritic):
    """PieAPP error; lower is better, may be negative, about 0 for equal images.

    Args:
        card: Of the critic.
        width: Channels of the first convolution; the others are 1, 2, 4 and 8 times as wide.
        hidden: Units between the features of a patch and its error and weight.
        stride: Pixels between patches; 27 is the authors' sparse sampling, 6 their dense one.

    Example:
        >>> critic = create_critic("pieapp", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    taps = tuple(_TAPS)
    rules = tuple(
        Rule(rf"conv{number}\.(weight|bias)", rf"trunk.features.{position}.\1")
        for number, position in enumerate(_POSITIONS, 1)
    )

    def __init__(self, card: Card, width: int = 64, hidden: int = 512, stride: int = 27) -> None:
        super().__init__(card)
        self.stride = stride
        self.trunk = _trunk(width)
        self.coarse = 8 * width * (_SIDE // 32) ** 2
        scales = zip((1, 2, 4, 4, 8), (32, 16, 8, 4, 2), strict=True)
        self.fc1_score = nn.Linear(sum(width * channels * side**2 for channels, side in scales), hidden)
        self.fc2_score = nn.Linear(hidden, 1)
        self.fc1_weight = nn.Linear(self.coarse, hidden)
        self.fc2_weight = nn.Linear(hidden, 1)
        self.ref_score_subtract = nn.Linear(1, 1)
        self._random_errors_are_positive()

    def _random_errors_are_positive(self) -> None:
        """Random errors are 0 for equal images and grow from there, like trained ones; random weights exceed 1."""
        with torch.no_grad():
            for layer in (self.fc1_score, self.fc2_score, self.fc1_weight, self.ref_score_subtract):
                layer.bias.zero_()
            for layer in (self.fc2_score, self.fc2_weight):
                layer.weight.abs_()
            self.fc2_weight.bias.fill_(1.0)
            self.ref_score_subtract.weight.fill_(1.0)

    def prepare(self, image: Tensor) -> Tensor:
        """Patches row by row, BGR in [0, 255], (N K, 3, 64, 64)."""
        tops, lefts = (strided(side, _SIDE, self.stride) for side in image.shape[-2:])
        return cut(255 * image.flip(1), tops, lefts, _SIDE)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return weighted_mean(*(per_image(values, len(x)) for values in self.judge(fx, fy)))

    def judge(self, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        """Error and weight of every patch, (N K,) each, from the taps of the patches."""
        difference = torch.cat([(fy[tap] - fx[tap]).flatten(1) for tap in self.taps], 1)
        errors = self.ref_score_subtract(0.01 * self.fc2_score(self.fc1_score(difference).relu()))
        # constants of the image, yet the layers that make the weights can learn
        coarse = self.held(difference[:, -self.coarse :])
        return errors.squeeze(1), self.fc2_weight(self.fc1_weight(coarse).relu()).squeeze(1) + 1e-6

    @torch.no_grad()
    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Error of every patch, lower is better: (N, 1, rows, columns); neighbours are `stride` pixels apart."""
        errors, _ = self.judge(self.look(x), self.look(given(y)))
        rows = len(strided(x.shape[-2], _SIDE, self.stride))
        return rearrange(errors, "(n rows columns) -> n 1 rows columns", n=len(x), rows=rows)


_CARD = opinion_card(
    name="pieapp",
    summary="Error of 64x64 patches, learned from pairwise preferences and pooled by learned weights.",
    kind="fr",
    better="lower",
    min_size=_SIDE,
    licence_code="BSD-2-Clause terms, non-commercial use only",
    licence_weights="BSD-2-Clause terms, non-commercial use only",
    weights=("pieapp",),
    paper="Prashnani et al., PieAPP: Perceptual Image-Error Assessment through Pairwise Preference, CVPR 2018",
    source="https://github.com/prashnani/PerceptualImageError commit 0513613",
    notes=(
        "has no floor: as a plain distance, restorers push it ever further below the score of the reference itself, "
        "so the default hinge stops there",
        "patches start at every 27th pixel: up to 26 pixels at the right and at the bottom are not seen; "
        "train on crops of 64 + 27 k pixels (91, 118, 253)",
        "the authors advise dense sampling for evaluation, a patch at every 6th pixel: PieAPP(card, stride=6)",
        "BGR order, as the authors read images; some libraries feed RGB to the same weights and score differently",
        "patches overlap, 64 in a 256x256 image, four times its pixels: 289 MiB are kept for the backward, 58 if lean",
    ),
)

ENTRIES = {"pieapp": Entry(_CARD, PieAPP)}
