"""DFSS-IQA: how far the statistics of learned features of screen content are from those of pristine screens.

Chen, Zhu, Zhu, Wang, Kwong: "Deep Feature Statistics Mapping for Generalized Screen Content
Image Quality Assessment", IEEE Transactions on Image Processing 33, 2024. Original:
https://github.com/Baoliang93/DFSS-IQA (commit 2565b1f, MIT). Ours: bounded slopes on flat content,
and `dfss-deviation`, which compares the deviations of an image with those of its reference.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import distance_card, opinion_card
from perceptloss.critic import Entry, given
from perceptloss.critics.dfss.feature_statistics import SIDE, DeviationCritic

__all__ = ["DFSS", "ENTRIES", "DFSSDeviation"]


class DFSS(DeviationCritic):
    """DFSS score, unbounded; lower is better for weights that learned DMOS, and without a fixed score at identity.

    Deviations of the statistics of patches from those of pristine screens, weighted by what the
    image shows: weights that are constants of the gradient, unless `hold_weights` is False.

    Slopes on flat content and on images of like patches are bounded. `is_guarded = False` gives
    those of the formula, which are large there and follow rounding noise; scores are the same.

    Args:
        card: What it is.
        width: Channels of the first convolutions, from which all others follow.
        classes: Classes of the classifier of distortions that the authors train along (50 for SIQAD, 46 for SCID);
            0 leaves it out.

    Example:
        >>> critic = create_critic("dfss", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    unused = (r"distype_cls\..+",)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.rate(*self.vectors(self.patches(x)))

    def rate(self, content: Tensor, statistics: Tensor) -> Tensor:
        """Scores (N,) from what `vectors` says, (N, P, C) each."""
        gate = self.held(self.gate(content.mean(1)))
        return self.out(gate * self.deviate(statistics)).squeeze(1)

    def classify(self, statistics: Tensor) -> Tensor:
        """Logits of the classes of distortions, (N, classes), from what `vectors` says; see `classes`."""
        return self.distype_cls(statistics.mean(1))


class DFSSDeviation(DeviationCritic):
    r"""After DFSS-IQA; comparison ours: what deviates more than in the reference, lower is better, 0 for equal images.

    .. math:: D = \operatorname{mean}_c \max(0, d_c(x) - d_c(y))

    d the deviations of `deviation`. Where they are smaller than the reference's, nothing is gained.

    Args:
        card: What it is.
        width: Channels of the first convolutions, from which all others follow.

    Example:
        >>> critic = create_critic("dfss-deviation", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    unused = (r"(gate|out|distype_cls)\..+",)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return F.relu(self.deviation(x) - self.deviation(given(y))).mean(1)


_FACTS: dict[str, Any] = {
    "domains": frozenset({"screen"}),
    "min_size": 2 * SIDE,
    "tiling": "never",
    "licence_code": "MIT",
    "licence_weights": "none stated, in an MIT repository",
    "weights": ("dfss",),
    "paper": "Chen et al., Deep Feature Statistics Mapping for Generalized Screen Content Image Quality Assessment, "
    "IEEE TIP 33, 2024",
    "source": "https://github.com/Baoliang93/DFSS-IQA commit 2565b1f",
}


_GRID = (
    "statistics over 32x32 patches side by side: up to 31 pixels at the right and at the bottom are not read and get "
    "no gradient, and a few patches say little; train on random crops of at least 128x128, in multiples of 32",
    "two moments per channel are all it sees of an image, and restorers find ways to match these: "
    "combine with a pixel loss",
)

_SCORE = opinion_card(
    **_FACTS,
    better="lower",
    name="dfss",
    summary="Blind score of screen content from how far statistics of learned features deviate from pristine screens.",
    kind="nr",
    notes=(
        "the direction belongs to the weights: those for SIQAD learned DMOS, where lower is better; those for SCID "
        "learned MOS: say better='higher'",
        "all patches are judged, in the authors' test at most 1024 of them, which is more than their images have",
        "no bound on either side",
        *_GRID,
    ),
)

_DEVIATION = distance_card(
    **_FACTS,
    name="dfss-deviation",
    summary="By how much statistics of learned features deviate more from pristine screens than the reference's do.",
    fidelity="after-paper",
    notes=(
        "the deviations are the authors', the comparison with the reference ours; it reads the same weights as dfss, "
        "and needs no direction of theirs",
        *_GRID,
    ),
)

ENTRIES = {"dfss": Entry(_SCORE, DFSS), "dfss-deviation": Entry(_DEVIATION, DFSSDeviation)}
