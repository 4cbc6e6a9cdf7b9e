"""Losses over all pairs of a batch, also of unlike contents: which of two images is better, and by how much.

Rank hinge, Elo probabilities and cross entropy are those of Thong et al., "Content-Diverse Comparisons
improve IQA", BMVC 2022 (arXiv 2211.05215); fidelity is that of Tsai et al., "FRank", SIGIR 2007, with
Thurstone's model as in Zhang et al., "Uncertainty-Aware Blind Image Quality Assessment", TIP 2021.

Throughout, `q` are predictions, higher better, and `y` labels, (N,) each. The loss is a 0-d mean over
pairs, float32 or finer, and 0 where no pair is left. All take

    mask: (N, N), true for the pairs to compare, in either order.
    min_gap: Pairs whose labels differ by no more are left out; None takes all pairs, tied ones too.

A critic taught by pairs alone keeps a free shift, by the hinge and cross entropy also a growing scale.
Memory N^2.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.teach.objectives.lists import above_zero, paired

__all__ = ["difference_mse", "elo_mse", "fidelity_loss", "gaps", "pairwise_bce", "rank_hinge"]


class _Pairs(NamedTuple):
    """Every pair once: differences first less second, (P,), weights, (P,), and places in the lists."""

    dq: Tensor
    dy: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor

    def mean(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted mean over pairs; 0, on the graph, if all weights are 0."""
        weight = self.weight if weight is None else weight
        total = weight.sum()
        return (values * weight).sum() / torch.where(total > 0, total, 1)


def _pairs(q: Tensor, y: Tensor, mask: Tensor | None, min_gap: float | None, objective: str) -> _Pairs:
    q, y = paired(q, y, objective)
    size = len(q)
    if mask is not None and (mask.shape != (size, size) or mask.dtype != torch.bool):
        told = f"got shape {tuple(mask.shape)} of {mask.dtype}"
        raise InputError(f"{objective} needs a mask of shape ({size}, {size}) of booleans, {told}")
    first, second = torch.triu_indices(size, size, 1, device=q.device)
    dy = y[first] - y[second]
    weight = torch.ones_like(dy) if min_gap is None else (dy.abs() > min_gap).to(dy.dtype)
    if mask is not None:
        mask = mask.to(q.device)
        weight = weight * (mask[first, second] | mask[second, first])
    return _Pairs(q[first] - q[second], dy, weight, first, second)


def gaps(y: Tensor) -> Tensor:
    """How far apart labels (N,) are, (N, N)."""
    return (y[:, None] - y).abs()


def _elo(gap: Tensor, scale: float) -> Tensor:
    """Probability that the first wins, 1 / (1 + 10^(-gap / scale))."""
    return torch.sigmoid(gap * (math.log(10) / above_zero(scale, "scale")))


def rank_hinge(
    q: Tensor,
    y: Tensor,
    margin: float | Tensor = 0.2,
    *,
    mask: Tensor | None = None,
    min_gap: float | None = 0.0,
    over: Literal["active", "all"] = "active",
    clamp: float | None = None,
) -> Tensor:
    r"""Mean shortfall of the better image's lead, at least 0; 0 where every pair leads by the margin.

    .. math:: \operatorname{mean}_{i<j} \max(0, m_{ij} - \operatorname{sign}(y_i - y_j)(q_i - q_j))

    The mean is over the pairs that fall short, as published, so the slope does not fade as pairs are
    solved, and the value may rise when one is.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,), of which only the order counts.
        margin: Lead that is enough, in the unit of `q`; or one per pair, (N, N), symmetric, such as `gaps(y)`.
        mask, min_gap: See the module. With min_gap=None, tied labels cost the margin, as published.
        over: `all` divides by all pairs in the mask.
        clamp: Bound |q| before, as rankers do (5 in RankSRGAN and URanker); beyond it nothing is learned.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> rank_hinge(q, torch.rand(8)).backward()
    """
    if over not in ("active", "all"):
        raise InputError(f"over must be 'active' or 'all', got {over!r}")
    if clamp is not None:
        q = q.clamp(-clamp, clamp)
    pairs = _pairs(q, y, mask, min_gap, "rank_hinge")
    if isinstance(margin, Tensor):
        margin = margin.detach()[pairs.first, pairs.second].to(pairs.dq.dtype)
    short = (margin - pairs.dy.sign() * pairs.dq).relu()
    return pairs.mean(short, pairs.weight * (short > 0) if over == "active" else None)


