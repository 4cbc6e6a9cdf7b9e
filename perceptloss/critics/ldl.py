"""ldl: mean absolute error weighed by where the error varies: artefacts cost more than blur.

Liang, Zeng, Zhang: "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022. Original: https://github.com/csjliang/LDL (Apache-2.0; written from the paper). This is
the form without averaged weights, which a critic does not see, as neosr has it; with them there are `maps.artefacts`
and the drop-in `ldlloss`.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.artefacts import artefact_map
from perceptloss.networks.criteria import Criterion, apart, known_criterion

__all__ = ["ENTRIES", "LDL"]


class LDL(Critic):
    """Mean distance of weighed images, lower is better, 0 for equal images.

    Args:
        card: What it is.
        criterion: Of the distance: `l1`, `l2` or `charbonnier`.
        ksize: Odd side of the window in which the error's variance is taken.
        constant: Whether weights are constants of the gradient; else a restorer may also lower them.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("ldl")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def __init__(self, card: Card, *, criterion: Criterion = "l1", ksize: int = 7, constant: bool = True) -> None:
        if not isinstance(ksize, int) or ksize < 3 or ksize % 2 == 0:
            raise ConfigError([f"options.ksize must be an odd number of at least 3, got {ksize!r}"], card.name)
        self.criterion, self.ksize, self.constant = known_criterion(criterion, card.name), ksize, constant
        super().__init__(card)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = given(y)
        weights = artefact_map(x, y, window=self.ksize)
        if self.constant:
            weights = self.held(weights)
        return apart(weights * x, weights * y, self.criterion).mean((1, 2, 3))


_CARD = distance_card(
    name="ldl",
    summary="Absolute error weighed by its local variance: artefacts cost more than blur.",
    min_size=4,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0",
    paper="Liang et al., Details or Artifacts: A Locally Discriminative Learning Approach, CVPR 2022",
    source="https://github.com/csjliang/LDL (formula); without averaged weights as in neosr's ldl_loss",
    notes=(
        "made to stand beside an adversarial loss and a pixel loss",
        "small numbers, of the third power of the error",
        "the authors spare pixels where the averaged weights do worse: see maps.artefacts",
    ),
)

ENTRIES = {"ldl": Entry(_CARD, LDL)}
