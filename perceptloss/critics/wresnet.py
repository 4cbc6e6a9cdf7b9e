"""WResNet: a plain residual network over 32x32 patches, the baseline that RADN is built on.

Shi, Bai, Cao, Xia, Wang, Chen, Yang: "Region-Adaptive Deformable Network for Image Quality
Assessment", CVPR Workshops 2021. Original: https://github.com/IIGROUP/RADN (commit be1ae49, no
licence stated; ours is written from the description). The authors' blur and L2 pooling variants are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.patch_ladder import HEAD, LADDER, PatchHead, PatchLadderCritic, initialise, ladder
from perceptloss.networks.patches import per_image

__all__ = ["ENTRIES", "WResNet"]


class WResNet(PatchLadderCritic):
    """WResNet opinion score, about 0.6 to 1 on PIPAL; higher is better, without a fixed score at identity.

    Patches do not see each other. `maps` gives their values.

    Args:
        card: What it is.
        widths: Channels of the five stages.
        hidden: Units of the head's hidden layers.

    Example:
        >>> critic = create_critic("wresnet", weights=None)
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 96, 96)).sum().backward()
    """

    rules = (*LADDER, *HEAD)

    def __init__(self, card: Card, *, widths: Sequence[int] = (64, 128, 256, 256, 512), hidden: int = 512) -> None:
        super().__init__(card)
        self.ladder = ladder(widths, rectified=False)
        self.head = PatchHead(widths[-1], hidden)
        initialise(self, self.head)

    def vectors(self, x: Tensor, y: Tensor, images: int) -> tuple[Tensor, Tensor]:
        vx, vy = (per_image(self.ladder(patches).mean((2, 3)), images) for patches in (x, y))
        return vx, vy


_CARD = opinion_card(
    name="wresnet",
    summary="Weighted mean of the opinion scores of 32x32 patches, learned from scratch on PIPAL; has a quality map.",
    kind="fr",
    min_size=33,
    fidelity="paper",
    licence_code="none stated",
    licence_weights="none stated",
    weights=("wresnet",),
    paper="Shi et al., Region-Adaptive Deformable Network for Image Quality Assessment, CVPR Workshops 2021",
    source="https://github.com/IIGROUP/RADN commit be1ae49",
    notes=(
        "unless both sides are multiples of 32, up to 63 pixels at the bottom and at the right are not read, as in the "
        "authors' test, and get no gradient: give the term a crop that is a multiple of 32",
        "patches do not see across their borders: crop at random offsets in training, or seams every 32 pixels show",
        "trained on scores divided by the largest one, so about 0.6 to 1",
        "the smallest side is 33, because the authors' rule leaves no patch of a 32-pixel side beside a longer one",
    ),
)

ENTRIES = {"wresnet": Entry(_CARD, WResNet)}
