"""HaarPSI: agreement of the fine Haar coefficients, weighted by the coarse ones.

Reisenhofer, Bosse, Kutyniok, Wiegand: "A Haar Wavelet-Based Perceptual Similarity Index for Image
Quality Assessment", Signal Processing: Image Communication 2018. Original:
https://github.com/rgcda/haarpsi; numbers follow https://github.com/photosynthesis-team/piq 0.8.0
(Apache-2.0). Ours: the final logit is a difference of logarithms, exact near 1 in float32 and
finite for two black images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import FLAT, PIQ, similarity_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.networks.functional import YIQ, blur, halve, mix_channels, similarity

__all__ = ["ENTRIES", "HaarPSI", "haar", "haarpsi"]

_C, _ALPHA = 30.0, 4.2
_SIZES = (2, 4, 8)  # of the wavelets
_BEFORE, _AFTER = 3, 4  # margin of the largest
# blocks of rows and columns, each twice one before
_STEPS = (
    *(((1, 1), (1, 2)), ((1, 1), (2, 1)), ((1, 2), (2, 2)), ((2, 2), (2, 4)), ((2, 2), (4, 2))),
    *(((2, 4), (4, 4)), ((4, 4), (4, 8)), ((4, 4), (8, 4))),
)


class _Haar(torch.autograd.Function):
    """See `haar`; linear, so that its gradient is `_Transposed` and that one's is `_Haar`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        blocks = _blocks(F.pad(x, (_BEFORE, _AFTER) * 2))
        found = x.new_empty(len(x), 2 * len(_SIZES), height, width)
        for plane, (block, near, far) in zip(found.unbind(1), _halves(blocks, height, width), strict=True):
            plane.copy_(block[near][:, 0]).sub_(block[far][:, 0])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Transposed.apply(grads[0])


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        height, width = g.shape[-2:]
        margin = _BEFORE + _AFTER
        blocks = {
            (rows, columns): g.new_zeros(len(g), 1, height + margin + 1 - rows, width + margin + 1 - columns)
            for rows, columns in ((1, 1), *(step[1] for step in _STEPS))
        }
        for plane, (block, near, far) in zip(g.unbind(1), _halves(blocks, height, width), strict=True):
            block[near][:, 0].add_(plane)
            block[far][:, 0].sub_(plane)
        for small, large in reversed(_STEPS):
            first, second = _neighbours(blocks[small], small, large)
            first.add_(blocks[large])
            second.add_(blocks[large])
        return blocks[1, 1][..., _BEFORE:-_AFTER, _BEFORE:-_AFTER].contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Haar.apply(grads[0])


def _neighbours(block: Tensor, small: tuple[int, int], large: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of sums of `small` blocks whose sum is that of `large` ones."""
    dim, step = (-2, small[0]) if small[1] == large[1] else (-1, small[1])
    length = block.shape[dim] - step
    return block.narrow(dim, 0, length), block.narrow(dim, step, length)


def _blocks(p: Tensor) -> dict[tuple[int, int], Tensor]:
    """Sums over blocks of rows and columns, by doubling: exact, and so alike, where an area has one colour."""
    found = {(1, 1): p}
    for small, large in _STEPS:
        found[large] = torch.add(*_neighbours(found[small], small, large))
    return found


def _halves(blocks: dict[tuple[int, int], Tensor], height: int, width: int) -> Iterator[tuple[Tensor, Any, Any]]:
    """For each wavelet, the blocks that are its halves and where they lie for every pixel."""
    for size in _SIZES:
        half = size // 2
        first = _BEFORE + 1 - half
        rows, columns = slice(first, first + height), slice(first, first + width)
        below, right = slice(first + half, first + half + height), slice(first + half, first + half + width)
        yield blocks[half, size], (..., rows, columns), (..., below, columns)
        yield blocks[size, half], (..., rows, columns), (..., rows, right)


def haar(x: Tensor) -> Tensor:
    """Magnitudes of undecimated Haar coefficients, zeros outside: (N, 1, H, W) to (N, 6, H, W).

    Of wavelets of sides 2, 4 and 8, which are 1 in one half and -1 in the other (the published ones are divided by
    their side); of each the first channel compares top and bottom, the second left and right.
    """
    found: Tensor = _Haar.apply(x)
    return found.abs()


def _similarity_and_weight(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = (halve(mix_channels(255 * image, YIQ)) for image in (x, y))
    first, second = haar(x[:, :1]), haar(y[:, :1])
    scales = zip(_SIZES[:-1], first.split(2, 1), second.split(2, 1), strict=False)
    similar = [similarity(a, b, _C * size**2) for size, a, b in scales]
    texture = (similar[0] + similar[1]) / 2
    weight = torch.maximum(first[:, 4:], second[:, 4:]) / _SIZES[-1]
    x, y = (blur(F.pad(image[:, 1:], (0, 1, 0, 1)), (0.5, 0.5)).abs() for image in (x, y))
    chroma = similarity(x, y, _C).mean(1, keepdim=True)
    return torch.cat([texture, chroma], 1), torch.cat([weight, weight.mean(1, keepdim=True)], 1)


def haarpsi(x: Tensor, y: Tensor) -> Tensor:
    r"""HaarPSI, in [0, 1]; 1 is best: (\operatorname{logit}(\text{weighted mean of } \sigma(4.2 s)) / 4.2)^2.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 16.
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    high, low = _weighted(*_similarity_and_weight(x, y))
    return _settled(high, low, torch.finfo(x.dtype).eps)


def _weighted(similar: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Sums (N,) of w \sigma(4.2 s) and of w (1 - \sigma(4.2 s))."""
    high, low = ((torch.sigmoid(sign * similar) * weight).sum((1, 2, 3)) for sign in (_ALPHA, -_ALPHA))
    return high, low


def _settled(high: Tensor, low: Tensor, eps: float) -> Tensor:
    # logit(high / (high + low)) = log(high) - log(low); without any weight the score is 1
    above, below = (total + eps / (1 + math.exp(-sign)) for total, sign in ((high, _ALPHA), (low, -_ALPHA)))
    return ((above.log() - below.log()) / _ALPHA).square()


class HaarPSI(Critic):
    """Haar wavelet similarity in [0, 1]; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("haarpsi")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return haarpsi(x, given(y))

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        own = (area.of(part, 2) for part in _similarity_and_weight(x, given(y)))
        return torch.stack(_weighted(*own), 1)

    def settle(self, sums: Tensor) -> Tensor:
        high, low = sums.unbind(1)
        return _settled(high, low, torch.finfo(self.dtype or torch.float32).eps)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Mean of the horizontal, vertical and chroma similarity, (N, 1, ceil(H / 2), ceil(W / 2))."""
        return _similarity_and_weight(x, given(y))[0].mean(1, keepdim=True)


_CARD = similarity_card(
    name="haarpsi",
    summary="Similarity of Haar wavelet coefficients; fast and close to opinions on classical damage.",
    min_size=16,
    tiling="exact",
    halo=10,
    stride=2,
    paper="Reisenhofer et al., A Haar Wavelet-Based Perceptual Similarity Index for Image Quality Assessment, "
    "SPIC 2018",
    source=f"{PIQ}; https://github.com/rgcda/haarpsi",
    notes=(
        "edges of the reference and of the judged image weigh alike; flat areas weigh little",
        FLAT,
        "smooth luminance shifts cost little: combine with a pixel loss",
    ),
)

ENTRIES = {"haarpsi": Entry(_CARD, HaarPSI)}
