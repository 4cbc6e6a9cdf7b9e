"""HaarPSI: agreement of the fine Haar coefficients, weighted by the coarse ones.

Reisenhofer, Bosse, Kutyniok, Wiegand: "A Haar Wavelet-Based Perceptual Similarity Index for Image
Quality Assessment", Signal Processing: Image Communication 2018. Original:
https://github.com/rgcda/haarpsi; numbers follow https://github.com/photosynthesis-team/piq 0.8.0
(Apache-2.0). Ours: the final logit is a difference of logarithms, exact near 1 in float32 and
finite for two black images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import FLAT, PIQ, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import YIQ, halve, mix_channels, similarity

__all__ = ["ENTRIES", "HaarPSI", "haar", "haarpsi"]

_C, _ALPHA = 30.0, 4.2


def haar(x: Tensor, size: int) -> Tensor:
    """Magnitudes of the undecimated Haar coefficients, zeros outside: (N, 1, H, W) to (N, 2, H, W).

    Args:
        x: Maps.
        size: Side of the wavelet, even. It is 1/size in one half and -1/size in the other;
            the first channel compares top and bottom, the second left and right.
    """
    half = size // 2
    p = F.pad(x, (half - 1, half, half - 1, half))
    # differences before sums: exactly 0 in flat areas, where |c| would otherwise turn rounding into gradient
    vertical = F.avg_pool2d(p[..., :-half, :] - p[..., half:, :], (half, size), stride=1)
    horizontal = F.avg_pool2d(p[..., :-half] - p[..., half:], (size, half), stride=1)
    return half * torch.cat([vertical, horizontal], 1).abs()


def _similarity_and_weight(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = (halve(mix_channels(255 * image, YIQ)) for image in (x, y))
    similar = [similarity(haar(x[:, :1], size), haar(y[:, :1], size), _C) for size in (2, 4)]
    texture = (similar[0] + similar[1]) / 2
    weight = torch.maximum(haar(x[:, :1], 8), haar(y[:, :1], 8))
    x, y = (F.avg_pool2d(F.pad(image[:, 1:], (0, 1, 0, 1)), 2, stride=1).abs() for image in (x, y))
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
    similar, weight = _similarity_and_weight(x, y)
    eps = torch.finfo(x.dtype).eps
    # logit(sum(w s) / sum(w)) = log(sum(w s)) - log(sum(w (1 - s))); without any weight the score is 1
    high, low = (
        (torch.sigmoid(sign * similar) * weight).sum((1, 2, 3)) + eps / (1 + math.exp(-sign))
        for sign in (_ALPHA, -_ALPHA)
    )
    return ((high.log() - low.log()) / _ALPHA).square()


class HaarPSI(Critic):
    """Haar wavelet similarity in [0, 1]; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("haarpsi")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return haarpsi(x, given(y))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Mean of the horizontal, vertical and chroma similarity, (N, 1, ceil(H / 2), ceil(W / 2))."""
        return _similarity_and_weight(x, given(y))[0].mean(1, keepdim=True)


_CARD = similarity_card(
    name="haarpsi",
    summary="Similarity of Haar wavelet coefficients; fast and close to opinions on classical damage.",
    min_size=16,
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
