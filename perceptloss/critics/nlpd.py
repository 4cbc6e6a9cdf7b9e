"""NLPD: distance of Laplacian pyramids whose contrasts are divided by those around them.

Laparra, Balle, Berardino, Simoncelli: "Perceptual Image Quality Assessment Using a Normalized
Laplacian Pyramid", Human Vision and Electronic Imaging 2016, whose Matlab values are met to 4e-4. The
constants, and the other form, are those of https://github.com/dingkeyan93/IQA-optimization at 5d24b8f
(MIT). Ours: luminance from RGB without rounding to 8 bits, and a gradient that fades as bands become
equal, where theirs is NaN.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import YIQ, blur, mix_channels, root, soften

__all__ = ["ENTRIES", "NLPD", "Form", "nlpd", "normalized_pyramid"]

Form = Literal["laparra", "bilinear"]

_QUIET = 1e-4  # difference of bands, below which the gradient fades: rounding of flat images reaches 1e-6
_TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
# per band, fine to coarse: constant, then weights of the neighbours above, left, right and below
_BANDS = (
    (0.0248, (0.1011, 0.1493, 0.1460, 0.1015)),
    (0.0185, (0.0757, 0.1986, 0.1846, 0.0837)),
    (0.0179, (0.0477, 0.2138, 0.2243, 0.0467)),
    (0.0191, (0.0, 0.2503, 0.2616, 0.0)),
    (0.0220, (0.0, 0.2598, 0.2552, 0.0)),
    (0.2782, (0.0, 0.2215, 0.0717, 0.0)),
)


def _smooth(x: Tensor) -> Tensor:
    return blur(F.pad(x, (2, 2, 2, 2), mode="reflect"), _TAPS)


def _around(x: Tensor, weights: tuple[float, float, float, float], mode: str) -> Tensor:
    p = F.pad(x, (1, 1, 1, 1), mode=mode)
    rows, columns = p[..., 1:-1], p[..., 1:-1, :]
    above, left, right, below = weights
    return above * rows[..., :-2, :] + left * columns[..., :-2] + right * columns[..., 2:] + below * rows[..., 2:, :]


def _grown(low: Tensor) -> Tensor:
    """Twice the size: zeros between the samples, then smoothing."""
    n, c, height, width = low.shape
    edged = F.pad(low, (1, 1, 1, 1), mode="replicate")
    spaced = low.new_zeros(n, c, 2 * height + 4, 2 * width + 4)
    spaced[..., ::2, ::2] = 4 * edged
    return blur(F.pad(spaced, (2, 2, 2, 2)), _TAPS)[..., 2:, 2:]


def _grown_bilinear(low: Tensor) -> Tensor:
    return _smooth(F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=True))


def normalized_pyramid(x: Tensor, form: Form = "laparra") -> list[Tensor]:
    """Six bands of luminance, fine to coarse: (N, 1, H, W) to (N, 1, ceil(H / 2^k), ceil(W / 2^k)), k from 0 to 5.

    Args:
        x: Luminance, (N, 1, H, W).
        form: `laparra`: the last band is the low-pass rest. `bilinear`: IQA-optimization's, whose last
            band is one more difference, from a bilinearly grown image.
    """
    is_published = form == "laparra"
    bands = []
    for level, (constant, weights) in enumerate(_BANDS):
        if is_published and level == len(_BANDS) - 1:
            band = low = x
        else:
            low = _smooth(x)[..., ::2, ::2]
            grown = _grown(low) if is_published else _grown_bilinear(low)
            band = x - grown[..., : x.shape[-2], : x.shape[-1]]
        bands.append(band / (constant + _around(band.abs(), weights, "constant" if is_published else "reflect")))
        x = low
    return bands


def nlpd(x: Tensor, y: Tensor, form: Form = "laparra") -> Tensor:
    r"""NLPD, 0 or more; 0 is best: the mean over six bands of the root mean square difference.

    .. math:: z = \frac{b}{\sigma + \sum_j p_j |b_j|}

    for the coefficient b of a band and its four neighbours b_j.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 65.
        y: Reference images, same shape.
        form: See `normalized_pyramid`.

    Returns:
        One score per image, (N,).
    """
    pyramids = (normalized_pyramid(mix_channels(image, YIQ[:1]), form) for image in (x, y))
    distances = [root((a - b).square().mean((1, 2, 3))) for a, b in zip(*pyramids, strict=True)]
    return torch.stack([soften(d, d, _QUIET) for d in distances], 1).mean(1)


class NLPD(Critic):
    """Normalised Laplacian pyramid distance, 0 or more; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("nlpd")
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 96, 96)).sum().backward()
    """

    def __init__(self, card: Card, *, form: Form = "laparra") -> None:
        super().__init__(card)
        self.form = form

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return nlpd(x, given(y), self.form)


_CARD = distance_card(
    name="nlpd",
    summary="Distance of Laplacian pyramids after local contrast normalisation, as in early vision.",
    min_size=2 ** len(_BANDS) + 1,
    tiling="never",
    licence_code="MIT",
    paper="Laparra et al., Perceptual Image Quality Assessment Using a Normalized Laplacian Pyramid, HVEI 2016",
    source="https://github.com/dingkeyan93/IQA-optimization 5d24b8f (MIT)",
    notes=(
        "luminance only: combine with a pixel loss",
        "the mean of six root mean squares: the gradient keeps its length almost up to the optimum, like that of an "
        "L2 norm",
        "faint detail on flat ground counts as much as contrast on busy ground: its slope there is steep (1 / 0.018)",
        "not in piq; IQA-optimization's port is another pyramid, whose values are up to 7 % higher: form='bilinear'",
    ),
)

ENTRIES = {"nlpd": Entry(_CARD, NLPD)}
