r"""channel-kl: how far the shares of red, green and blue are from the reference's, pixel by pixel.

The term `kl_loss` of neosr (Apache-2.0; written from its facts): the softmax over the channels of a pixel is taken as
a distribution, and distributions are compared by Kullback and Leibler's divergence. Ours: no constant is added under
the logarithm, which a softmax does not need.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError

__all__ = ["ENTRIES", "ChannelKL"]


class ChannelKL(Critic):
    r"""Mean over pixels of \sum_c q_c \log(q_c / p_c), p and q the softmax of image and reference; lower is better.

    Args:
        card: What it is.
        total: Whether pixels are added up, as in neosr, so that large crops cost more.

    Raises:
        ConfigError: if the option is none.

    Example:
        >>> critic = create_critic("channel-kl")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def __init__(self, card: Card, *, total: bool = False) -> None:
        if not isinstance(total, bool):
            raise ConfigError([f"options.total must be true or false, got {total!r}"], card.name)
        super().__init__(replace(card, tiling="never") if total else card)
        self.total = total

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        pixels = self.quality_map(x, y)
        return pixels.sum((1, 2, 3)) if self.total else pixels.mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Divergence of every pixel, lower is better: (N, 1, H, W)."""
        p, q = (image.log_softmax(1) for image in (x, given(y)))
        return (q.exp() * (q - p)).sum(1, keepdim=True)


_CARD = distance_card(
    name="channel-kl",
    summary="Divergence of the shares of red, green and blue of each pixel; blind to grey levels.",
    domains=frozenset({"colours"}),
    tiling="exact",
    fidelity="paper",
    licence_code="Apache-2.0 (neosr)",
    paper="of neosr, 2024; Kullback and Leibler, On Information and Sufficiency, 1951",
    source="https://github.com/neosr-project/neosr losses/kl_loss.py (facts only)",
    notes=(
        "made to stand beside others: what is added to all channels of a pixel alike costs nothing",
        "small numbers: the largest divergence of two colours in [0, 1] is 0.46",
    ),
)

ENTRIES = {"channel-kl": Entry(_CARD, ChannelKL)}
