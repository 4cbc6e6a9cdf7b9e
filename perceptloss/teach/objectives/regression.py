"""Losses that bring predictions to labels: order with a sense of distance, tolerances, norm-in-norm, triplets.

Throughout, `q` are predictions, higher better, and `y` labels, (N,) each; the loss is 0-d, float32 or finer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.objectives.lists import centred, nothing, paired

__all__ = ["norm_in_norm", "rank_gradient_loss", "reqa_loss", "tolerance_loss", "triplet_margin"]

_TOLERANCES = (5.0, 2.5, 0.0)
_WEIGHTS = (0.5, 1.0, 1.5)  # of the released script to its end


def rank_gradient_loss(q: Tensor, y: Tensor, eps: float | None = None) -> Tensor:
    r"""REQA's coarse loss, at least 0: what wrongly ordered pairs differ by, in predictions and in labels.

    .. math:: \operatorname{mean}_{i \ne j} \frac{\max(0, -d_q d_y)}{|d_q| + \epsilon} + \frac{\max(0, -d_q
        d_y)}{|d_y| + \epsilon}

    0 for every rising prediction; a wrong pair costs about |d_y| + |d_q|. The slope of the first part fades for
    pairs that are wrong by far, where the second takes over; near a tie it is up to |d_y| / eps, and at
    a tie 0, so constant predictions have none: add a regression.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,).
        eps: Stabiliser; by default 1 % of the range of the labels. Published: 1e-4 for labels from 0 to 100, which
            near ties has slopes of a million.

    Li and Huo: "REQA: Coarse-to-fine Assessment of Image Quality to Alleviate the Range Effect", JVCIR 2024
    (arXiv 2209.01760); written from the formula.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> rank_gradient_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "rank_gradient_loss")
    if len(q) < 2:
        return nothing(q)
    dq, dy = q[:, None] - q, y[:, None] - y
    floor = torch.finfo(q.dtype).tiny
    stabiliser = 0.01 * dy.amax().clamp_min(floor) if eps is None else max(eps, floor)
    wrong = (-dq * dy).relu()
    cost = wrong / (dq.abs() + stabiliser) + wrong / (dy.abs() + stabiliser)
    return cost.sum() / (len(q) * (len(q) - 1))


def tolerance_loss(
    predictions: Sequence[Tensor],
    y: Tensor,
    tolerances: Sequence[float] = _TOLERANCES,
    weights: Sequence[float] = _WEIGHTS,
) -> Tensor:
    r"""REQA's fine loss, at least 0: how far each stage of a critic that refines its score is beyond its tolerance.

    .. math:: \frac{\sum_t a_t \operatorname{mean} \max(0, |q_t - y| - \tau_t)}{\sum_t a_t}

    Within the tolerance there is no slope at all. Labels and tolerances scaled together scale the loss.

    Args:
        predictions: One list (N,) per stage, coarse to fine.
        y: Labels, (N,).
        tolerances: One per stage, in the unit of the labels; published for labels from 0 to 100.
        weights: One per stage, not negative, of positive sum.

    Raises:
        ConfigError: if there is not one tolerance and one weight per stage.

    Example:
        >>> stages = [torch.rand(8, requires_grad=True) for _ in range(3)]
        >>> tolerance_loss(stages, torch.rand(8), (0.05, 0.025, 0)).backward()
    """
    problems = [
        f"{name} must be one number per stage, {len(predictions)}, got {len(given)}"
        for name, given in (("tolerances", tolerances), ("weights", weights))
        if len(given) != len(predictions)
    ]
    if not problems and (min(weights, default=0) < 0 or sum(weights) <= 0):
        problems.append(f"weights must be at least 0 and not all 0, got {tuple(weights)}")
    if problems:
        raise ConfigError(problems, "tolerance_loss")
    terms = []
    for q, tolerance, weight in zip(predictions, tolerances, weights, strict=True):
        given, labels = paired(q, y, "tolerance_loss")
        beyond = ((given - labels).abs() - tolerance).relu()
        terms.append(weight * (beyond.mean() if len(given) else nothing(given)))
    return torch.stack(terms).sum() / sum(weights)


def reqa_loss(
    predictions: Sequence[Tensor],
    y: Tensor,
    tolerances: Sequence[float] = _TOLERANCES,
    weights: Sequence[float] = _WEIGHTS,
    *,
    eps: float | None = None,
) -> Tensor:
    """REQA's whole loss, at least 0: a quarter `rank_gradient_loss` of the first prediction, the rest `tolerance_loss`.

    Args:
        predictions: The coarse prediction, (N,), and then one per tolerance.
        y: Labels, (N,).
        tolerances: See `tolerance_loss`.
        weights: See `tolerance_loss`.
        eps: See `rank_gradient_loss`.

    Example:
        >>> stages = [torch.rand(8, requires_grad=True) for _ in range(4)]
        >>> reqa_loss(stages, torch.rand(8)).backward()
    """
    coarse, *fine = predictions
    return 0.25 * rank_gradient_loss(coarse, y, eps) + 0.75 * tolerance_loss(fine, y, tolerances, weights)


