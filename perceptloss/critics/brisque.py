r"""BRISQUE: a support vector regression on the natural-scene statistics of the luminance.

Mittal, Moorthy, Bovik: "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP
2012. Original: https://github.com/utlive/BRISQUE; numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: a slope through the shape of
the distributions, and finite values and gradients on flat images, which the original refuses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceptloss.card import PIQ, Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import YIQ, imresize, mix_channels
from perceptloss.networks.nss import SHAPES, StatisticsCritic, fits, mscn, offset, rounded, shape_of
from perceptloss.weights.rules import Rule

__all__ = ["BRISQUE", "ENTRIES", "RANGES", "features"]

# smallest and largest value of each feature over the training images, which scaling maps to -1 and 1
RANGES = (
    ((0.338, 10.0), (0.017204, 0.806612)),
    ((0.236, 1.642), (-0.123884, 0.20293), (0.000155, 0.712298), (0.001122, 0.470257)),
    ((0.244, 1.641), (-0.123586, 0.179083), (0.000152, 0.710456), (0.000975, 0.470984)),
    ((0.249, 1.555), (-0.135687, 0.100858), (0.000174, 0.684173), (0.000913, 0.534174)),
    ((0.258, 1.561), (-0.143408, 0.100486), (0.000179, 0.685696), (0.000888, 0.536508)),
    ((0.471, 3.264), (0.012809, 0.703171)),
    ((0.218, 1.046), (-0.094876, 0.187459), (1.5e-5, 0.442057), (0.001272, 0.40803)),
    ((0.222, 1.042), (-0.115772, 0.162604), (1.6e-5, 0.444362), (0.001374, 0.40243)),
    ((0.227, 0.996), (-0.117188, 0.098323), (3e-5, 0.531903), (0.001122, 0.369589)),
    ((0.228, 0.99), (-0.12243, 0.098658), (2.8e-5, 0.530092), (0.001118, 0.370399)),
)
_COUNT = 36


def features(grey: Tensor, *, table: bool = False) -> Tensor:
    """Features of whole images at two scales.

    Args:
        grey: Levels of 0-255, (N, 1, H, W), float64.
        table: See `perceptloss.networks.nss.shape_of`.

    Returns:
        Per scale the shape and variance of the normalised levels, then shape, mean, left and right variance of
        the products with four neighbours (around the image's ends), (N, 36).
    """
    found: list[Tensor] = []
    for scale in range(2):
        if scale:
            height, width = grey.shape[-2:]
            size = height // 2, width // 2
            grey = imresize(grey, size, (size[0] / height, size[1] / width))
        f = fits(mscn(grey, "constant")[:, 0], table=table)
        shape = shape_of(f.ratio[:, 0], table=table, inverse=True)
        shape = shape.where(f.power[:, 0] > 0, shape.new_tensor(SHAPES[0]))
        mean = (f.right - f.left) * offset(f.alpha)
        pairs = torch.stack([f.alpha, mean, f.left.square(), f.right.square()], -1)[:, 1:].flatten(1)
        found += [torch.stack([shape, f.power[:, 0]], 1), pairs]
    return torch.cat(found, 1)


class BRISQUE(StatisticsCritic):
    r"""Predicted difference of opinions, about 0 to 100; lower is better, below 0 happens.

    .. math:: s = \sum_k c_k \exp(-\gamma \|f - v_k\|^2) - \rho

    Args:
        card: Its card.
        vectors: Number of support vectors.
        gamma: Of the kernel.
        rho: Offset.
        ranges: Smallest and largest value of each feature, 36 pairs. A regression fitted by others brings its own
            of all of these.
        table: See `StatisticsCritic`.

    Example:
        >>> critic = create_critic("brisque")
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    ranges: Tensor
    rules = (
        Rule(r"0", "coefficients"),
        Rule(r"1", "vectors"),
        Rule(r"gamma", None, "the width of the kernel as given to the critic", lambda c, t: _equal(t, c.gamma)),
        Rule(r"rho", None, "the offset as given to the critic", lambda c, t: _equal(t, c.rho)),
    )

    def __init__(
        self,
        card: Card,
        *,
        vectors: int = 774,
        gamma: float = 0.05,
        rho: float = -153.591,
        ranges: Tensor | None = None,
        table: bool = False,
    ) -> None:
        super().__init__(card, table=table)
        self.gamma, self.rho = gamma, rho
        if ranges is None:
            ranges = torch.tensor([pair for group in RANGES for pair in group], dtype=torch.float64)
        self.register_buffer("ranges", ranges.double(), persistent=False)
        signs = torch.randn(vectors, dtype=torch.float64)
        self.coefficients = nn.Parameter(4 * (signs - signs.mean()) / math.sqrt(vectors))
        self.vectors = nn.Parameter(2 * torch.rand(vectors, _COUNT, dtype=torch.float64) - 1)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        grey = mix_channels(255 * x.double(), YIQ[:1])
        low, high = self.ranges.double().unbind(1)
        found = features(rounded(grey) if self.table else grey, table=self.table)
        scaled = 2 * (found - low) / (high - low) - 1
        away = (scaled[:, None] - self.vectors.double()).square().sum(-1)
        return ((torch.exp(-self.gamma * away) * self.coefficients.double()).sum(1) - self.rho).to(x.dtype)


def _equal(found: Tensor, wanted: float) -> bool:
    return found.numel() == 1 and math.isclose(found.item(), wanted, rel_tol=1e-6)


_CARD = opinion_card(
    name="brisque",
    summary="Support vector regression from the statistics of normalised luminance to opinions.",
    kind="nr",
    better="lower",
    min_size=16,
    tiling="never",
    licence_code="Apache-2.0 (piq); permission notice of the University of Texas at Austin (Matlab)",
    licence_weights="permission notice of the University of Texas at Austin: free use with the notice and a citation",
    weights=("brisque",),
    paper="Mittal et al., No-Reference Image Quality Assessment in the Spatial Domain, IEEE TIP 2012",
    source=f"{PIQ}; https://github.com/utlive/BRISQUE",
    notes=(
        "published numbers round the luminance to whole grey levels and shapes to thousandths: set critic.table = True "
        "to report; the default is smooth",
        "the 774 support vectors of the authors' release, as piq has them; models fitted by others (of OpenCV and of "
        "several Python packages) have other ranges and offsets, and their scores do not compare",
        "fitted to whole photographs of the LIVE set; accepted from 16 pixels on, but noisy below about 200",
        "far from all support vectors the score tends to 153.6 and its slope to 0: an image can be too bad to improve",
        "products wrap around the ends of the image, and zeros lie outside, as published",
        "blind to colour; computes in float64 whatever the images are",
    ),
)

ENTRIES = {"brisque": Entry(_CARD, BRISQUE)}
