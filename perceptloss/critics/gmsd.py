"""GMSD and MS-GMSD: how unevenly the gradients of two images agree.

Xue, Zhang, Mou, Bovik: "Gradient Magnitude Similarity Deviation", IEEE TIP 2014, and Zhang,
Sander, Bermak: "Gradient Magnitude Similarity Deviation on Multiple Scales for Color Image
Quality Assessment", ICASSP 2017. Originals: https://www4.comp.polyu.edu.hk/~cslzhang/IQA/GMSD/GMSD.htm
and the authors' Matlab; numbers follow https://github.com/photosynthesis-team/piq 0.8.0
(Apache-2.0). Ours: gradients are 0 instead of NaN on flat areas and between equal images.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from perceptloss.card import FLAT, PIQ, Card, distance_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.networks.functional import PREWITT, YIQ, edge_similarity, halve, mix_channels, root

__all__ = ["ENTRIES", "GMSD", "MSGMSD", "SCALE_WEIGHTS", "gmsd", "ms_gmsd"]

SCALE_WEIGHTS = (0.096, 0.596, 0.289, 0.019)
_T = 170.0  # stabiliser on the 0-255 scale
_MASK = 0.5


def deviation(values: Tensor) -> Tensor:
    """Standard deviation of each image's map, (N, 1, H, W) to (N,)."""
    return root((values - values.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3)))


def gms_map(x: Tensor, y: Tensor) -> Tensor:
    """Gradient similarity of the halved luminance: (N, 3, H, W) to (N, 1, ceil(H / 2), ceil(W / 2))."""
    x, y = (halve(mix_channels(image, YIQ[:1])) for image in (x, y))
    return edge_similarity(x, y, PREWITT, _T / 255**2)


def gmsd(x: Tensor, y: Tensor) -> Tensor:
    """GMSD, in [0, 1/2]; 0 is best: the standard deviation of the gradient similarity.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1].
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    return deviation(gms_map(x, y))


def ms_gmsd(x: Tensor, y: Tensor, *, chromatic: bool = False) -> Tensor:
    r"""MS-GMSD: \sqrt{\sum_k w_k d_k^2} over four scales, in [0, 1/2]; 0 is best.

    The chromatic form mixes in the root mean square error E of I and Q at the coarsest scale,
    in 0-255 units: \gamma d + (1 - \gamma) E / 100 with \gamma = 2 / (1 + 0.32 e^{-15 d}) - 1.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 17.
        y: Reference images, same shape.
        chromatic: Whether to judge colour too.

    Returns:
        One score per image, (N,).
    """
    x, y = (mix_channels(255 * image, YIQ if chromatic else YIQ[:1]) for image in (x, y))
    squares = torch.zeros_like(x[:, 0, 0, 0])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        x, y = (halve(x), halve(y)) if scale else (x, y)
        similar = edge_similarity(x[:, :1], y[:, :1], PREWITT, _T, _MASK)
        squares = squares + weight * deviation(similar).square()
    d = root(squares)
    if not chromatic:
        return d
    error = root((x[:, 1:] - y[:, 1:]).square().mean((2, 3)).sum(1))
    gamma = 2 / (1 + 0.32 * torch.exp(-15 * d)) - 1
    return gamma * d + (1 - gamma) * 0.01 * error


class GMSD(Critic):
    """Gradient magnitude similarity deviation in [0, 1/2]; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("gmsd")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    map_direction = "higher"

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return gmsd(x, given(y))

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        below = 1 - area.of(gms_map(x, given(y)), 2).double()  # small where its square must be exact
        sums = [below.sum((1, 2, 3)), below.square().sum((1, 2, 3)), below.new_full((len(x),), below[0].numel())]
        return torch.stack(sums, 1)

    def settle(self, sums: Tensor) -> Tensor:
        total, squares, cells = sums.unbind(1)
        return root((squares / cells - (total / cells).square()).relu())

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Gradient similarity in (0, 1], higher is better, at half size: (N, 1, ceil(H / 2), ceil(W / 2))."""
        return gms_map(x, given(y))


class MSGMSD(Critic):
    """GMSD over four scales; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("ms-gmsd")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    def __init__(self, card: Card, *, chromatic: bool = False) -> None:
        super().__init__(card)
        self.chromatic = chromatic

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return ms_gmsd(x, given(y), chromatic=self.chromatic)


_card = partial(distance_card, tiling="never", licence_code="Apache-2.0 (piq)")
_ZHANG = (
    "Zhang et al., Gradient Magnitude Similarity Deviation on Multiple Scales for Color Image Quality Assessment, "
    "ICASSP 2017"
)
_SHIFT = "blind to colour and, but for the image border, to a uniform shift of luminance: combine with a pixel loss"

_GMSD = _card(
    name="gmsd",
    summary="Standard deviation of the gradient similarity; sensitive to unevenly spread damage.",
    bounds=(0.0, 0.5),
    min_size=3,
    tiling="exact",
    halo=2,
    stride=2,
    paper="Xue et al., Gradient Magnitude Similarity Deviation, IEEE TIP 2014",
    source=f"{PIQ}; https://www4.comp.polyu.edu.hk/~cslzhang/IQA/GMSD/GMSD.htm",
    notes=(_SHIFT, FLAT, "damage spread evenly scores as none"),
)
_MS_GMSD = _card(
    name="ms-gmsd",
    summary="Gradient similarity deviation of the luminance over four scales.",
    bounds=(0.0, 0.5),
    min_size=17,
    paper=_ZHANG,
    source=PIQ,
    notes=(_SHIFT, FLAT),
)
_MS_GMSDC = _card(
    name="ms-gmsdc",
    summary="Gradient similarity deviation over four scales with an error of the chroma.",
    bounds=(0.0, 1.5636),
    min_size=17,
    paper=_ZHANG,
    source=PIQ,
    notes=(
        "the upper bound is the chroma error of red against cyan where the luminance agrees in every gradient",
        "blind to colour detail finer than 8 pixels",
        FLAT,
    ),
)

ENTRIES = {
    "gmsd": Entry(_GMSD, GMSD),
    "ms-gmsd": Entry(_MS_GMSD, MSGMSD),
    "ms-gmsdc": Entry(_MS_GMSDC, partial(MSGMSD, chromatic=True)),
}
