r"""gradient-weighted: absolute error that costs more where the gradients of the two images differ.

Wei, Xie, Lu, Zhang, Tian, Zuo, Zhang, Lin: "Component Divide-and-Conquer for Real-World Image Super-Resolution", ECCV
2020. Numbers follow `gw_loss` of neosr (Apache-2.0; written from its facts), whose diagonal derivatives are its
straight ones once more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.sobel import sobel

__all__ = ["ENTRIES", "GradientWeighted"]

_FACTOR = 4  # alpha of the paper


class GradientWeighted(Critic):
    r"""Mean of w |x - y|; lower is better, 0 for equal images.

    w = (1 + 4 |\Delta_h|)^2 (1 + 4 |\Delta_v|)^2, with differences \Delta of Sobel's derivatives of the grey images.

    Args:
        card: What it is.
        corner: As above; else w = 1 + 4 max(|\Delta_h|, |\Delta_v|), which does not favour corners.

    Raises:
        ConfigError: if the option is none.

    Example:
        >>> critic = create_critic("gradient-weighted")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def __init__(self, card: Card, *, corner: bool = True) -> None:
        if not isinstance(corner, bool):
            raise ConfigError([f"options.corner must be true or false, got {corner!r}"], card.name)
        super().__init__(card)
        self.corner = corner

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Weighed error of every pixel, a mean over its channels, lower is better: (N, 1, H, W)."""
        difference = x - given(y)
        right, down = (slope.abs() for slope in sobel(difference.mean(1, keepdim=True)))
        if self.corner:
            weights = ((1 + _FACTOR * right) * (1 + _FACTOR * down)).square()
        else:
            weights = 1 + _FACTOR * torch.maximum(right, down)
        return weights * difference.abs().mean(1, keepdim=True)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        own = area.of(self.quality_map(x, y)).double()
        return torch.stack([own.sum((1, 2, 3)), own.new_full((len(x),), own[0].numel())], 1)


_CARD = distance_card(
    name="gradient-weighted",
    summary="Absolute error that costs more where gradients differ: edges and corners before flat areas.",
    tiling="exact",
    halo=1,
    fidelity="paper",
    licence_code="Apache-2.0 (neosr)",
    paper="Wei et al., Component Divide-and-Conquer for Real-World Image Super-Resolution, ECCV 2020",
    source="https://github.com/neosr-project/neosr losses/gw_loss.py (facts only)",
    notes=(
        "a pixel can weigh up to 83521 times its error: in early training state a share, or options: {corner: false}",
        "the paper has the two straight derivatives; as in neosr, their factors count twice",
    ),
)

ENTRIES = {"gradient-weighted": Entry(_CARD, GradientWeighted)}
