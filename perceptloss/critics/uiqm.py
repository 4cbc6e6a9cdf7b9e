"""UIQM: colourfulness, sharpness and contrast of an underwater picture, by formula.

Panetta, Gao, Agaian: "Human-Visual-System-Inspired Underwater Image Quality Measures", IEEE Journal of
Oceanic Engineering 2016. The measure has several public forms that disagree. This is the one in widest
use, of https://github.com/xahidbuffon/FUnIE-GAN (commit 8f934c8, MIT), and its departures from print are
kept: the trimmed mean loses one value more than it divides by, variances run over all pixels, edges are
multiplied by the channel, contrast has no PLIP arithmetic. Ours: a value for images without any edge,
and gradients that stay bounded for values between the steps of an 8-bit file.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from perceptloss.card import opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.functional import edge_magnitude, root

__all__ = ["ENTRIES", "UIQM", "enhancement", "trimmed_mean", "uicm", "uiconm", "uiqm", "uism", "weighted_edges"]

_WEIGHTS = (0.0282, 0.2953, 3.5753)  # of colourfulness, sharpness and contrast
_CHANNELS = (0.299, 0.587, 0.144)  # as public codes have it; luma would be 0.114
_BLOCK = 10  # side, in pixels
_SOBEL = (1, 2)


def trimmed_mean(values: Tensor, share: float = 0.1, lost: int = 0) -> Tensor:
    """Mean without the smallest and the largest values.

    Args:
        values: (..., K).
        share: Of the values that is left out at each end, rounded up below and down above.
        lost: Smallest values that are left out besides but counted as if they were 0; 1 in UIQM.

    Returns:
        One mean per row, (...).
    """
    count = values.shape[-1]
    low, high = math.ceil(share * count), math.floor(share * count)
    kept = values.sort(dim=-1, stable=True).values[..., low + lost : count - high]
    return kept.sum(-1) / (count - low - high)


def uicm(x: Tensor) -> Tensor:
    """Colourfulness: spread of the red-green and yellow-blue opponents, less the size of their cast.

    Images (N, 3, H, W), RGB in [0, 1], to (N,), about -8 to 45; 0 for grey images.
    """
    r, g, b = (255 * x).flatten(2).unbind(1)
    opponents = torch.stack([r - g, (r + g) / 2 - b], 1)
    mean = trimmed_mean(opponents, lost=1)
    variance = (opponents - mean[..., None]).square().mean(2)
    return 0.1586 * root(variance.sum(1)) - 0.0268 * root(mean.square().sum(1))


def _extremes(maps: Tensor, kept: str) -> tuple[Tensor, Tensor]:
    """Largest and smallest values of blocks from the top left, without the remainder.

    Args:
        maps: (N, C, H, W).
        kept: Axes of the results: `n c rows columns`, or `n rows columns` for all channels together.
    """
    height, width = (n - n % _BLOCK for n in maps.shape[-2:])
    pattern, whole = f"n c (rows a) (columns b) -> {kept}", maps[..., :height, :width]
    return reduce(whole, pattern, "max", a=_BLOCK, b=_BLOCK), reduce(whole, pattern, "min", a=_BLOCK, b=_BLOCK)


def enhancement(maps: Tensor) -> Tensor:
    """EME: twice the mean of log(max / min) over blocks; a block that holds a 0 counts 0.

    Args:
        maps: (N, C, H, W), 0 or at least 1.

    Returns:
        One value per map, (N, C).
    """
    high, low = _extremes(maps, "n c rows columns")
    ratio = high.clamp_min(1).log() - low.clamp_min(1).log()
    return 2 * torch.where(low > 0, ratio, 0).mean((2, 3))


def _in_steps(levels: Tensor) -> Tensor:
    """As an 8-bit file would have it near 0: below half a step nothing, below a step a whole one."""
    return torch.where(levels < 0.5, 0, levels.clamp_min(1))


def weighted_edges(x: Tensor) -> Tensor:
    """Sobel edges times the channel, in squared 8-bit steps, 0 or at least 1: (N, 3, H, W) to the same shape.

    The published code first scales the edges to a maximum of 255, which the ratios of `enhancement` do not see.
    """
    levels = 255 * x
    edges = edge_magnitude(F.pad(levels, (1, 1, 1, 1), mode="replicate"), _SOBEL)[..., 1:-1, 1:-1]
    return _in_steps(edges) * _in_steps(levels)


def uism(x: Tensor) -> Tensor:
    """Sharpness: enhancement of the weighted edges, summed over channels: (N, 3, H, W) in [0, 1] to (N,), 0 to 26."""
    red, green, blue = enhancement(weighted_edges(x)).unbind(1)
    return _CHANNELS[0] * red + _CHANNELS[1] * green + _CHANNELS[2] * blue


def uiconm(x: Tensor) -> Tensor:
    """Contrast: mean of -r log(r) over blocks, r = (max - min) / (max + min) of all channels together.

    Images (N, 3, H, W), RGB in [0, 1], to (N,), 0 to 1/e; largest for blocks of medium contrast.
    """
    high, low = _extremes(255 * x, "n rows columns")
    span = high - low
    total = torch.maximum(high + low, span).clamp_min(1)  # less than the span only where values are negative
    # the logarithm sees whole steps: exact for 8-bit values, and no steeper between them
    return -(span / total * (span.clamp_min(1) / total).log()).mean((1, 2))


def uiqm(x: Tensor) -> Tensor:
    """UIQM, see the class: images (N, 3, H, W), RGB in [0, 1], sides of at least 10, to (N,)."""
    return _WEIGHTS[0] * uicm(x) + _WEIGHTS[1] * uism(x) + _WEIGHTS[2] * uiconm(x)


class UIQM(Critic):
    r"""UIQM in the form of FUnIE-GAN's code, -0.22 to 10.3, about 1 to 5 on pictures; higher is better.

    .. math:: 0.0282\,\mathrm{UICM} + 0.2953\,\mathrm{UISM} + 3.5753\,\mathrm{UIConM}

    For images on the steps of an 8-bit file it is the published value. Between them it is not rounded, so
    that it has a slope, except that edges and channels below half a step are none: there it jumps.

    Example:
        >>> critic = create_critic("uiqm")
        >>> x = torch.rand(1, 3, 64, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return uiqm(x)


_CARD = opinion_card(
    name="uiqm",
    summary="Colourfulness, sharpness and contrast of underwater pictures by formula; for reports.",
    kind="nr",
    bounds=(-0.2155, 10.3),
    domains=frozenset({"underwater"}),
    min_size=_BLOCK,
    licence_code="MIT",
    paper="Panetta et al., Human-Visual-System-Inspired Underwater Image Quality Measures, IEEE JOE 2016",
    source="https://github.com/xahidbuffon/FUnIE-GAN commit 8f934c8 (MIT), not the authors' own code",
    notes=(
        "the form of FUnIE-GAN's code with its departures from print; numbers of other forms do not compare",
        "easily cheated, so a report first: colourfulness grows with saturation without end, contrast is best at a "
        "third, and blur or a little grain can raise sharpness; as a loss use shape 'hinge', which stops at the "
        "reference's value, with a weight of 0.01 or less beside a pixel loss",
        "one pixel without an edge, or at 0, silences the sharpness of its 10x10 block, as published: the score jumps "
        "where that pixel appears, which the gradient does not see; clipped and flat areas lose by it",
        "most terms are extremes of blocks: the gradient is sparse; what is left beside full blocks of 10 counts "
        "for colour alone",
    ),
)

ENTRIES = {"uiqm": Entry(_CARD, UIQM)}
