"""aesop: distance of two images after an auto-encoder, which takes away what a restorer must make up anyway.

Lee, Hyun, Jun, Heo: "Auto-Encoded Supervision for Perceptual Image Super-Resolution", CVPR 2025. Original:
https://github.com/2minkyulee/AESOP-Auto-Encoded-Supervision-for-Perceptual-Image-Super-Resolution (Apache-2.0; only
the idea is taken). A pixel loss blurs because it punishes detail that is merely different; between
images that went through a code of a sixteenth of their pixels it does not see such detail, but colour, structure and
what is blurred. After the paper; the auto-encoder is ours, `networks.autoencoder`, taught by `recipes/sr.py` with
`recipes/configs/aesop.yaml`, where theirs ends in a large super-resolution network.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.autoencoder import Autoencoder
from perceptloss.networks.criteria import Criterion, apart, known_criterion, least_of
from perceptloss.weights.rules import Rule

__all__ = ["AESOP", "ENTRIES"]


class AESOP(Critic):
    """Mean distance of auto-encoded images; lower is better, 0 for equal images.

    Args:
        card: What it is.
        criterion: Of the distance: `l1` as published, `l2` or `charbonnier`.
        width: Channels of the auto-encoder.
        depth: Convolutions of its encoder; see `Autoencoder`.

    Raises:
        ConfigError: if the criterion is none of these.

    Example:
        >>> critic = create_critic("aesop")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    rules = (Rule(r"((?:encoder|decoder)\..+)", r"network.\1"),)

    def __init__(self, card: Card, *, criterion: Criterion = "l1", width: int = 32, depth: int = 4) -> None:
        self.criterion = known_criterion(criterion, card.name)
        least = least_of(self.criterion)
        super().__init__(replace(card, identity=least, bounds=(least, card.bounds[1])))
        self.network = Autoencoder(width, depth)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Distance of the auto-encoded images at every pixel, a mean over channels, lower is better: (N, 1, H, W)."""
        coded = [self._coded(image) for image in (x, given(y))]
        return apart(coded[0], coded[1], self.criterion).mean(1, keepdim=True)

    def _coded(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        down, right = (-side % self.network.factor for side in (height, width))
        padded = F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image
        return self.network(padded)[..., :height, :width]


_CARD = distance_card(
    name="aesop",
    summary="Pixel distance of auto-encoded images: leaves detail to other losses, holds colours and structure.",
    min_size=4,
    fidelity="after-paper",
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0 (ours)",
    weights=("aesop",),
    paper="Lee et al., Auto-Encoded Supervision for Perceptual Image Super-Resolution, CVPR 2025",
    source="https://github.com/2minkyulee/AESOP-Auto-Encoded-Supervision-for-Perceptual-Image-Super-Resolution (idea)",
    notes=(
        "takes the place of a pixel loss beside an adversarial or a perceptual one, with the weight of that loss",
        "the auto-encoder is ours and small, of a factor of 4: scores are not the paper's",
        "sides that are no multiple of 4 are continued by their last pixels",
    ),
)

ENTRIES = {"aesop": Entry(_CARD, AESOP)}