def norm_in_norm(
    prediction: Tensor,
    y: Tensor,
    p: float = 1.0,
    q: float = 2.0,
    *,
    alpha: tuple[float, float] = (1.0, 1.0),
    eps: float = 1e-4,
) -> Tensor:
    r"""Norm-in-norm loss, in [0, 1]; 0 where predictions are a rising line of the labels.

    .. math:: \frac{\alpha_1 \|\hat q - \hat y\|_p^p + \alpha_2 \|\rho \hat q - \hat y\|_p^p}{(\alpha_1 +
        \alpha_2) c^p}, \quad c = 2^{\max(1, 1/q)} N^{\max(0, 1/p - 1/q)}

    A hat is a list less its mean over its q-norm; rho is the cosine of the two. With p = q = 2 the first part is
    (1 - rho) / 2. p = 1, q = 2 converges fastest (its slope does not fade near the line), p = q = 2 is smooth.
    Free of shift and scale. The slope is at most of the order of 1 / eps, for constant predictions.

    Li, Jiang, Jiang: "Norm-in-Norm Loss with Faster Convergence and Better Performance for Image Quality Assessment",
    ACM MM 2020 (github.com/lidq92/LinearityIQA); written from the formula. There a list of shape (1, N) gives a
    plain L1 loss unnoticed, here an error.

    Args:
        prediction: Predictions, (N,).
        y: Labels, (N,). Constant ones give 0.
        p: Outer norm, at least 1.
        q: Inner norm, at least 1.
        alpha: Weights of the two parts.
        eps: q-norm of centred predictions below which they count as constant, in their unit.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> norm_in_norm(q, torch.rand(8)).backward()
    """
    if not (1 <= p < math.inf and q >= 1) or min(alpha) < 0 or sum(alpha) <= 0:
        raise InputError(f"norm_in_norm needs p, finite, and q of at least 1, and weights alpha, got {p}, {q}, {alpha}")
    prediction, y = paired(prediction, y, "norm_in_norm")
    size = len(prediction)
    if size < 2:
        return nothing(prediction)
    a, b = centred(prediction), centred(y)
    norm = torch.linalg.vector_norm(b, q)
    rounding = torch.finfo(y.dtype).eps * y.abs().amax() * size + torch.finfo(y.dtype).tiny
    a, b = a / torch.linalg.vector_norm(a, q).clamp_min(eps), b / norm.clamp_min(rounding)
    lengths = a.square().sum().clamp_min(eps**2) * b.square().sum().clamp_min(eps**2)
    rho = (a * b).sum() / lengths.sqrt()
    scale = 2 ** max(1, 1 / q) * size ** max(0, 1 / p - 1 / q)
    first, second = ((torch.linalg.vector_norm(c * a - b, p) / scale) ** p for c in (1, rho))
    loss = (alpha[0] * first + alpha[1] * second) / sum(alpha)
    return torch.where(norm > rounding, loss, 0 * loss)


def triplet_margin(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.5) -> Tensor:
    r"""Triplet margin loss, at least 0: the anchor should be nearer to the positive than to the negative by the margin.

    .. math:: \operatorname{mean} \max(0, \|a - b\| - \|a - c\| + m)

    Distances are along the last axis, with 1e-6 added to each difference so that the slope is bounded. FPR
    (github.com/Baoliang93/FPR, commit fd8b41c, Apache-2.0) takes its maps as they are, so a distance is
    that of two rows of a map, with margin 0.5 and weight 20: there three equal maps cost exactly 10.

    Args:
        anchor: Features, (..., D).
        positive: The same shape.
        negative: The same shape.
        margin: Lead that is enough.

    Example:
        >>> maps = torch.rand(3, 2, 4, 8, 8, requires_grad=True)
        >>> triplet_margin(*maps).backward()
    """
    if not anchor.shape == positive.shape == negative.shape or not anchor.ndim:
        shapes = [tuple(t.shape) for t in (anchor, positive, negative)]
        raise InputError(f"triplet_margin needs three tensors of one shape (..., D), got {shapes}")
    wide = torch.promote_types(anchor.dtype, torch.float32)
    anchor, positive, negative = (t.to(wide) for t in (anchor, positive, negative))
    if not anchor.numel():
        return nothing(anchor) + nothing(positive) + nothing(negative)
    return F.triplet_margin_loss(anchor, positive, negative, margin=margin)
