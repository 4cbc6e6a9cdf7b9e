r"""NIQE: distance of an image's natural-scene statistics from those of pristine photographs.

Mittal, Soundararajan, Bovik: "Making a 'Completely Blind' Image Quality Analyzer", IEEE SPL 2013.
Original: http://live.ece.utexas.edu/research/quality/niqe_release.zip; numbers follow
https://github.com/XPixelGroup/BasicSR 1.4.2 (Apache-2.0). Ours: a slope through the shape of the
distributions, and finite values and gradients on flat images, where the original gives NaN.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import gaussian, imresize, mix_channels, root
from perceptloss.networks.nss import StatisticsCritic, fits, mscn, offset, rounded
from perceptloss.weights.rules import Rule, constant

__all__ = ["ENTRIES", "NIQE", "block_features", "distance", "features", "moments"]

_LUMA = ((65.481, 128.553, 24.966),)  # of ITU-R BT.601, plus 16


def block_features(blocks: Tensor, *, table: bool = False) -> tuple[Tensor, Tensor]:
    """Features of normalised blocks, and which of them are defined.

    Args:
        blocks: Normalised grey levels, (..., h, w).
        table: See `perceptloss.networks.nss.shape_of`.

    Returns:
        Shape and mean scale of the levels, then shape, mean, left and right scale of the products with four
        neighbours (around the block's ends), (..., 18), 0 where undefined; and whether each is defined.
    """
    f = fits(blocks, table=table)
    scale = ((torch.lgamma(1 / f.alpha) - torch.lgamma(3 / f.alpha)) / 2).exp()
    left, right, both = scale * f.left, scale * f.right, f.has_left & f.has_right
    mean = (f.right - f.left) * offset(f.alpha) * both
    level = torch.stack([f.alpha, (left + right) / 2 * both], -1)[..., 0, :]
    pairs = torch.stack([f.alpha, mean, left, right], -1)[..., 1:, :].flatten(-2)
    always = torch.ones_like(both)
    level_there = torch.stack([always, both], -1)[..., 0, :]
    pairs_there = torch.stack([always, both, f.has_left, f.has_right], -1)[..., 1:, :].flatten(-2)
    return torch.cat([level, pairs], -1), torch.cat([level_there, pairs_there], -1)


def features(grey: Tensor, *, block: int = 96, table: bool = False) -> tuple[Tensor, Tensor]:
    """Features of every block at two scales, and which of them are defined.

    Args:
        grey: Levels of 0-255, (N, 1, H, W), float64; what exceeds a multiple of `block` is left out.
        block: Side of a block, even.
        table: See `perceptloss.networks.nss.shape_of`.

    Returns:
        (N, blocks, 36) each, block rows first.
    """
    rows, columns = (n // block for n in grey.shape[-2:])
    grey = grey[..., : rows * block, : columns * block]
    scales = []
    for side in (block, block // 2):
        if side < block:
            grey = imresize(grey, (rows * side, columns * side), (0.5, 0.5))
        normalised = mscn(grey, "replicate")[:, 0]
        blocks = rearrange(normalised, "n (rows h) (columns w) -> n (rows columns) h w", h=side, w=side)
        scales.append(block_features(blocks, table=table))
    found, defined = zip(*scales, strict=True)
    return torch.cat(found, -1), torch.cat(defined, -1)


def distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    r"""Distance of two Gaussians, \sqrt{d^T ((S_1 + S_2) / 2)^+ d}: (..., F) and (..., F, F) to (...)."""
    inverse = torch.linalg.pinv((covariance + other_covariance) / 2, rtol=1e-15, hermitian=True)
    d = (mean - other_mean)[..., None]
    return root((d.mT @ inverse @ d)[..., 0, 0].relu())


def moments(found: Tensor, defined: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the blocks where a feature is defined; covariance over those where all are, 0 for fewer than two."""
    mean = (found * defined).sum(1) / defined.sum(1).clamp_min(1)
    whole = defined.all(-1, keepdim=True)
    count = whole.sum(1, keepdim=True)
    away = (found - (found * whole).sum(1, keepdim=True) / count.clamp_min(1)) * whole
    return mean, away.mT @ away / (count - 1).clamp_min(1)


class NIQE(StatisticsCritic):
    """Distance from natural statistics, 0 or more; lower is better, about 3 to 8 for photographs.

    Args:
        card: Its card.
        block: Side of the blocks in pixels; the pristine statistics belong to 96.
        table: See `StatisticsCritic`.

    Example:
        >>> critic = create_critic("niqe")
        >>> x = torch.rand(2, 3, 192, 192, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    mean: Tensor
    covariance: Tensor
    rules = (
        Rule(r"mu_pris_?param", "mean"),
        Rule(r"cov_pris_?param", "covariance"),
        constant(r"gaussian_window", "the Gaussian window of 7x7 with sigma 7/6", lambda critic: critic.window),
    )

    def __init__(self, card: Card, *, block: int = 96, table: bool = False) -> None:
        super().__init__(card, table=table)
        self.block = block
        spread = torch.randn(36, 36, dtype=torch.float64) / 12
        self.register_buffer("mean", torch.rand(36, dtype=torch.float64))
        self.register_buffer("covariance", spread @ spread.mT + 0.1 * torch.eye(36, dtype=torch.float64))

    @property
    def window(self) -> Tensor:
        """The window of the local mean and deviation, (7, 7)."""
        taps = torch.tensor(gaussian(7, 7 / 6), dtype=torch.float64)
        return taps[:, None] * taps

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        grey = mix_channels(x.double(), _LUMA) + 16
        found = features(rounded(grey) if self.table else grey, block=self.block, table=self.table)
        return distance(self.mean.double(), self.covariance.double(), *moments(*found)).to(x.dtype)


_CARD = opinion_card(
    name="niqe",
    summary="Distance of the statistics of normalised luminance from those of pristine photographs.",
    kind="nr",
    better="lower",
    bounds=(0.0, math.inf),
    min_size=192,
    tiling="never",
    licence_code="Apache-2.0 (BasicSR); permission notice of the University of Texas at Austin (Matlab)",
    licence_weights="permission notice of the University of Texas at Austin: free use with the notice and a citation",
    weights=("niqe",),
    paper="Mittal et al., Making a 'Completely Blind' Image Quality Analyzer, IEEE Signal Processing Letters 2013",
    source="https://github.com/XPixelGroup/BasicSR 1.4.2 (Apache-2.0); "
    "http://live.ece.utexas.edu/research/quality/niqe_release.zip",
    notes=(
        "published numbers round the luminance to whole grey levels and shapes to thousandths: set critic.table = True "
        "to report, within 3e-4 of BasicSR's number on photographs (4e-5 at the median); the default is smooth",
        "blocks of 96x96, of which 37 are needed for a covariance of full rank; the covariance of the pristine "
        "statistics is added, so fewer do, but scores of images of unlike size do not compare",
        "pixels beyond a multiple of 96 on the right and at the bottom are not seen, nor is colour",
        "easily won by a restorer that adds texture: use it beside a reference loss, or to report only",
        "blocks without contrast are left out, as published; an image of nothing else gets a finite constant",
        "computes in float64 whatever the images are",
    ),
)

ENTRIES = {"niqe": Entry(_CARD, NIQE)}
