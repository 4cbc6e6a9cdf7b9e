r"""CNNIQA: one convolution, its largest and smallest answer, and three linear layers, on patches of 32x32.

Kang, Ye, Li, Doermann: "Convolutional Neural Networks for No-Reference Image Quality Assessment", CVPR 2014. No code
of the authors; layout and normalisation follow https://github.com/lidq92/CNNIQA (no licence stated; facts only).
Ours: every whole patch counts, nothing is dropped out, luminance is not rounded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.functional import LUMA, mix_channels, root
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import cut, per_image, tiles

__all__ = ["CNNIQA", "ENTRIES", "normalised"]

_SIDE = 32


def normalised(patches: Tensor) -> Tensor:
    """Patches less their local mean over their local deviation plus 1, 3x3, in [0, 1]: (P, 1, 32, 32) to the same."""

    def local(values: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3, stride=1)

    mean = local(patches)
    return (patches - mean) / (root((local(patches.square()) - mean.square()).relu()) + 1)


class CNNIQA(Critic):
    """Mean opinion of patches; lower is better for weights of LIVE, whose labels are differences of opinions.

    Args:
        card: Its card.
        kernels: Channels of the convolution.
        hidden: Lengths between the linear layers.

    Example:
        >>> critic = create_critic("cnniqa", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def __init__(self, card: Card, *, kernels: int = 50, hidden: tuple[int, int] = (800, 800)) -> None:
        super().__init__(card)
        self.conv1 = nn.Conv2d(1, kernels, 7)
        self.fc1, self.fc2 = nn.Linear(2 * kernels, hidden[0]), nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], 1)
        draw(self)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        grey = mix_channels(x, (LUMA,))
        patches = normalised(cut(grey, *tiles(grey, _SIDE), _SIDE))
        answers = self.conv1(patches).flatten(2)
        found = torch.cat([answers.amax(2), answers.amin(2)], 1)
        values = self.fc3(F.relu(self.fc2(F.relu(self.fc1(found)))))
        return per_image(values[:, 0], len(x)).mean(1)


_CARD = opinion_card(
    name="cnniqa",
    summary="Opinion score of luminance patches by one convolution and three linear layers; the first of its kind.",
    kind="nr",
    better="lower",
    min_size=_SIDE,
    fidelity="paper",
    licence_code="none stated (lidq92/CNNIQA)",
    licence_weights="none stated",
    weights=("cnniqa",),
    paper="Kang et al., Convolutional Neural Networks for No-Reference Image Quality Assessment, CVPR 2014",
    source="https://github.com/lidq92/CNNIQA",
    notes=(
        "what remains right of and below whole patches of 32 is not seen, nor is colour",
        "the code it follows leaves out the last row and column of patches where they fit exactly, and drops features "
        "at random while it tests; here neither is so",
        "weights trained on opinions instead of LIVE's differences of opinions: give better='higher'",
    ),
)

ENTRIES = {"cnniqa": Entry(_CARD, CNNIQA)}
