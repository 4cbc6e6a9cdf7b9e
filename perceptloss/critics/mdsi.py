"""MDSI: mean deviation of a joint map of gradient and chroma similarity.

Ziaei Nafchi, Shahkolaei, Hedjam, Cheriet: "Mean Deviation Similarity Index: Efficient and Reliable
Full-Reference Image Quality Evaluator", IEEE Access 2016. Original: the authors' Matlab code;
numbers follow https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0), by default with the combination `sum`.
Ours: the slopes of both fourth roots are limited near zero, where the original gives NaN.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import FLAT, PIQ, Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import (
    PREWITT,
    bounded_power,
    edge_magnitude,
    mix_channels,
    root,
    shrink_factor,
    similarity,
)

__all__ = ["ENTRIES", "MDSI", "Combination", "gradient_and_chroma", "mdsi"]

Combination = Literal["sum", "mult"]

_LHM = ((0.2989, 0.587, 0.114), (0.3, 0.04, -0.35), (0.34, -0.6, 0.17))
_C1, _C2, _C3 = 140.0, 55.0, 550.0  # 0-255 scale
_ALPHA = 0.6  # share of the gradient term in the sum
_GAMMA, _BETA = 0.2, 0.1  # powers of gradient and chroma in the product
_MAP_FLOOR, _DEVIATION_FLOOR = 1e-3, 1e-6


def gradient_and_chroma(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient similarity and chroma similarity, 1 where equal; may be negative, the second for opposite colours.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1].
        y: Reference images, same shape.

    Returns:
        Two maps, (N, 1, h, w), after averaging by round(short side / 256).
    """
    factor = shrink_factor(x)
    pads = ((factor - 1) // 2, factor // 2) * 2
    x, y = (mix_channels(F.avg_pool2d(F.pad(255 * image, pads), factor), _LHM) for image in (x, y))
    edge_x, edge_y, edge_mean = (
        edge_magnitude(light, PREWITT) for light in (x[:, :1], y[:, :1], (x[:, :1] + y[:, :1]) / 2)
    )
    edges = similarity(edge_x, edge_y, _C1) + similarity(edge_x, edge_mean, _C2) - similarity(edge_y, edge_mean, _C2)
    cx, cy = x[:, 1:], y[:, 1:]
    chroma = (2 * (cx * cy).sum(1, keepdim=True) + _C3) / ((cx.square() + cy.square()).sum(1, keepdim=True) + _C3)
    return edges, chroma


def mdsi(x: Tensor, y: Tensor, combination: Combination = "sum") -> Tensor:
    r"""MDSI, in [0, 0.86]; 0 is best: (mean |q - mean q|)^{1/4} with q the complex fourth root of the joint map.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1].
        y: Reference images, same shape.
        combination: The joint map: `sum` 0.6 edges + 0.4 chroma, or `mult` edges^0.2 chroma^0.1.

    Returns:
        One score per image, (N,).
    """
    edges, chroma = gradient_and_chroma(x, y)
    factors: tuple[tuple[Tensor, float], ...] = ((_ALPHA * edges + (1 - _ALPHA) * chroma, 1.0),)
    if combination == "mult":
        factors = ((edges, _GAMMA), (chroma, _BETA))
    size, angle = torch.ones_like(edges), torch.zeros_like(edges)
    for values, power in factors:
        size = size * bounded_power(values.abs(), 0.25 * power, _MAP_FLOOR)
        angle = angle + torch.where(values < 0, 0.25 * power * math.pi, 0)  # where a root of a negative number points
    parts = (size * angle.cos(), size * angle.sin())
    squares = sum((part - part.mean((2, 3), keepdim=True)).square() for part in parts)
    return bounded_power(root(squares).mean((1, 2, 3)), 0.25, _DEVIATION_FLOOR)  # type: ignore[arg-type]


class MDSI(Critic):
    """Mean deviation similarity index in [0, 0.86]; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("mdsi")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    map_direction = "higher"

    def __init__(self, card: Card, *, combination: Combination = "sum") -> None:
        super().__init__(card)
        self.combination = combination

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return mdsi(x, given(y), self.combination)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Gradient and chroma similarity, higher is better, (N, 1, h, w), after downsampling if any."""
        edges, chroma = gradient_and_chroma(x, given(y))
        return _ALPHA * edges + (1 - _ALPHA) * chroma


_CARD = distance_card(
    name="mdsi",
    summary="Mean deviation of gradient and chroma similarity; strong on classical damage.",
    bounds=(0.0, 0.86),
    min_size=2,
    tiling="never",
    licence_code="Apache-2.0 (piq)",
    paper="Ziaei Nafchi et al., Mean Deviation Similarity Index, IEEE Access 2016",
    source=f"{PIQ}; the authors' Matlab code",
    notes=(
        "a fourth root: steep near equal images, where its slope is limited, and flat far from them",
        "damage spread evenly scores as none: combine with a pixel loss",
        "the upper bound is a numeric one over the values that gradients and colours can take",
        FLAT,
    ),
)

ENTRIES = {"mdsi": Entry(_CARD, MDSI)}
