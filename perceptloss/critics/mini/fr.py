"""mini-fr: a small full-reference distance of our own, taught by the consensus of other critics and by order.

Not from a paper. It weighs differences in bands of frequency and colour (`band_bank`) together with features of the
shared trunk, compared as in LPIPS (Zhang et al., CVPR 2018) and DISTS (Ding et al., TPAMI 2020), by a head of positive
weights: the distance of equal images is exactly 0, and it rises with each of the differences. What the
reference is made of decides, within bounds, how much they count. Trained by `recipes/critic.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry, given
from perceptloss.critics.mini.pair_distance import PairCritic
from perceptloss.critics.mini.viewing import TRUNK
from perceptloss.errors import InputError

__all__ = ["ENTRIES", "MiniFR"]

_SMALL = 1e-3  # distances are compared by their logarithms above this


class MiniFR(PairCritic):
    """A distance >= 0 of two images, lower is better, exactly 0 for equal ones. Arguments are those of `PairCritic`.

    Example:
        >>> critic = create_critic("mini-fr")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    unused = (r"preference\..*",)  # of `prefer` alone

    def __init__(
        self, card: Card, *, views: int = 6, scales: int = 5, hidden: int = 48, pixels_per_degree: float = 60.0
    ) -> None:
        super().__init__(card, views=views, scales=scales, hidden=hidden, pixels_per_degree=pixels_per_degree)
        inputs = self.bank.features + self.distances.features + self.facts
        self.normalise = nn.BatchNorm1d(inputs, affine=False, momentum=0.02)
        self.preference = nn.Sequential(nn.Linear(inputs, 64), nn.GELU(), nn.Linear(64, 1))

    def prefer(self, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """Probability that people prefer `a` to `b`, (N,), where `y` may itself be a damaged version of the scene.

        `prefer(a, b, y) + prefer(b, a, y)` is 1. Differentiable in both images.

        Args:
            a: Images, RGB in [0, 1], (N, 3, H, W).
            b: Images of the same scenes, same shape.
            y: The best versions that are known, same shape: clean originals, or not.

        Raises:
            InputError: as when it scores, saying which of the two it is about.
        """
        utilities = []
        for name, image in (("a", a), ("b", b)):
            try:
                x, reference = self.admit(image, y)
            except InputError as error:
                raise InputError(f"prefer(a, b, y), where {name} is x: {error}") from None
            if len(x) == 0:
                return x.flatten(1).sum(1)
            with torch.autocast(x.device.type, enabled=False):
                reference = given(reference)
                utilities.append(self.utility(self.reading(x, reference, self.look(x), self.look(reference))))
        return torch.sigmoid(utilities[0] - utilities[1])

    def utility(self, reading: Tensor) -> Tensor:
        """What `prefer` compares, of readings: (N,), higher is better, without a zero of its own."""
        _, _, facts, own = reading.split(self.sizes, 1)
        seen = torch.cat([(self.apart(reading) + _SMALL).log(), own - facts], 1)
        return self.preference(self.normalise(seen))[:, 0]


_CARD = distance_card(
    name="mini-fr",
    summary="Small distance of our own that ships with perceptloss: bands and colour beside learned features.",
    min_size=32,
    low_precision=True,
    licence_code="Apache-2.0 (ours)",
    licence_weights="Apache-2.0 (trunk: EfficientNet-lite0; ours: weights/mini-fr.md lists the photographs)",
    weights=(TRUNK, "mini-fr"),
    fidelity="after-paper",
    paper="none; after Zhang et al., CVPR 2018 (LPIPS), and Ding et al., TPAMI 2020 (DISTS)",
    source="perceptloss, recipes/configs/mini_fr.yaml",
    notes=(
        "taught by other critics and by the order of degradations, never by people: it shares the teachers' errors",
        "its distance of pixelation is a constant of the gradient, or a restorer would print patterns with even steps; "
        "hold_weights = False gives the exact derivative",
        "a move of a whole pixel still costs nearly as much as blur that one sees",
    ),
)

ENTRIES = {"mini-fr": Entry(_CARD, MiniFR)}
