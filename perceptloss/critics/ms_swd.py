"""ms-swd: colours of two images compared as sets, over five scales, by sorted random projections of small patches.

He, Wang, Wang, Liu, Fang, Sun, Ma: "Multiscale Sliced Wasserstein Distances as Perceptual Color Difference Measures",
ECCV 2024. Original: https://github.com/real-hjq/MS-SWD (commit 18df950; no licence is stated, nothing is taken from
it). This is the form without training. Ours: projections are drawn once from a seed, so that a score repeats; like
theirs they differ between the scales.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import lab_of_light, light
from perceptloss.networks.functional import slide

__all__ = ["ENTRIES", "MSSWD", "pyramid"]

_PATCH = 11
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def pyramid(image: Tensor, scales: int) -> list[Tensor]:
    """Images (N, C, H, W), blurred by a binomial window over mirrored borders and halved, `scales` of them."""
    levels = [image]
    for _ in range(scales - 1):
        padded = F.pad(levels[-1], (2, 2, 2, 2), mode="reflect")
        levels.append(slide(slide(padded, _BINOMIAL, -1), _BINOMIAL, -2)[..., ::2, ::2])
    return levels


class MSSWD(Critic):
    """Multiscale sliced Wasserstein distance of colours in CIE Lab units; lower is better, 0 for equal images.

    Args:
        card: What it is.
        num_scale: Scales, each half the size of the one before.
        num_proj: Projections of a patch at each scale.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("ms-swd")
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 96, 96)).sum().backward()
    """

    projections: Tensor

    def __init__(self, card: Card, *, num_scale: int = 5, num_proj: int = 128) -> None:
        given_numbers = {"num_scale": num_scale, "num_proj": num_proj}
        problems = [
            f"options.{name} must be a whole number of at least 1, got {value!r}"
            for name, value in given_numbers.items()
            if not isinstance(value, int) or value < 1
        ]
        if problems:
            raise ConfigError(problems, card.name)
        least = (_PATCH // 2) * 2 ** (num_scale - 1) + 1  # mirrored borders need more than half a patch
        super().__init__(replace(card, min_size=least))
        generator = torch.Generator().manual_seed(zlib.crc32(b"ms-swd"))
        drawn = torch.randn(num_scale * num_proj, 3, _PATCH, _PATCH, generator=generator)
        norms = drawn.flatten(1).norm(dim=1)[:, None, None, None]
        self.register_buffer("projections", drawn / norms, persistent=False)  # four places, for channels_last
        self.scales = num_scale

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        directions = self.projections.chunk(self.scales)
        pairs = zip(pyramid(x, self.scales), pyramid(given(y), self.scales), directions, strict=True)
        return torch.stack([self._distance(a, b, d) for a, b, d in pairs]).mean(0)

    @staticmethod
    def _distance(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
        sides = (_PATCH // 2,) * 4
        sets = [
            F.conv2d(F.pad(lab_of_light(light(image)), sides, mode="reflect"), directions).flatten(2).sort(-1).values
            for image in (x, y)
        ]
        return (sets[0] - sets[1]).abs().mean((1, 2))


_CARD = distance_card(
    name="ms-swd",
    summary="Colours of small patches compared as sets over five scales (sliced Wasserstein); blind to where they are.",
    min_size=81,
    tiling="never",
    fidelity="paper",
    licence_code="none stated (formula from the paper)",
    paper="He et al., Multiscale Sliced Wasserstein Distances as Perceptual Color Difference Measures, ECCV 2024",
    source="https://github.com/real-hjq/MS-SWD commit 18df950 (formula only), the form without training",
    notes=(
        "for images that do not align: it sees which colours there are, not where; combine with a pixel loss",
        "the authors draw new projections each time; these are drawn once, so that scores repeat",
        "no resizing: the authors' script shrinks the short side to 256 first",
    ),
)

ENTRIES = {"ms-swd": Entry(_CARD, MSSWD)}
