"""SSIM and MS-SSIM: local agreement of luminance, contrast and structure.

Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE TIP 2004, and Wang, Simoncelli, Bovik: "Multi-scale Structural Similarity for
Image Quality Assessment", Asilomar 2003. Originals: https://ece.uwaterloo.ca/~z70wang/research/ssim/;
numbers follow https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: the Gaussian
is applied as two 1-D passes, odd sides of MS-SSIM are halved by the authors' rule, not piq's, and
the slope of its fractional powers is limited near zero, where the original gives NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import PIQ, Card, similarity_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.networks.functional import bounded_power, halve, shrink_factor
from perceptloss.networks.windows import SCALE_WEIGHTS, TAPS, ssim_maps

__all__ = ["ENTRIES", "MSSSIM", "SSIM", "ms_ssim", "ssim"]

Extension = Literal["end", "start"]
_FLOOR = 1e-3  # of a scale's similarity, below which the slope of its power is held


def shrink(x: Tensor) -> Tensor:
    """Average by the factor of the published code: 1 below 384 pixels on the short side."""
    factor = shrink_factor(x)
    return F.avg_pool2d(x, factor) if factor > 1 else x


def _ssim_map(x: Tensor, y: Tensor, downsample: bool) -> Tensor:
    if downsample:
        x, y = shrink(x), shrink(y)
    luminance, structure = ssim_maps(x, y)
    return luminance * structure


def ssim(x: Tensor, y: Tensor, *, downsample: bool = True) -> Tensor:
    """SSIM, in [-1, 1]; 1 is best. Mean over pixels and channels.

    Args:
        x: Judged images, (N, C, H, W), in [0, 1], sides of at least 11.
        y: Reference images, same shape.
        downsample: Average large images first, as the published code does.

    Returns:
        One score per image, (N,).
    """
    return _ssim_map(x, y, downsample).mean((1, 2, 3))


def ms_ssim(x: Tensor, y: Tensor, *, extend: Extension = "end") -> Tensor:
    r"""MS-SSIM, in [0, 1]; 1 is best. Mean over channels of \prod_k relu(s_k)^{w_k}.

    s_k is the mean contrast-structure term of scale k, and the mean SSIM at the last scale.

    Args:
        x: Judged images, (N, C, H, W), in [0, 1], sides of at least 161.
        y: Reference images, same shape.
        extend: Where an odd side repeats its border before it is halved: at its `end`, as the authors'
            code does, or at its `start`, and of both sides if one is odd, as piq does.

    Returns:
        One score per image, (N,).
    """
    return _joined([similar.mean((2, 3)) for similar in _scales(x, y, extend)])


def _scales(x: Tensor, y: Tensor, extend: Extension) -> Iterator[Tensor]:
    """The map s_k of every scale, (N, C, h, w)."""
    for scale in range(len(SCALE_WEIGHTS)):
        x, y = (_half(x, extend), _half(y, extend)) if scale else (x, y)
        luminance, structure = ssim_maps(x, y)
        yield luminance * structure if scale == len(SCALE_WEIGHTS) - 1 else structure


def _joined(means: Sequence[Tensor]) -> Tensor:
    """Scores (N,) from the mean of every scale's map, each (N, C)."""
    score = torch.ones_like(means[0])
    for mean, weight in zip(means, SCALE_WEIGHTS, strict=True):
        score = score * bounded_power(mean.relu(), weight, _FLOOR)
    return score.mean(1)


def _half(x: Tensor, extend: Extension) -> Tensor:
    rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
    if not rows and not columns:
        return halve(x)
    if extend == "end":
        return halve(F.pad(x, (0, columns, 0, rows), mode="replicate"))
    return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2)


