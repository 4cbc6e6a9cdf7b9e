"""Classical local similarities of two images at several scales, as distances that a head can weigh.

Gradient magnitudes as in GMSD and HaarPSI, chroma as in MDSI, local structure and luminance as in SSIM: what
these indices share, without their fixed constants and poolings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.functional import PREWITT, YIQ, edge_magnitude, local_mean, mix_channels, root_above

__all__ = ["SimilarityBank"]

_KINDS = ("edges", "chroma", "structure", "luminance")
_START = ((0.2, 0.1), (0.03, 0.06), (0.01, 0.02), (0.02, 0.05))  # roots of the stabilisers, [0, 1] images
_FLAT = 1e-3  # deviations below are of no interest, and their root would be steep
_WINDOW = 5


class SimilarityBank(nn.Module):
    """Distances 1 - similarity of edges, chroma, structure and luminance at several scales, in three poolings.

    Each is >= 0 and exactly 0 for equal images. Poolings: the mean over pixels, the mean weighted by the edges of both
    images, and the deviation over pixels.

    Args:
        scales: Number of scales; each halves the one before.
    """

    def __init__(self, scales: int = 4) -> None:
        super().__init__()
        self.scales = scales
        start = torch.tensor(_START).log().expand(scales, -1, -1).clone()
        self.log_c = nn.Parameter(start)  # (scales, kinds, 2): two stabilisers for each kind

    @property
    def features(self) -> int:
        """Number of distances."""
        return self.scales * len(_KINDS) * 2 * 3

    def forward(self, x: Tensor, y: Tensor, *, hold: bool = True) -> Tensor:
        """Distances of two images, (N, 3, H, W) RGB in [0, 1], to (N, features).

        Args:
            x: Judged images.
            y: Reference images.
            hold: Whether the edge weights are constants of the gradient.
        """
        found = []
        x, y = (mix_channels(image, YIQ) for image in (x, y))
        for scale in range(self.scales):
            if scale:
                x, y = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (x, y))
            found.append(self._at_scale(x, y, (2 * self.log_c[scale]).exp(), hold))
        return torch.cat(found, 1)

    def _at_scale(self, x: Tensor, y: Tensor, c: Tensor, hold: bool) -> Tensor:
        edges_x, edges_y = (edge_magnitude(image[:, :1], PREWITT) for image in (x, y))
        (mx, vx), (my, vy) = _mean_and_variance(x[:, :1]), _mean_and_variance(y[:, :1])
        covariance = local_mean(x[:, :1] * y[:, :1], _WINDOW) - mx * my
        products = (edges_x * edges_y, (x[:, 1:] * y[:, 1:]).sum(1, keepdim=True), covariance, mx * my)
        powers = (
            edges_x.square() + edges_y.square(),
            x[:, 1:].square().sum(1, keepdim=True) + y[:, 1:].square().sum(1, keepdim=True),
            vx + vy,
            mx.square() + my.square(),
        )
        apart = torch.cat(
            [
                1 - (2 * product + c[kind, :, None, None]) / (power + c[kind, :, None, None])
                for kind, (product, power) in enumerate(zip(products, powers, strict=True))
            ],
            1,
        )
        weight = torch.maximum(edges_x, edges_y) + _FLAT
        return _pool(apart, weight.detach() if hold else weight)


def _mean_and_variance(light: Tensor) -> tuple[Tensor, Tensor]:
    mean = local_mean(light, _WINDOW)
    return mean, local_mean(light * light, _WINDOW) - mean.square()


def _pool(apart: Tensor, weight: Tensor) -> Tensor:
    """Distances (N, D, h, w) and weights (N, 1, h, w) to (N, 3 D)."""
    mean = apart.mean((2, 3))
    weighted = (apart * weight).sum((2, 3)) / weight.sum((2, 3))
    variance = (apart - mean[:, :, None, None]).square().mean((2, 3))
    return torch.cat([mean, weighted, root_above(variance, _FLAT)], 1)
