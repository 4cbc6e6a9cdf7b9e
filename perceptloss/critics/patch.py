"""patch: six convolutions that learn beside a restorer what its output has not, and the ground truth has.

After the patch discriminator of Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial
Networks", CVPR 2017. Ours: no strided convolution, so that no gradient prints the grid of the strides.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.errors import ConfigError

__all__ = ["ENTRIES", "Patch"]

_SLOPE = 0.2


class Patch(Critic):
    """How much an image looks as those do that it learned to prefer: mean of a map, unbounded, higher is better.

    `maps` gives a cell for every 4x4 pixels, each of which sees 34 x 34.

    Args:
        card: What it is.
        width: Channels at full size, half of those at a quarter of it.

    Raises:
        ConfigError: if the width is none.

    Example:
        >>> critic = create_critic("patch", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    def __init__(self, card: Card, *, width: int = 24) -> None:
        super().__init__(card)
        if not isinstance(width, int) or width < 1:
            raise ConfigError([f"options.width must be a whole number of at least 1, got {width!r}"], card.name)
        wide = 2 * width
        self.fine = nn.Sequential(*_layer(3, width), *_layer(width, width))
        self.middle = nn.Sequential(*_layer(width, wide))
        self.coarse = nn.Sequential(*_layer(wide, wide), *_layer(wide, wide), nn.Conv2d(wide, 1, 1))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        seen = self.middle(_halved(self.fine(2 * x - 1)))
        out: Tensor = self.coarse(_halved(seen))
        return out


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
    nn.init.kaiming_normal_(conv.weight, _SLOPE)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv, nn.LeakyReLU(_SLOPE)


def _halved(h: Tensor) -> Tensor:
    return F.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)


_CARD = opinion_card(
    name="patch",
    summary="Small patch network that learns beside a restorer; without learning it says nothing.",
    kind="nr",
    min_size=4,
    shape="softplus",
    fidelity="after-paper",
    licence_code="Apache-2.0 (ours)",
    licence_weights="the user's own",
    weights=("patch",),
    paper="after Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017",
    source="perceptloss",
    notes=(
        "nothing is published: a term of it says weights: null and joint: true",
        "it knows the outputs of one restorer from one kind of ground truth, and says little of other images",
    ),
)

ENTRIES = {"patch": Entry(_CARD, Patch)}
