r"""ms-ssim-l1: multi-scale structural similarity mixed with the absolute error, both under Gaussian windows.

Zhao, Gallo, Frosio, Kautz: "Loss Functions for Image Restoration With Neural Networks", IEEE TCI 2017. Original:
https://github.com/NVlabs/PL4NN (commit d39c202, BSD-3-Clause), a layer that looks at the centre of a patch alone. As
losses of whole images have it (kornia's `MS_SSIMLoss`, traiNNer-redux's `msssiml1loss`, both Apache-2.0), every pixel
is a centre here, and zeros lie around the image. Written from their facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import blur, gaussian
from perceptloss.networks.windows import ssim_maps

__all__ = ["ENTRIES", "MSSSIML1"]

Join = Literal["mean", "product"]
SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the windows, fine to coarse, in pixels."""
_CUT, _NOTHING = 2.0, 7.5  # reach of the coarsest window in its sigmas; beyond the second a tap is below 1e-12


class MSSSIML1(Critic):
    r"""\alpha (1 - l_M \prod_j cs_j) + (1 - \alpha) G_M |x - y|, mean over pixels; lower is better, 0 for equal images.

    l_M is SSIM's luminance term under the coarsest window G_M, cs_j its contrast-structure term under window j.

    Args:
        card: What it is.
        alpha: Share of the similarity, in [0, 1]; 0.84 in the paper.
        sigmas: Of the Gaussian windows in pixels, rising.
        channels: Whether similarities of red, green and blue are averaged, as published (`mean`), or multiplied
            (`product`), as traiNNer-redux does.

    Raises:
        ConfigError: with every option that is none of these.

    Example:
        >>> critic = create_critic("ms-ssim-l1")
        >>> x = torch.rand(2, 3, 48, 48, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 48, 48)).sum().backward()
    """

    def __init__(
        self, card: Card, *, alpha: float = 0.84, sigmas: Sequence[float] = SIGMAS, channels: Join = "mean"
    ) -> None:
        problems = []
        if not 0 <= alpha <= 1:
            problems.append(f"options.alpha must be a number from 0 to 1, got {alpha!r}")
        if not sigmas or sigmas[0] <= 0 or any(fine >= coarse for fine, coarse in pairwise(sigmas)):
            problems.append(f"options.sigmas must be numbers above 0, rising, got {sigmas!r}")
        if channels not in get_args(Join):
            problems.append(f"options.channels must be one of {', '.join(get_args(Join))}, got {channels!r}")
        if problems:
            raise ConfigError(problems, card.name)
        reach = int(_CUT * sigmas[-1])
        super().__init__(replace(card, halo=reach))
        self.alpha, self.channels = float(alpha), channels
        self.windows = [gaussian(2 * min(reach, ceil(_NOTHING * sigma)) + 1, sigma) for sigma in sigmas]

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Loss of every pixel, lower is better: (N, 1, H, W)."""
        y = given(y)
        similar = torch.ones_like(x)
        for window in self.windows:
            light, structure = ssim_maps(_around(x, window), _around(y, window), window)
            similar = similar * structure
        similar = similar * light
        joined = similar.mean(1, keepdim=True) if self.channels == "mean" else similar.prod(1, keepdim=True)
        error = blur(_around((x - y).abs(), self.windows[-1]), self.windows[-1]).mean(1, keepdim=True)
        return self.alpha * (1 - joined) + (1 - self.alpha) * error

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        own = area.of(self.quality_map(x, y)).double()
        return torch.stack([own.sum((1, 2, 3)), own.new_full((len(x),), own[0].numel())], 1)


def _around(image: Tensor, window: tuple[float, ...]) -> Tensor:
    """The image with zeros around, so that a window fits over every pixel."""
    return F.pad(image, (len(window) // 2,) * 4)


_CARD = distance_card(
    name="ms-ssim-l1",
    summary="Structural similarity under five windows mixed with the smoothed absolute error, which keeps colours.",
    tiling="exact",
    halo=int(_CUT * SIGMAS[-1]),
    fidelity="paper",
    licence_code="BSD-3-Clause (PL4NN), Apache-2.0 (kornia, traiNNer-redux)",
    paper="Zhao et al., Loss Functions for Image Restoration With Neural Networks, IEEE TCI 2017",
    source="https://github.com/NVlabs/PL4NN commit d39c202 (facts only)",
    notes=(
        "alpha is 0.84 in the paper, 0.025 in its code, 0.1 in traiNNer-redux",
        "the finest window sees two pixels: grain and a blur that takes it away cost nearly as much as lost structure",
        "similarities are not held above 0: under two windows at once an inverted pattern looks similar again, "
        "so start from an output that resembles the reference",
        "pixels near the border weigh less in the absolute error, because zeros lie around the image",
    ),
)

ENTRIES = {"ms-ssim-l1": Entry(_CARD, MSSSIML1)}
