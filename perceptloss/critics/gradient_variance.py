"""gradient-variance: how much the gradients inside each patch vary, against those of the reference.

Abrahamyan, Truong, Philips, Deligiannis: "Gradient Variance Loss for Structure-Enhanced Image Super-Resolution",
ICASSP 2022. Original: https://github.com/lusinlu/gradient-variance-loss (no licence is stated, nothing is taken from
it). The formula is the paper's: variances of Sobel gradients of the luminance in patches that do not overlap, of
n^2 - 1 degrees of freedom, and their mean squared difference.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.criteria import Criterion, apart, known_criterion, least_of
from perceptloss.networks.functional import mix_channels
from perceptloss.networks.sobel import sobel

__all__ = ["ENTRIES", "GradientVariance"]

_GREY = (0.2989, 0.5870, 0.1140)
_SIDE = 8


class GradientVariance(Critic):
    """Difference of the variances of horizontal and of vertical gradients, a mean over patches; lower is better.

    Args:
        card: What it is.
        patch_size: Side of a patch, pixels; what is left at the right and at the bottom is not seen.
        criterion: Of the differences: `l2` as published, `l1` or `charbonnier`.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("gradient-variance")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(self, card: Card, *, patch_size: int = _SIDE, criterion: Criterion = "l2") -> None:
        if not isinstance(patch_size, int) or patch_size < 2:
            problem = f"options.patch_size must be a whole number of at least 2, got {patch_size!r}"
            raise ConfigError([problem], card.name)
        self.patch_size, self.criterion = patch_size, known_criterion(criterion, card.name)
        least = 2 * least_of(self.criterion)
        super().__init__(replace(card, min_size=patch_size, identity=least, bounds=(least, card.bounds[1])))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        pairs = zip(self._variances(x), self._variances(given(y)), strict=True)
        return torch.stack([apart(vx, vy, self.criterion).mean((1, 2)) for vx, vy in pairs]).sum(0)

    def _variances(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Variances of the horizontal and the vertical gradients in every patch, each (N, rows, columns)."""
        horizontal, vertical = sobel(mix_channels(image, (_GREY,)))
        return self._of_patches(horizontal[:, 0]), self._of_patches(vertical[:, 0])

    def _of_patches(self, gradient: Tensor) -> Tensor:
        n = self.patch_size
        rows, columns = (side // n for side in gradient.shape[1:])
        patches = gradient[:, : rows * n, : columns * n].unflatten(2, (columns, n)).unflatten(1, (rows, n))
        centred = patches - patches.mean((2, 4), keepdim=True)
        return centred.square().sum((2, 4)) / (n * n - 1)


_CARD = distance_card(
    name="gradient-variance",
    summary="Difference of the variance of gradients inside patches: against blur, whose gradients vary less.",
    min_size=_SIDE,
    tiling="approximate",
    fidelity="paper",
    licence_code="none stated (formula from the paper)",
    paper="Abrahamyan et al., Gradient Variance Loss for Structure-Enhanced Image Super-Resolution, ICASSP 2022",
    source="https://github.com/lusinlu/gradient-variance-loss (formula only)",
    notes=(
        "made to stand beside a pixel loss: it sees neither colour nor where in a patch an edge is",
        "noise that makes up for lost texture is no error to it",
        "patches of 8 pixels as published; configurations of others have 16: options: {patch_size: 16}",
    ),
)

ENTRIES = {"gradient-variance": Entry(_CARD, GradientVariance)}