class SSIM(Critic):
    """Structural similarity in [-1, 1]; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("ssim")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def __init__(self, card: Card, *, downsample: bool = True) -> None:
        super().__init__(card)
        self.downsample = downsample

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return ssim(x, given(y), downsample=self.downsample)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        own = area.of(_ssim_map(x, given(y), downsample=False))
        return torch.stack([own.sum((1, 2, 3)), own.new_full((len(x),), own[0].numel())], 1)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """SSIM of every window, mean over channels, (N, 1, h - 10, w - 10), after downsampling if any."""
        return _ssim_map(x, given(y), self.downsample).mean(1, keepdim=True)


class MSSSIM(Critic):
    """Multi-scale structural similarity in [0, 1]; higher is better, 1 for equal images.

    Args:
        card: What it is.
        extend: As of `ms_ssim`.

    Example:
        >>> critic = create_critic("ms-ssim")
        >>> x = torch.rand(1, 3, 176, 176, requires_grad=True)
        >>> (1 - critic(x, x.detach() ** 2)).sum().backward()
    """

    def __init__(self, card: Card, *, extend: Extension = "end") -> None:
        super().__init__(card)
        self.extend: Extension = extend

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return ms_ssim(x, given(y), extend=self.extend)

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        owns = [area.of(similar, 2**scale) for scale, similar in enumerate(_scales(x, given(y), self.extend))]
        cells = [own.new_full((len(x), 1), own.shape[-2:].numel()) for own in owns]
        return torch.cat([*(own.sum((2, 3)) for own in owns), *cells], 1)

    def settle(self, sums: Tensor) -> Tensor:
        scales = len(SCALE_WEIGHTS)
        totals, cells = sums[:, :-scales].chunk(scales, 1), sums[:, -scales:].split(1, 1)
        return _joined([total / count for total, count in zip(totals, cells, strict=True)])


_card = partial(similarity_card, source=f"{PIQ}; https://ece.uwaterloo.ca/~z70wang/research/ssim/")
_WANG = "Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004"
_FLAT = "quadratic near the optimum, so it stalls late in training: combine with a pixel loss"
_BOUND = "the lower bound is approached by opposite images of full contrast (about -0.996)"

_SSIM = _card(
    name="ssim",
    summary="Structural similarity of luminance, contrast and structure in 11x11 windows, as published.",
    bounds=(-1.0, 1.0),
    min_size=TAPS,
    tiling="never",
    paper=_WANG,
    notes=(
        "images are averaged by round(short side / 256) first, so the scale follows the crop size: see ssim-full",
        "mean of the three RGB channels; no conversion to grey",
        _FLAT,
        _BOUND,
    ),
)
_SSIM_FULL = _card(
    name="ssim-full",
    summary="Structural similarity at full resolution, whatever the size of the image or crop.",
    bounds=(-1.0, 1.0),
    min_size=TAPS,
    tiling="exact",
    halo=TAPS - 1,
    paper=_WANG,
    notes=("mean of the three RGB channels; no conversion to grey", _FLAT, _BOUND),
)
_MS_SSIM = _card(
    name="ms-ssim",
    summary="Structural similarity at five scales; the usual companion of a pixel loss.",
    bounds=(0.0, 1.0),
    min_size=(TAPS - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1,
    tiling="exact",
    halo=TAPS * 2 ** (len(SCALE_WEIGHTS) - 1),
    stride=2 ** (len(SCALE_WEIGHTS) - 1),
    paper="Wang et al., Multi-scale Structural Similarity for Image Quality Assessment, Asilomar 2003",
    notes=(
        "0 with no gradient for a channel in which one scale is anticorrelated (an untrained output): "
        "start with a pixel loss",
        "an odd side repeats its last line before halving, as in the authors' code; piq repeats the first (5e-4 apart)",
        "the published weights sum to 1.0001",
    ),
)

ENTRIES = {
    "ssim": Entry(_SSIM, SSIM),
    "ssim-full": Entry(_SSIM_FULL, partial(SSIM, downsample=False)),
    "ms-ssim": Entry(_MS_SSIM, MSSSIM),
}
