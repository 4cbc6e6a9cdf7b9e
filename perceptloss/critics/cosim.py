"""cosim: the angle between the colours of two images, pixel by pixel: blind to how bright they are.

The term `cosimloss` of traiNNer-redux and part of others of neosr (both Apache-2.0; written from their facts), one
minus the cosine of the angle of RGB vectors. Ours: slopes are limited where colours are nearly black.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.layers import unit_norm

__all__ = ["ENTRIES", "CosineColour"]

_LEAST = 1e-8


class CosineColour(Critic):
    """Mean of 1 - cos of the angle between RGB vectors, in [0, 1]; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("cosim")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = (unit_norm(image.clamp_min(_LEAST)) for image in (x, given(y)))
        return (x - y).square().sum(1).mean((1, 2)) / 2


_CARD = distance_card(
    name="cosim",
    summary="Angle between the colours of two images; blind to brightness.",
    bounds=(0.0, 1.0),
    domains=frozenset({"colours"}),
    tiling="exact",
    fidelity="paper",
    licence_code="Apache-2.0 (traiNNer-redux)",
    paper="of old; in restorers' losses since neosr, 2023",
    source="https://github.com/the-database/traiNNer-redux losses/cosim_loss.py (facts only)",
    notes=(
        "made to stand beside others: grey on grey costs nothing, whatever the levels are",
        "others multiply it by 5 (cosim_lambda)",
    ),
)

ENTRIES = {"cosim": Entry(_CARD, CosineColour)}
