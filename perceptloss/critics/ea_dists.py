"""ea-dists: DISTS of two images plus DISTS of their edges, the default of one-step diffusion super-resolution.

Li, Cao, Zou, Su, Yuan, Zhang, Guo, Yang: "Unleashing the Power of One-Step Diffusion based Image Super-Resolution via
a Large-Scale Diffusion Discriminator" (D3SR, formerly DFOSD), 2024, https://github.com/JianzeLi-114/D3SR (no licence is
stated, nothing is taken from it): DISTS(x, y) + DISTS(S(x), S(y)), S the magnitude of Sobel's gradient of the grey
image, 1e-6 under its root, as public trainers have it. DISTS itself is that of `dists`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.card import distance_card
from perceptloss.critic import Entry, given
from perceptloss.networks.distances import IMAGENET_RULES, TextureStructureCritic
from perceptloss.networks.functional import mix_channels
from perceptloss.networks.sobel import sobel
from perceptloss.networks.trunks import Features
from perceptloss.weights.rules import STAGED_L2_TRUNK, TORCHVISION_TRUNK

__all__ = ["ENTRIES", "EdgeAwareDISTS", "edges"]

_GREY = (0.2989, 0.587, 0.114)
_EPS = 1e-6


def edges(image: Tensor) -> Tensor:
    """Size of the gradient of the grey image, three times: (N, 3, H, W) to the same shape, 0.001 where it is flat."""
    right, down = sobel(mix_channels(image, (_GREY,)))
    return (right.square() + down.square() + _EPS).sqrt().expand(-1, 3, -1, -1)


class EdgeAwareDISTS(TextureStructureCritic):
    """DISTS of the images plus DISTS of their edges; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("ea-dists", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    rules = (*STAGED_L2_TRUNK, *TORCHVISION_TRUNK, *IMAGENET_RULES)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        ex, ey = edges(x), edges(given(y))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            of_reference = self.look(ey)
        of_edges = super().compare(ex, ey, self.look(ex), of_reference)
        return super().compare(x, y, fx, fy) + of_edges


_CARD = distance_card(
    name="ea-dists",
    summary="DISTS of the images plus DISTS of their Sobel edges; common in one-step diffusion super-resolution.",
    bounds=(0.0, 2.26),
    min_size=32,
    low_precision=True,
    fidelity="paper",
    licence_code="none stated (formula from the paper), MIT (DISTS)",
    licence_weights="MIT (alpha and beta), BSD-3-Clause (torchvision trunk)",
    weights=("vgg16", "dists"),
    paper="Li et al., Unleashing the Power of One-Step Diffusion based Image Super-Resolution via a Large-Scale "
    "Diffusion Discriminator, 2024",
    source="https://github.com/JianzeLi-114/D3SR (formula only); https://github.com/dingkeyan93/DISTS commit 1267d8c",
    notes=(
        "two runs of VGG16 for each image: twice the cost of dists, and only the first is shared with other critics",
        "the authors give it images in [0, 1], as here; some trainers give it latents' [-1, 1] unscaled",
        "statistics run over the whole crop: use 128 pixels or more",
        "weak on exact position: combine with a pixel loss",
    ),
)

ENTRIES = {"ea-dists": Entry(_CARD, EdgeAwareDISTS)}
