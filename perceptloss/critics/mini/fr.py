"""mini-fr: a small full-reference distance of our own, taught by the consensus of classical critics and by order.

Not from a paper. It weighs what the classical indices compare (edges, chroma, structure and luminance at four
scales) together with learned features compared as in LPIPS (Zhang et al., CVPR 2018) and DISTS (Ding et al., TPAMI
2020), by a head whose weights are all positive: the distance of equal images is exactly 0, and it rises with each of
the differences. Trained by `recipes/critic.py`.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import distance_card
from perceptloss.critic import Entry, given
from perceptloss.critics.mini.pair_distance import PairCritic
from perceptloss.networks.trunks import Features, TrunkCritic

__all__ = ["ENTRIES", "MiniFR"]


class MiniFR(PairCritic, TrunkCritic):
    """A distance >= 0 of two images, lower is better, exactly 0 for equal ones. Arguments are those of `PairCritic`.

    Example:
        >>> critic = create_critic("mini-fr")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.head(self.apart(x, given(y), fx, fy))


_CARD = distance_card(
    name="mini-fr",
    summary="Small distance of our own that ships with perceptloss: classical similarities beside learned features.",
    min_size=32,
    low_precision=True,
    licence_code="Apache-2.0 (ours)",
    licence_weights="Apache-2.0 (ours; weights/mini-fr.md lists the photographs)",
    weights=("mini-fr",),
    fidelity="after-paper",
    paper="none; after Zhang et al., CVPR 2018 (LPIPS), Ding et al., TPAMI 2020 (DISTS), and Reisenhofer et al., "
    "SPIC 2018 (HaarPSI)",
    source="perceptloss, recipes/configs/mini_fr.yaml",
    notes=(
        "taught by other critics and by the order of degradations, never by people: it shares the teachers' errors",
    ),
)

ENTRIES = {"mini-fr": Entry(_CARD, MiniFR)}
