r"""Natural-scene statistics: local normalisation, and generalised Gaussians fitted by moments.

Ruderman, "The statistics of natural images", Network 1994 (normalisation); Lasmar, Stitou,
Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis", ICIP 2009 (the
asymmetric fit), as used by BRISQUE and NIQE (Mittal et al.). The published codes read the shape
from a table; here that table is inverted exactly, so that the shape has a slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.networks.functional import blur, gaussian, root, soften

__all__ = [
    "NEIGHBOURS",
    "SHAPES",
    "Fits",
    "StatisticsCritic",
    "fit",
    "fits",
    "log_ratio",
    "mscn",
    "offset",
    "rounded",
    "shape_of",
]

S = TypeVar("S", bound="StatisticsCritic")

SHAPES = (0.2, 10.0)
"""Smallest and largest shape of the published tables; their step is 0.001."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_STEP = 0.001
_WINDOW = gaussian(7, 7 / 6)
_NOTHING = 1e-9  # grey levels: what rounding leaves of the local mean of a flat area
_QUIET = 0.05  # normalised deviation below which the slope of the shape fades (blocks of photographs: 0.08 and more)


def rounded(grey: Tensor) -> Tensor:
    """Whole grey levels, with the gradient of the unrounded ones."""
    return grey + (grey.round() - grey).detach()


def mscn(grey: Tensor, border: Literal["replicate", "constant"]) -> Tensor:
    r"""Mean-subtracted contrast-normalised grey levels (I - \mu) / (\sigma + 1), exactly 0 in flat areas.

    Args:
        grey: Levels of 0-255, (N, 1, H, W), in float64.
        border: What lies outside: the nearest pixel, or zeros.

    Returns:
        Same shape; mean and deviation are Gaussian, 7x7 with sigma 7/6.
    """
    p = F.pad(grey, (3, 3, 3, 3), mode=border)
    mean = blur(p, _WINDOW)
    deviation = root((blur(p.square(), _WINDOW) - mean.square()).abs())
    away = grey - mean
    return torch.where(away.abs() > _NOTHING, away, 0) / (deviation + 1)


def log_ratio(alpha: Tensor) -> Tensor:
    r"""\log (E|v|)^2 / E v^2 = \log \Gamma(2/\alpha)^2 / (\Gamma(1/\alpha) \Gamma(3/\alpha)), rising with the shape."""
    return 2 * torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)


def _slope(alpha: Tensor) -> Tensor:
    """Derivative of `log_ratio`."""
    a, b, c = (torch.digamma(k / alpha) for k in (1, 2, 3))
    return (a - 4 * b + 3 * c) / alpha.square()


@lru_cache(maxsize=8)
@torch.inference_mode(False)
@torch.no_grad()
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Shapes and their log ratios, in float64."""
    count = round((SHAPES[1] - SHAPES[0]) / _STEP) + 1
    shapes = SHAPES[0] + _STEP * torch.arange(count, dtype=torch.float64, device="cpu")
    return shapes.to(device), log_ratio(shapes).to(device)


def _bracket(target: Tensor) -> Tensor:
    """Position of the first table entry that is not below, at least 1."""
    ratios = _table(target.device)[1]
    return torch.searchsorted(ratios, target.contiguous()).clamp(1, len(ratios) - 1)


class _Shape(torch.autograd.Function):
    """Inverse of `log_ratio`, by Newton's method from between two table entries; constant beyond the table."""

    @staticmethod
    def forward(ctx: Any, target: Tensor) -> Tensor:
        shapes, ratios = _table(target.device)
        upper = _bracket(target)
        low, high = ratios[upper - 1], ratios[upper]
        alpha = shapes[upper - 1] + _STEP * ((target - low) / (high - low)).clamp(0, 1)
        for _ in range(2):
            alpha = (alpha - (log_ratio(alpha) - target) / _slope(alpha)).clamp(*SHAPES)
        ctx.save_for_backward(alpha, (target > ratios[0]) & (target < ratios[-1]))
        return alpha

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        alpha, inside = ctx.saved_tensors
        return torch.where(inside, grads[0] / _slope(alpha), 0)


def shape_of(target: Tensor, *, table: bool = False, inverse: bool = False) -> Tensor:
    """Shape of a generalised Gaussian whose `log_ratio` is `target`.

    Args:
        target: Logarithm of (E|v|)^2 / E v^2, float64, any shape.
        table: Take the nearest entry of the published table, whose step is 0.001; the gradient stays that of
            the exact inverse.
        inverse: Whether the table is searched by the reciprocal of the ratio.

    Returns:
        Shapes within `SHAPES`, which beyond them are constant; the slope is at most 445.
    """
    alpha: Tensor = _Shape.apply(target)
    if not table:
        return alpha
    shapes, ratios = _table(target.device)
    found = target.detach().clamp(ratios[0], ratios[-1])
    upper = _bracket(found)
    sign = -1 if inverse else 1
    wanted, low, high = ((sign * log).exp() for log in (found, ratios[upper - 1], ratios[upper]))
    nearest = torch.where((wanted - low).abs() <= (high - wanted).abs(), shapes[upper - 1], shapes[upper])
    return alpha + (nearest - alpha.detach())


