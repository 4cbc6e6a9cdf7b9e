r"""PIQE: how many of an image's busy blocks look compressed or noisy, without any training.

Venkatanath, Praneeth, Bh, Channappayya, Medasani: "Blind Image Quality Evaluation Using Perception Based Features",
NCC 2015. Original: https://github.com/buyizhiyou/NRVQA (Matlab of the authors) and Matlab's `piqe`; numbers follow
the package pypiqe 1.2 (MIT). Ours: a slope, which is that of the blocks' variances while the decisions of
the blocks are held, and finite values on black and flat images.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from perceptloss.card import opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import LUMA, mix_channels, soften
from perceptloss.networks.nss import StatisticsCritic, mscn, rounded

__all__ = ["ENTRIES", "PIQE", "blocks_of", "judged", "piqe"]

_SIDE, _SEGMENT = 16, 6  # pixels of a block, and of the pieces of its edges
_BUSY, _FLAT_EDGE = 0.1, 0.1  # variance of a block from which it counts; deviation of an edge under which it is blocky
_DARK = 0.05  # brightest pixel under which the slope fades


def blocks_of(grey: Tensor, *, table: bool = False) -> Tensor:
    """Locally normalised blocks, (N, rows, columns, 16, 16), of luminance in [0, 255], (N, 1, H, W), float64.

    The image is stretched until its brightest pixel is 255 and mirrored at its right and lower end to whole blocks.
    """
    for dim in (-2, -1):
        missing = -grey.shape[dim] % _SIDE
        if missing:
            grey = torch.cat([grey, grey.flip(dim).narrow(dim, 0, missing)], dim)
    peak = grey.amax((1, 2, 3), keepdim=True)
    stretched = 255 * soften(grey / peak.clamp_min(1e-9), peak, 255 * _DARK)
    normal = mscn(rounded(stretched) if table else stretched, "replicate")
    return rearrange(normal, "n 1 (r h) (c w) -> n r c h w", h=_SIDE, w=_SIDE)


@torch.no_grad()
def judged(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which blocks (..., 16, 16) are busy, look compressed, look noisy: three times (...)."""
    variance = blocks.flatten(-2).var(-1)
    ends = (blocks[..., 0, :], blocks[..., -1, :], blocks[..., :, 0], blocks[..., :, -1])
    edges = torch.stack(ends, -2).unfold(-1, _SEGMENT, 1)
    is_blocky = (edges.std(-1) < _FLAT_EDGE).flatten(-2).any(-1)
    middle = blocks[..., _SIDE // 2 - 1 : _SIDE // 2 + 1].flatten(-2).std(-1)
    # the published code takes a column out and then the one next but one
    others = [column for column in range(_SIDE) if column not in (_SIDE // 2 - 1, _SIDE // 2 + 1)]
    around = blocks[..., others].flatten(-2).std(-1)
    ratio = torch.where(middle > 0, middle / around, 0)
    deviation = variance.sqrt()
    uneven = (deviation - ratio).abs() / torch.maximum(deviation, ratio)  # NaN says no, as in the original
    return variance > _BUSY, is_blocky, deviation > 2 * uneven


def piqe(blocks: Tensor) -> Tensor:
    """The score of normalised blocks, (N, rows, columns, 16, 16) to (N,)."""
    is_busy, is_blocky, is_noisy = judged(blocks)
    variance = blocks.flatten(-2).var(-1)
    damage = is_busy * (is_blocky * (1 - variance) + is_noisy * variance)
    return 100 * (damage.sum((1, 2)) + 1) / (is_busy.sum((1, 2)) + 1)


class PIQE(StatisticsCritic):
    """Percentage of damage in busy blocks, about 0 to 100; lower is better.

    Example:
        >>> critic = create_critic("piqe")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        grey = 255 * mix_channels(x.double(), (LUMA,))
        return piqe(blocks_of(rounded(grey) if self.table else grey, table=self.table)).to(x.dtype)

    map_direction = "lower"

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Damage of the blocks, 0 where nothing was found, lower is better: (N, 1, ceil(H / 16), ceil(W / 16))."""
        blocks = blocks_of(255 * mix_channels(x.double(), (LUMA,)))
        is_busy, is_blocky, is_noisy = judged(blocks)
        variance = blocks.flatten(-2).var(-1)
        return (is_busy * (is_blocky * (1 - variance) + is_noisy * variance))[:, None].to(x.dtype)


_CARD = opinion_card(
    name="piqe",
    summary="Share of busy blocks that look compressed or noisy; needs no training and no weights.",
    kind="nr",
    better="lower",
    bounds=(-math.inf, math.inf),
    domains=frozenset({"compressed"}),
    min_size=_SIDE,
    tiling="never",
    fidelity="paper",
    licence_code="MIT (pypiqe)",
    paper="Venkatanath et al., Blind Image Quality Evaluation Using Perception Based Features, NCC 2015",
    source="the package pypiqe 1.2 (MIT); Matlab's piqe",
    notes=(
        "published numbers round the luminance to whole grey levels: set critic.table = True to report",
        "a score is made of yes and no: its slope is that of the blocks' variances, and it jumps where a block changes "
        "its mind; to report and to watch rather than to optimise",
        "a little noise or compression scores better than none, as published: of no use near the reference",
        "an image without a busy block scores 100, as published: flat is worst",
        "blind to colour; computes in float64 whatever the images are",
    ),
)

ENTRIES = {"piqe": Entry(_CARD, PIQE)}
