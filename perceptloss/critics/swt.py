"""swt: absolute differences of the bands of a stationary wavelet transform, each with its own weight.

Korkmaz, Tekalp, Dogan: "Training Generative Image Super-Resolution Models by Wavelet-Domain Losses Enables Better
Control of Artifacts", CVPR 2024 (https://github.com/mandalinadagi/WGSR, no licence is stated), and Korkmaz, Tekalp:
"Training Transformer Models by Wavelet Losses Improves Quantitative and Visual Performance in Single Image
Super-Resolution", CVPRW 2024. Written from the facts: luma, one level, sides joined in a circle, a low-pass filter
that sums to 1 beside the orthonormal high-pass filter. Filters are those of PyWavelets 1.9 (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import STUDIO_LUMA, mix_channels

__all__ = ["ENTRIES", "SWT", "Wavelet", "bands"]

Wavelet = Literal["haar", "sym7", "sym19"]
# scaling coefficients
_LOW: Final[dict[str, tuple[float, ...]]] = {
    "haar": (0.7071067811865476, 0.7071067811865476),
    "sym7": (
        *(0.002681814568257878, -0.0010473848886829163, -0.01263630340325193, 0.03051551316596357),
        *(0.0678926935013727, -0.049552834937127255, 0.017441255086855827, 0.5361019170917628),
        *(0.767764317003164, 0.2886296317515146, -0.14004724044296152, -0.10780823770381774),
        *(0.004010244871533663, 0.010268176708511255),
    ),
    "sym19": (
        *(5.487732768215838e-07, -6.463651303345963e-07, -1.1880518269823984e-05, 8.873312173729286e-06),
        *(0.0001155392333357879, -4.612039600210587e-05, -0.000635764515004334, 0.00015915804768084938),
        *(0.0021214250281823303, -0.0011607032572062486, -0.005122205002583014, 0.007968438320613306),
        *(0.01579743929567463, -0.02265199337824595, -0.046635983534938946, 0.0070155738571741596),
        *(0.008954591173043624, -0.06752505804029409, 0.10902582508127781, 0.578144945338605),
        *(0.7195555257163943, 0.2582661692372836, -0.17659686625203097, -0.11624173010739675),
        *(0.09363084341589714, 0.08407267627924504, -0.016908234861345205, -0.02770989693131125),
        *(0.004319351874894969, 0.008262236955528255, -0.0006179223277983108, -0.0017049602611649971),
        *(0.00012930767650701415, 0.0002762187768573407, -1.6821387029373716e-05, -2.8151138661550245e-05),
        *(2.0623170632395688e-06, 1.7509367995348687e-06),
    ),
}
_WEIGHTS = (0.05, 0.025, 0.025, 0.02)


def _filters(wavelet: Wavelet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Low-pass taps that sum to 1, and the high-pass ones of an orthonormal bank."""
    taps = _LOW[wavelet]
    high = tuple((-1) ** (k + 1) * tap for k, tap in enumerate(taps[::-1]))
    return tuple(tap / sum(taps) for tap in taps), high


def _convolved(plane: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
    """Convolution along `dim` in a circle, its middle tap in place."""
    total = torch.zeros_like(plane)
    for k, tap in enumerate(taps):
        total = torch.add(total, plane.roll(k - len(taps) // 2, dim), alpha=tap)
    return total


def bands(plane: Tensor, wavelet: Wavelet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One level of the stationary transform of maps (..., H, W).

    Returns:
        Approximation, and details of horizontal, vertical and diagonal edges, each of the same shape.
    """
    low, high = _filters(wavelet)
    smooth, sharp = (_convolved(plane, taps, -1) for taps in (low, high))
    vertical, diagonal = (_convolved(sharp, taps, -2) for taps in (low, high))
    approximation, horizontal = (_convolved(smooth, taps, -2) for taps in (low, high))
    return approximation, horizontal, vertical, diagonal


class SWT(Critic):
    """Weighted sum of the mean absolute differences of four wavelet bands of the luma; lower is better, 0 is equal.

    Args:
        card: What it is.
        wavelet: `sym19`, `sym7` or `haar`.
        weights: Of the approximation and of the horizontal, vertical and diagonal details.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("swt")
        >>> x = torch.rand(2, 3, 48, 48, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 48, 48)).sum().backward()
    """

    def __init__(self, card: Card, *, wavelet: Wavelet = "sym19", weights: Sequence[float] = _WEIGHTS) -> None:
        problems = []
        if wavelet not in get_args(Wavelet):
            problems.append(f"options.wavelet must be one of {', '.join(get_args(Wavelet))}, got {wavelet!r}")
        count = len(_WEIGHTS)
        if not (isinstance(weights, Sequence) and len(weights) == count and min(weights) >= 0 < max(weights)):
            problems.append(f"options.weights must be {count} numbers of at least 0, not all 0, got {weights!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(card)
        self.wavelet, self.weights = wavelet, tuple(weights)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        difference = mix_channels(x - given(y), (STUDIO_LUMA,))
        parts = zip(bands(difference, self.wavelet), self.weights, strict=True)
        return torch.stack([weight * band.abs().mean((1, 2, 3)) for band, weight in parts if weight]).sum(0)


_CARD = distance_card(
    name="swt",
    summary="Differences of the bands of a stationary wavelet transform of the luma, each with its own weight.",
    min_size=2,
    tiling="approximate",
    fidelity="paper",
    licence_code="none stated (formula from the papers)",
    paper="Korkmaz et al., Training Generative Image Super-Resolution Models by Wavelet-Domain Losses Enables Better "
    "Control of Artifacts, CVPR 2024; Korkmaz, Tekalp, Training Transformer Models by Wavelet Losses, CVPRW 2024",
    source="https://github.com/mandalinadagi/WGSR (formulas only); filters of PyWavelets 1.9",
    notes=(
        "luma in [0, 1] here, in [0, 255] in the authors' code: their weights are 255 times as heavy",
        "blind to changes of colour at one luma: combine with a pixel loss",
    ),
)

ENTRIES = {"swt": Entry(_CARD, SWT)}
