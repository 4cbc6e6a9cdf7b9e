"""mini-underwater: a small no-reference quality of underwater pictures of our own.

Not from a paper. What mini-nr reads, and colour, light and veil besides (`water_bank`). It learns what full-reference
critics say of simulated water, how much raw picture is left in a mix (Fu et al., "Twice Mixing", SPIC 2022), and what
indices of colour, contrast and naturalness say of enhanced pictures where they agree. Trained by `recipes/critic.py`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from perceptloss.card import opinion_card
from perceptloss.critic import Entry
from perceptloss.critics.mini.nr import MiniNR
from perceptloss.critics.mini.statistics_bank import StatisticsBank
from perceptloss.critics.mini.viewing import TRUNK
from perceptloss.critics.mini.water_bank import WaterBank
from perceptloss.networks.trunks import LITE_TAPS

__all__ = ["ENTRIES", "MiniUnderwater"]


class _Banks(nn.Module):
    """Statistics of any picture, and of water."""

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.general, self.water = StatisticsBank(scales), WaterBank()
        self.features = self.general.features + self.water.features

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.general(x), self.water(x)], 1)


class MiniUnderwater(MiniNR):
    """Quality of an underwater picture, about -1 (a ruin) to 1 (clear); higher is better, unbounded.

    Arguments as of `MiniNR`.

    Example:
        >>> critic = create_critic("mini-underwater")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    taps = tuple(t for t, width in LITE_TAPS.items() if t.startswith("near.") or (t.startswith("far.") and width <= 80))
    banks = _Banks


_CARD = opinion_card(
    name="mini-underwater",
    summary="Small underwater quality of our own, learned from simulated water and from enhanced raw pictures.",
    kind="nr",
    min_size=32,
    domains=frozenset({"underwater"}),
    low_precision=True,
    licence_code="Apache-2.0 (ours)",
    licence_weights="Apache-2.0 (trunk: EfficientNet-lite0; ours: weights/mini-underwater.md lists the pictures)",
    weights=(TRUNK, "mini-underwater"),
    fidelity="after-paper",
    paper="none; after Fu et al., Twice Mixing, SPIC 2022, and the image formation of Akkaynak and Treibitz, CVPR 2018",
    source="perceptloss, recipes/configs/mini_underwater.yaml",
    notes=(
        "taught by full-reference critics, by UCIQE, UIQM and NIQE, and by mixing raw with restored pictures, never by "
        "people",
        "a restorer can please it without getting better: keep its weight small beside a pixel loss",
    ),
)

ENTRIES = {"mini-underwater": Entry(_CARD, partial(MiniUnderwater, hidden=128))}
