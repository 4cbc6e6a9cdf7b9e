"""Losses that read a batch as one list: divergence of its distribution, its ranks, its extremes, its mirror images.

The divergences are our reading of Cong et al., "Image Quality Assessment with Gradient Siamese Network", CVPR
Workshops 2022, which has no public code. The rank terms are those of Ayyoubzadeh and Royat, "ASNA", CVPR Workshops
2021 (github.com/smehdia/NTIRE2021-IQA-MACS, commit 7294735, Apache-2.0), with soft ranks in place of their
sorting network. Extremes are those of Golestaneh et al., "TReS", WACV 2022
(github.com/isalirezag/TReS, commit 1fb1e40, non-commercial; ours is written from the description).

Throughout, `q` are predictions, higher better, and `y` labels, (N,) each; the loss is 0-d, float32 or finer.
Gather the list over processes. None says anything about a restorer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.objectives.correlation import correlation, soft_ranks
from perceptloss.teach.objectives.lists import above_zero, nothing, paired, unit_labels, z_scored

__all__ = [
    "asna_loss",
    "batch_extremes",
    "batch_kl",
    "extreme_triplets",
    "relative_distance_kl",
    "surrogate_rank_loss",
    "tres_loss",
]

Ranker = Callable[[Tensor], Tensor]
"""Ranks of a list, (N,) to (N,), with a slope."""

_SORTED = 16  # length of the lists that ASNA's published weights go with


def batch_kl(q: Tensor, y: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Divergence of the batch's softmax of predictions from that of labels, at least 0.

    .. math:: \sum_i p_i (\log p_i - \log \hat p_i), \quad p = \operatorname{softmax}(y/T), \hat p =
        \operatorname{softmax}(q/T)

    0 where q = y + any constant, so add a squared error for the level. The slope is (p^ - p) / T: it sums to
    0, and is at most 1 / T. The best images of the batch count most; of labels far more than T apart
    only the best counts at all, so z-score labels and let predictions live on that scale.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,).
        temperature: T > 0, in the unit of the labels.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> batch_kl(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "batch_kl")
    above_zero(temperature, "temperature")
    return _divergence(y / temperature, q / temperature).sum()


def relative_distance_kl(q: Tensor, y: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Divergence of each image's relative distances to the others, mean over the images, at least 0.

    Row i holds (q_i - q_j) / T for all j but i, through a softmax; labels likewise; the divergence of the rows is
    averaged. As `batch_kl`, 0 where q = y + any constant, but the worst images count most, and no image weighs itself.

    Args:
        q: Predictions, (N,); two give 0.
        y: Labels, (N,).
        temperature: T > 0, in the unit of the labels.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> relative_distance_kl(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "relative_distance_kl")
    above_zero(temperature, "temperature")
    size = len(q)
    if size < 3:
        return nothing(q)
    rows, wanted = (_to_others((x[:, None] - x) / temperature) for x in (q, y))
    return _divergence(wanted, rows).sum(1).mean()


def _to_others(table: Tensor) -> Tensor:
    """A square table without its diagonal, (N, N - 1); a mask would make the device wait."""
    size = len(table)
    return table.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


def _divergence(wanted: Tensor, given: Tensor) -> Tensor:
    return F.kl_div(given.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True)


def surrogate_rank_loss(
    q: Tensor, y: Tensor, ranker: Ranker | None = None, *, temperature: float = 0.1, eps: float = 1e-2
) -> Tensor:
    r"""Mean squared difference of the ranks of predictions and labels, at least 0; 0 where the lists are equal.

    .. math:: \operatorname{mean} (S(q) - S(y))^2

    Args:
        q: Predictions, (N,).
        y: Labels, (N,).
        ranker: S, fed with the lists as they are. By default soft ranks of the z-scored lists, whose mean and
            deviation are constants of the gradient, stretched as if a list had 16 images, so that the published
            weights mean the same for every batch.
        temperature: Of the soft ranks, in deviations.
        eps: Deviation of predictions below which they count as constant, in their unit.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> surrogate_rank_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "surrogate_rank_loss")
    if len(q) < 2:
        return nothing(q)
    if ranker is not None:
        return (ranker(q) - ranker(y).detach()).square().mean()
    a, b = (soft_ranks(x, temperature) for x in (z_scored(q, eps), unit_labels(y)))
    return ((a - b) * (_SORTED / len(q))).square().mean()