def offset(alpha: Tensor) -> Tensor:
    r"""Mean of a fit per difference of its deviations, \Gamma(2/\alpha) / \sqrt{\Gamma(1/\alpha) \Gamma(3/\alpha)}."""
    return (log_ratio(alpha) / 2).exp()


@dataclass(frozen=True)
class Fits:
    """Asymmetric generalised Gaussians of one shape on both sides, fitted by moments; all of one shape of tensor.

    Attributes:
        alpha: Shape; the smallest of the table where a side has no samples, as in the published codes.
        left: Deviation of the negative samples; 0 if there are none.
        right: Deviation of the positive samples; 0 if there are none.
        has_left: Whether there are negative samples.
        has_right: Whether there are positive samples.
        power: Mean square v^2.
        ratio: Logarithm of (E|v|)^2 / E v^2; 0 if all samples are 0.
    """

    alpha: Tensor
    left: Tensor
    right: Tensor
    has_left: Tensor
    has_right: Tensor
    power: Tensor
    ratio: Tensor


def _moments(v: Tensor) -> Tensor:
    """Means of |v| and v^2, then sum of squares and number below and above 0: (..., h, w) to (..., 6)."""
    found = [v.abs().mean((-2, -1)), v.square().mean((-2, -1))]
    for side in (-v, v):
        found += [side.relu().square().sum((-2, -1)), (side > 0).sum((-2, -1)).to(v.dtype)]
    return torch.stack(found, -1)


def fit(v: Tensor, quiet: float, *, table: bool = False) -> Fits:
    """A fit to values of any kind.

    Args:
        v: Values, (..., h, w), float64.
        quiet: Root mean square below which the slope of the shape fades.
        table: See `shape_of`.

    Returns:
        Tensors (...).
    """
    return _fitted(_moments(v), v.new_tensor(quiet), table=table)


def fits(v: Tensor, *, table: bool = False) -> Fits:
    """Fits to normalised grey levels and to their products with four neighbours.

    Args:
        v: Normalised grey levels, (..., h, w), float64; neighbours wrap around the ends.
        table: See `shape_of`.

    Returns:
        Tensors (..., 5): the levels, then the products in the order of `NEIGHBOURS`.
    """
    signals = (v, *(v * torch.roll(v, shift, (-2, -1)) for shift in NEIGHBOURS))
    quiet = v.new_tensor([_QUIET, *(_QUIET**2,) * len(NEIGHBOURS)])
    return _fitted(torch.stack([_moments(signal) for signal in signals], -2), quiet, table=table)


def _fitted(moments: Tensor, quiet: Tensor, *, table: bool) -> Fits:
    """Fits from `_moments`, (..., 6)."""
    mean, power, *sides = moments.unbind(-1)
    left, right = (root(total / count.clamp_min(1)) for total, count in (sides[:2], sides[2:]))
    has_left, has_right = sides[1] > 0, sides[3] > 0
    there, both = power > 0, has_left & has_right
    ratio = mean.where(there, mean.new_ones(())).square() / power.where(there, power.new_ones(()))
    a, b = (side.where(both, side.new_ones(())) for side in (left, right))
    skew = (a**3 + b**3) * (a + b) / (a.square() + b.square()).square()
    size = root(power) / quiet
    ratio, evened = (soften(log, size, 1.0) for log in (ratio.log(), (ratio * skew).log()))
    alpha = shape_of(evened, table=table)
    alpha = alpha.where(both, alpha.new_tensor(SHAPES[0]))
    return Fits(alpha, left, right, has_left, has_right, power, ratio)


class StatisticsCritic(Critic):
    """A critic of these statistics: smooth as a loss, tabulated in reports; computes in float64.

    Args:
        card: Its card.
        table: Round the luminance to whole grey levels and the shapes to thousandths, as the published codes do.
            For numbers to report; the slope then is that of the unrounded form. May be set at any time.
    """

    def __init__(self, card: Card, *, table: bool = False) -> None:
        super().__init__(card)
        self.table = table

    @property
    def dtype(self) -> None:
        """None: it computes in float64 and answers in the type of the images."""

    def as_published(self: S) -> S:
        """Rounded luminance and tabulated shapes, as the published codes have them."""
        self.table = True
        return self

    @property
    def signature(self) -> str:
        """As of any critic, and which form it has."""
        return f"{super().signature}|{'table' if self.table else 'smooth'}"
