"""FPR: a blind score whose features were taught, by an invertible network, to hallucinate those of the reference.

Chen, Zhu, Kong, Zhu, Wang, Li: "No-Reference Image Quality Assessment by Hallucinating Pristine
Features", IEEE Transactions on Image Processing 31, 2022. Original:
https://github.com/Baoliang93/FPR (commit fd8b41c, Apache-2.0). Ours: `fpr-feature`, the distance
between what the network makes of an image and of its reference.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from perceptloss.card import Card, distance_card, opinion_card
from perceptloss.critic import Entry, given
from perceptloss.critics.fpr.hallucination import SIDE, HallucinatingCritic, row_distance
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import weighted_mean
from perceptloss.networks.patches import per_image, tiles

__all__ = ["ENTRIES", "FPR", "FPRFeature", "Order"]

Order = Literal["columns", "rows"]


class FPR(HallucinatingCritic):
    """FPR score, unbounded; lower is better for weights that learned DMOS, and without a fixed score at identity.

    A weighted mean over patches. A recurrent network decides each weight from the patches up to that
    one, so that the order of the patches matters; the authors shuffle them, we do not. `maps` gives
    the scores of the patches.

    Args:
        card: What it is.
        order: Down the `columns` of patches, as the authors cut them, or along `rows`; also an attribute.
        width: Channels of the first convolutions, from which all others follow.
        blocks: Couplings of the invertible network, which the score does not depend on.

    Raises:
        ConfigError: if `order` is neither.

    Example:
        >>> critic = create_critic("fpr", weights=None)
        >>> x = torch.rand(1, 3, 64, 128, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    unused = (r"(reference_encoder|couplings|reference_reader)\..+",)

    def __init__(self, card: Card, *, order: Order = "columns", width: int = 128, blocks: int = 3) -> None:
        super().__init__(card, width=width, blocks=blocks)
        if order not in get_args(Order):
            raise ConfigError([f"order must be 'columns' or 'rows', got {order!r}"], card.name)
        self.order = order

    def patches(self, image: Tensor) -> Tensor:
        """All 64x64 patches in the order of the recurrent network, (N, P, 3, 64, 64)."""
        found = super().patches(image)
        if self.order == "rows":
            return found
        rows = len(tiles(image, SIDE)[0])
        return rearrange(found, "n (rows columns) c h w -> n (columns rows) c h w", rows=rows)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return weighted_mean(*self._judge(x))

    def _judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.judge(*self.encode(self.patches(x)), len(x), self.reader)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Score of every patch, in the direction of the score: (N, 1, rows, columns) of 64x64 patches."""
        values, _ = self._judge(x)
        patches = "rows columns" if self.order == "rows" else "columns rows"
        return rearrange(values, f"n ({patches}) -> n 1 rows columns", rows=len(tiles(x, SIDE)[0]))

    @property
    def signature(self) -> str:
        """As of any critic, and the order if it is not the authors'."""
        return super().signature + ("" if self.order == "columns" else f"|order:{self.order}")


class FPRFeature(HallucinatingCritic):
    r"""After FPR; distance ours: between the features of an image and of its reference, lower is better, 0 for equal.

    .. math:: D = \operatorname{mean}_p d(\hat f(x_p), \hat f(y_p)) + d(\hat f_0(x_p), \hat f_0(y_p))

    f the hallucinated features of the image, f_0 those of the reference that the network imagines
    behind it, d `row_distance`. Both come from the blind branch for either image, so that D is
    exactly 0 where, and as the couplings are invertible only where, the blind features are equal.
    `maps` gives the distance of each patch.

    Args:
        card: What it is.
        width: Channels of the first convolutions, from which all others follow.
        blocks: Couplings of the invertible network.

    Example:
        >>> critic = create_critic("fpr-feature", weights=None)
        >>> x = torch.rand(1, 3, 64, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 128)).sum().backward()
    """

    unused = (r"(reference_encoder|reference_reader|reader)\..+",)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self._distances(x, given(y)).mean(1)

    def _distances(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(*(self.hallucinate(self.patches(image)) for image in (x, y)), strict=True)
        return per_image(torch.stack([row_distance(a, b) for a, b in pairs]).sum(0), len(x))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Distance of every patch, lower is better: (N, 1, rows, columns) of 64x64 patches."""
        rows = len(tiles(x, SIDE)[0])
        return rearrange(self._distances(x, given(y)), "n (rows columns) -> n 1 rows columns", rows=rows)


_BORDER = (
    "64x64 patches side by side: up to 63 pixels at the right and at the bottom are not read and get no gradient; "
    "train on random crops whose sides are multiples of 64, or seams every 64 pixels show",
)


_FACTS: dict[str, Any] = {
    "domains": frozenset({"natural", "screen"}),
    "min_size": SIDE,
    "licence_code": "Apache-2.0",
    "licence_weights": "none stated, in an Apache-2.0 repository",
    "weights": ("fpr",),
    "paper": "Chen et al., No-Reference Image Quality Assessment by Hallucinating Pristine Features, TIP 31, 2022",
    "source": "https://github.com/Baoliang93/FPR commit fd8b41c",
}


_SCORE = opinion_card(
    **_FACTS,
    better="lower",
    name="fpr",
    summary="Blind score of 64x64 patches whose features were taught to imagine those of the unseen reference.",
    kind="nr",
    tiling="never",
    notes=(
        "the direction belongs to the weights: those for natural images and for SIQAD learned DMOS of 0 to 100, where "
        "lower is better; those for SCID learned MOS: say better='higher'",
        "patches are weighted by a recurrent network, in column order: the authors shuffle them even in their test, so "
        "that their scores repeat to about the effect of the order only",
        "no bound on either side: as a plain loss restorers push it below the score of any reference",
        *_BORDER,
    ),
)

_FEATURE = distance_card(
    **_FACTS,
    name="fpr-feature",
    summary="Distance between the features, seen and imagined, that FPR's blind branch makes of image and reference.",
    fidelity="after-paper",
    notes=(
        "the network is the authors', the distance ours: that of their triplet loss, whose margin is 0.5",
        "it reads the same weights as fpr, and needs no direction of theirs",
        *_BORDER,
    ),
)

ENTRIES = {"fpr": Entry(_SCORE, FPR), "fpr-feature": Entry(_FEATURE, FPRFeature)}