def pairwise_bce(
    q: Tensor,
    y: Tensor,
    temperature: float = 0.1,
    *,
    mask: Tensor | None = None,
    min_gap: float | None = 0.0,
) -> Tensor:
    r"""Cross entropy of sigmoid((q_i - q_j) / T) and the order of the labels, at least 0; ln 2 for equal predictions.

    The slope of a pair is at most 1 / T. Never quite satisfied: gaps grow without end, the faster the
    smaller T is, and with them the critic's slope in the image; for a critic that will be a loss, T >= .1.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,), of which only the order counts.
        temperature: T > 0, in the unit of `q`; published with .01 to .05.
        mask, min_gap: See the module. With min_gap=None, the later of two tied should win, as published.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> pairwise_bce(q, torch.rand(8)).backward()
    """
    pairs = _pairs(q, y, mask, min_gap, "pairwise_bce")
    wins = (pairs.dy > 0).to(pairs.dq.dtype)
    return pairs.mean(
        F.binary_cross_entropy_with_logits(pairs.dq / above_zero(temperature, "temperature"), wins, reduction="none")
    )


def elo_mse(
    q: Tensor,
    y: Tensor,
    scale: float = 400.0,
    temperature: float = 1.0,
    *,
    mask: Tensor | None = None,
    min_gap: float | None = None,
) -> Tensor:
    r"""Squared error of predicted against Elo win probabilities, in [0, 1].

    .. math:: \operatorname{mean}_{i<j} (\operatorname{sigmoid}((q_i - q_j)/T) - 1/(1 + 10^{(y_j - y_i)/s}))^2

    0 where q = y T ln(10) / s + any constant, so unlike an order it fixes the scale of the critic. The slope
    of a pair that is wrong by far fades.

    Args:
        q: Predictions, (N,).
        y: Elo labels, (N,), such as PIPAL's.
        scale: Gap of labels that means 10 : 1; for labels divided by their deviation, 400 / 121.5 on PIPAL.
        temperature: T > 0, in the unit of `q`.
        mask, min_gap: See the module; a tie is a probability like any other.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> elo_mse(q, 1449 + 121 * torch.randn(8)).backward()
    """
    pairs = _pairs(q, y, mask, min_gap, "elo_mse")
    expected = torch.sigmoid(pairs.dq / above_zero(temperature, "temperature"))
    return pairs.mean((expected - _elo(pairs.dy, scale)).square())


def difference_mse(
    q: Tensor,
    y: Tensor,
    *,
    mask: Tensor | None = None,
    min_gap: float | None = None,
) -> Tensor:
    r"""Mean of ((q_i - q_j) - (y_i - y_j))^2 over pairs: squared error with the shift left free, at least 0.

    Over all pairs it is twice the unbiased variance of q - y.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,).
        mask, min_gap: See the module.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> difference_mse(q, torch.rand(8)).backward()
    """
    pairs = _pairs(q, y, mask, min_gap, "difference_mse")
    return pairs.mean((pairs.dq - pairs.dy).square())


def fidelity_loss(
    q: Tensor,
    y: Tensor,
    *,
    mask: Tensor | None = None,
    min_gap: float | None = 0.0,
) -> Tensor:
    r"""Fidelity of predicted win probabilities, in [0, 1]; 0 where they equal those of the labels.

    .. math:: 1 - \sqrt{p \hat p} - \sqrt{(1 - p)(1 - \hat p)}, \quad
        \hat p = \Phi\left((q_i - q_j) / \sqrt 2\right)

    Labels say 1, 0, or 1/2 for a tie. Bounded, so that a wrong label costs a bounded amount; a pair that is wrong by
    far has hardly a slope.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,).
        mask, min_gap: See the module.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> fidelity_loss(q, torch.rand(8)).backward()
    """
    pairs = _pairs(q, y, mask, min_gap, "fidelity_loss")
    lead = pairs.dq / torch.tensor(2.0, dtype=pairs.dq.dtype, device=q.device).sqrt()
    p = (pairs.dy.sign() + 1) / 2
    # roots of probabilities by their logarithms: no root has its infinite slope at 0
    wins, loses = ((torch.special.log_ndtr(side) / 2).exp() for side in (lead, -lead))
    return pairs.mean(1 - p.sqrt() * wins - (1 - p).sqrt() * loses)