def asna_loss(
    q: Tensor,
    y: Tensor,
    mse: float = 1.0,
    rank: float = 0.01,
    *,
    ranker: Ranker | None = None,
    temperature: float = 0.1,
    eps: float = 1e-4,
) -> Tensor:
    r"""ASNA's loss, at least 0; 0 where predictions equal labels.

    .. math:: m \operatorname{mean}(q - y)^2 + (1 - m)(1 - r^2) + s \operatorname{mean}(S(q) - S(y))^2

    r is Pearson's correlation; its square takes opposite order for as good, and has no slope at r = 0. Published
    (m, s): (1, .01) with attention, (.01, .1) with batch normalisation, (.2, .1) tiled, (.1, .1) simple.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,), z-scored.
        mse: m, in [0, 1].
        rank: s.
        ranker: S; see `surrogate_rank_loss`, also on what its gradient holds constant.
        temperature: See `surrogate_rank_loss`.
        eps: Deviation of predictions below which the correlation fades.

    Example:
        >>> q = torch.rand(16, requires_grad=True)
        >>> asna_loss(q, torch.rand(16)).backward()
    """
    q, y = paired(q, y, "asna_loss")
    loss = mse * (q - y).square().mean() if len(q) else nothing(q)
    if mse < 1 and len(q) > 1:
        loss = loss + (1 - mse) * (1 - correlation(q, y, eps).square())
    return loss + rank * surrogate_rank_loss(q, y, ranker, temperature=temperature)


def extreme_triplets(q: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""The two relative-ranking triplets of TReS, 0-d each, at least 0; exactly 0 for perfect predictions.

    With images sorted by label, 1 the worst, N the best:

    .. math:: \max(0, |q_1 - q_2| - |q_1 - q_N| + y_N - y_2), \quad
        \max(0, |q_N - q_{N-1}| - |q_N - q_1| + y_{N-1} - y_1)

    Distances know no direction: predictions turned round are as good, so another term must say what is better.
    Three images of a batch learn. Fewer than three, or equal labels, give 0.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,).
    """
    q, y = paired(q, y, "extreme_triplets")
    if len(q) < 3:
        return nothing(q), nothing(q)
    order = y.argsort(stable=True)
    q, y = q[order], y[order]
    known = (y[-1] > y[0]).to(q.dtype)
    low = (q[0] - q[1]).abs() - (q[0] - q[-1]).abs() + y[-1] - y[1]
    high = (q[-1] - q[-2]).abs() - (q[-1] - q[0]).abs() + y[-2] - y[0]
    return known * low.relu(), known * high.relu()


def batch_extremes(q: Tensor, y: Tensor) -> Tensor:
    """Sum of `extreme_triplets`, at least 0.

    With worse, middle and better versions of one image (bicubic, restored, reference), y_i may be any
    distance between them: the margins are its gaps.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,).

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> batch_extremes(q, torch.rand(8)).backward()
    """
    low, high = extreme_triplets(q, y)
    return low + high


def tres_loss(q: Tensor, mirrored: Tensor, y: Tensor, *, ranking: float = 0.05, agreement: float = 0.5) -> Tensor:
    """TReS's loss of predictions for images and for their mirror images, at least 0, without what their maps differ by.

    Mean absolute errors of both, plus `ranking` times their `extreme_triplets`, plus `agreement` times what the
    triplets of one differ from those of the other, each way with the other held.

    Args:
        q: Predictions, (N,).
        mirrored: Predictions for the mirror images, (N,).
        y: Labels, (N,).
        ranking: Weight of the triplets.
        agreement: Weight of their agreement.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> tres_loss(q, q.flip(0), torch.rand(8)).backward()
    """
    (a, labels), (b, _) = paired(q, y, "tres_loss"), paired(mirrored, y, "tres_loss")
    if not len(a):
        return nothing(a) + nothing(b)
    loss = (a - labels).abs().mean() + (b - labels).abs().mean()
    here, there = torch.stack(extreme_triplets(a, labels)), torch.stack(extreme_triplets(b, labels))
    differ = (here - there.detach()).abs().sum() + (there - here.detach()).abs().sum()
    return loss + ranking * (here.sum() + there.sum()) + agreement * differ
