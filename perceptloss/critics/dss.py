"""DSS: agreement of local contrast in the low-frequency subbands of a block cosine transform.

Balanov, Schwartz, Moshe, Peleg: "Image Quality Assessment Based on DCT Subband Similarity", ICIP
2015. Original: the authors' Matlab (File Exchange 53708); numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: the transform only of the 17
subbands that count, centred variances, and a gradient that fades, where the original gives NaN,
as the contrast of a subband vanishes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.card import PIQ, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import YIQ, gaussian, mix_channels, root, soften
from perceptloss.networks.windows import window_moments

__all__ = ["DSS", "ENTRIES", "SUBBAND_WEIGHTS", "dss", "subbands"]

_BLOCK, _SIGMA, _LEAST = 8, 1.55, 0.01  # side of a block; spread of the subband weights; smallest weight that counts
_C_DC, _C_AC = 1000.0, 300.0
_WORST = 0.05  # share of the places that decide
_QUIET = 0.05  # deviation of a subband, in grey levels, below which the gradient fades


def _weigh() -> dict[tuple[int, int], float]:
    raw = {
        (m, n): math.exp(-((m + 0.5) ** 2 + (n + 0.5) ** 2) / (2 * _SIGMA**2))
        for m in range(_BLOCK)
        for n in range(_BLOCK)
    }
    kept = {place: weight for place, weight in raw.items() if weight >= _LEAST}
    return {place: weight / sum(kept.values()) for place, weight in kept.items()}


SUBBAND_WEIGHTS = _weigh()
_COUNT = 1 + max(m for m, _ in SUBBAND_WEIGHTS)  # frequencies per direction


def subbands(x: Tensor) -> Tensor:
    """Coefficients of the 8x8 cosine transform, gathered by frequency.

    Args:
        x: Luminance, (N, 1, H, W); what exceeds a multiple of 8 at the right and the bottom is left out.

    Returns:
        The subbands that count, in the order of `SUBBAND_WEIGHTS`, (N, 17, H // 8, W // 8).
    """
    rows, columns = (n // _BLOCK for n in x.shape[-2:])
    whole = x[:, 0, : rows * _BLOCK, : columns * _BLOCK]
    blocks = rearrange(whole, "n (rows i) (columns j) -> n rows i columns j", i=_BLOCK, j=_BLOCK)
    waves = [
        [
            math.sqrt((2 if k else 1) / _BLOCK) * math.cos(math.pi * k * (2 * i + 1) / (2 * _BLOCK))
            for i in range(_BLOCK)
        ]
        for k in range(_COUNT)
    ]
    basis = x.new_tensor(waves)
    down = (blocks[:, None] * basis[:, None, :, None, None]).sum(3)  # (N, m, rows, columns, 8)
    both = (down[:, :, None] * basis[:, None, None]).sum(-1)  # (N, m, n, rows, columns)
    return torch.stack([both[:, m, n] for m, n in SUBBAND_WEIGHTS], 1)


def _worst(values: Tensor) -> Tensor:
    """Mean of the lowest 5 % of each map, (N, C, h, w) to (N, C)."""
    flat = values.flatten(2)
    return flat.topk(round(_WORST * flat.shape[2]), largest=False).values.mean(2)


def dss(x: Tensor, y: Tensor) -> Tensor:
    r"""DSS, at most 1, which is best: \sum_k w_k s_k over subbands.

    .. math::
        s_k = \operatorname{worst} \frac{2 \sigma_x \sigma_y + c}{\sigma_x^2 + \sigma_y^2 + c}, \quad
        s_0 \leftarrow s_0 \operatorname{worst} \frac{\sigma_{xy} + c}{\sigma_x \sigma_y + c}

    with deviations in 3x3 windows of a subband and the mean of the worst 5 % of the places.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 32.
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    x, y = (F.pad(subbands(mix_channels(255 * image, YIQ[:1])), (1, 1, 1, 1)) for image in (x, y))
    xx, yy, xy = window_moments(x, y, gaussian(3, 1.5))
    c = x.new_tensor([_C_DC if place == (0, 0) else _C_AC for place in SUBBAND_WEIGHTS])[:, None, None]
    dx, dy = root(xx.relu()), root(yy.relu())
    product = soften(dx, dx, _QUIET) * dy
    similar = _worst((2 * product + c) / (xx + yy + c))
    structure = _worst((xy[:, :1] + _C_DC) / (product[:, :1] + _C_DC))
    weight = x.new_tensor(list(SUBBAND_WEIGHTS.values()))
    return (similar[:, 1:] * weight[1:]).sum(1) + (similar[:, :1] * structure * weight[0]).sum(1)


class DSS(Critic):
    """DCT subband similarity, at most 1; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("dss")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return dss(x, given(y))


_CARD = similarity_card(
    name="dss",
    summary="Similarity of the contrast in low-frequency cosine subbands, judged by the worst 5 % of the image.",
    bounds=(-round(SUBBAND_WEIGHTS[0, 0], 4), 1.0),
    min_size=32,
    tiling="never",
    paper="Balanov et al., Image Quality Assessment Based on DCT Subband Similarity, ICIP 2015",
    source=f"{PIQ}; Matlab File Exchange 53708",
    notes=(
        "only the worst 5 % of the 8x8 blocks get a gradient, 1 of 16 on the smallest image: combine with a pixel loss",
        "the grid of blocks starts at the top left; up to 7 rows and columns at the other ends are not seen",
        "blind to colour, to frequencies above 5/16 of a cycle per pixel, and to the sign of all subbands but the mean",
        "no gradient arrives where a subband of the judged image is exactly flat",
        "the lower bound is that of negative images of extreme contrast",
    ),
)

ENTRIES = {"dss": Entry(_CARD, DSS)}
