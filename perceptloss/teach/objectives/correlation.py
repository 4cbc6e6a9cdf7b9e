"""Correlations of a batch's predictions with its labels, as losses for a critic.

Pearson's, Lin's concordance, and soft forms of Spearman's and Kendall's after Thong et al.,
"Content-Diverse Comparisons improve IQA", BMVC 2022 (arXiv 2211.05215). All look at the whole list, so
let a batch be 16 or more and gather it over processes. They leave the scale of the critic free (except
concordance), which a little squared error must fix. A correlation says nothing about a restorer.

Throughout, `q` are predictions, higher better, and `y` labels, (N,) each; the loss is 0-d, float32 or
finer. A list of one gives 0, constant labels correlate with nothing (0). A list of two correlates by
+-1, with no slope.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from perceptloss.errors import InputError, near
from perceptloss.teach.objectives.lists import above_zero, centred, nothing, paired, unit_labels, z_scored

__all__ = ["Form", "ccc_loss", "kendall_loss", "pearson_loss", "soft_ranks", "spearman_loss"]

Form = Literal["gap", "half", "abs", "mse"]
"""What is minimised of a correlation r: 1 - r, (1 - r) / 2, 1 - |r| (opposite order is as good), or (1 - r)^2."""


def _shaped(r: Tensor, form: Form) -> Tensor:
    if form == "gap":
        return 1 - r
    if form == "half":
        return (1 - r) / 2
    if form == "abs":
        return 1 - r.abs()
    if form == "mse":
        return (1 - r).square()
    raise InputError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}{near(form, get_args(Form))}")


def correlation(q: Tensor, y: Tensor, eps: float) -> Tensor:
    """Pearson's correlation with labels, exact where the deviation of `q` is at least `eps` and fading to 0 below."""
    distance = centred(q)
    spread = distance.square().mean().clamp_min(eps**2).sqrt()
    return (distance * unit_labels(y)).mean() / spread


def _published_correlation(q: Tensor, y: Tensor) -> Tensor:
    a, b = centred(q), centred(y)
    product = (a * b).sum() / (len(q) - 1)
    return product / ((q.var() + 1e-8).sqrt() * (y.var() + 1e-8).sqrt())


def pearson_loss(
    q: Tensor,
    y: Tensor,
    eps: float = 1e-4,
    *,
    form: Form = "gap",
    published: bool = False,
) -> Tensor:
    r"""One minus Pearson's correlation, in [0, 2]; 0 where predictions are a rising line of the labels.

    .. math:: 1 - \frac{\sum (q - \bar q)(y - \bar y)}{\max(\|q - \bar q\|, \epsilon \sqrt N) \|y - \bar y\|}

    Its gradient sums to 0 and is orthogonal to the predictions: shift and scale stay as they are. Its
    norm goes as 1 / (deviation of q sqrt N), at most 1 / (eps sqrt N), so that predictions that have
    collapsed are driven apart, with force.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,).
        eps: Deviation of predictions below which they count as constant, in their unit.
        form: See `Form`.
        published: Thong et al.'s stabiliser: unbiased variances, 1e-8 inside the root of each.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> pearson_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "pearson_loss")
    if len(q) < 2:
        return nothing(q)
    return _shaped(_published_correlation(q, y) if published else correlation(q, y, eps), form)


def ccc_loss(q: Tensor, y: Tensor, *, form: Form = "gap") -> Tensor:
    r"""One minus Lin's concordance correlation, in [0, 2]; 0 only where predictions equal labels.

    .. math:: 1 - \frac{2 \operatorname{cov}(q, y)}{\operatorname{var} q + \operatorname{var} y + (\bar q - \bar y)^2}

    Unlike Pearson's it fixes shift and scale, and needs no stabiliser: the slope for constant
    predictions is bounded by that of the labels.

    Args:
        q: Predictions, (N,), on the scale of the labels.
        y: Labels, (N,).
        form: See `Form`.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> ccc_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "ccc_loss")
    if len(q) < 2:
        return nothing(q)
    a, b = centred(q), centred(y)
    apart = a.square().mean() + b.square().mean() + (q.mean() - y.mean()).square()
    return _shaped(2 * (a * b).mean() / apart.clamp_min(torch.finfo(q.dtype).tiny), form)


def soft_ranks(x: Tensor, temperature: float) -> Tensor:
    r"""Ranks with a slope, (N,): 1 is the lowest; ties share the mean of their ranks.

    .. math:: r_j = \tfrac12 + \sum_i \operatorname{sigmoid}((x_j - x_i) / T)

    They sum to N (N + 1) / 2 at every temperature and are exact as it goes to 0. They depend on the
    scale of the list: z-score it first. Values more than 10 T apart hardly feel each other. Memory N^2.

    Args:
        x: List, (N,).
        temperature: T > 0, in the unit of `x`.

    Example:
        >>> soft_ranks(torch.tensor([0.3, 0.1, 0.2]), 1e-3)
        tensor([3., 1., 2.])
    """
    return 0.5 + torch.sigmoid((x[:, None] - x) / above_zero(temperature, "temperature")).sum(1)


def _on_one_scale(q: Tensor, y: Tensor, eps: float, published: bool) -> tuple[Tensor, Tensor]:
    return (q, y) if published else (z_scored(q, eps), unit_labels(y))


def spearman_loss(
    q: Tensor, y: Tensor, temperature: float = 0.1, *, eps: float = 1e-3, form: Form = "gap", published: bool = False
) -> Tensor:
    r"""One minus Spearman's correlation of soft ranks, in about [0, 2]; 0 where the soft ranks agree.

    .. math:: 1 - \rho = \frac{\operatorname{mean} (r_q - r_y)^2}{2 \operatorname{var} r_y}

    As T goes to 0 this is 6 sum (r_q - r_y)^2 / (N (N^2 - 1)), if no labels are tied; off the exact value by about
    .003 at T = .01, .01 at .1. At T = .01 far-apart predictions stop learning: start near 1 and end near
    .05. Constant predictions give 0.5.

    Args:
        q: Predictions, (N,); z-scored, by a mean and deviation that are constants of the gradient.
        y: Labels, (N,), z-scored likewise.
        temperature: Of `soft_ranks`, in deviations.
        eps: Deviation of predictions below which they count as constant, in their unit.
        form: See `Form`.
        published: Thong et al.'s: both lists as they are, so that T is in their units, and divided as for exact ranks,
            which at T = 1 overstates rho by about .3.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> spearman_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "spearman_loss")
    size = len(q)
    if size < 2:
        return nothing(q)
    a, b = _on_one_scale(q, y, eps, published)
    is_known = b.any()
    a, b = soft_ranks(a, temperature), soft_ranks(b, temperature)
    distance = (a - b).square().mean() / 2
    if published:
        return _shaped(1 - distance * 12 / (size**2 - 1), form)
    distance = distance / torch.where(is_known, centred(b).square().mean(), 1)
    return _shaped(torch.where(is_known, 1 - distance, 0 * distance), form)


def kendall_loss(
    q: Tensor,
    y: Tensor,
    temperature: float = 0.1,
    *,
    eps: float = 1e-3,
    form: Form = "gap",
    published: bool = False,
) -> Tensor:
    r"""One minus Kendall's correlation of soft comparisons, in [0, 2].

    .. math:: 1 - \tau, \quad \tau = \operatorname{mean}_{i<j} \tanh((q_i - q_j)/T) \tanh((y_i - y_j)/T)

    Even perfect predictions stay above 0 at T > 0 (64 normal values: .005 at T = .01, .05 at .1). Tied labels
    count for nothing; constant predictions give 1.

    Args:
        q: Predictions, (N,); z-scored, by a mean and deviation that are constants of the gradient.
        y: Labels, (N,), z-scored likewise.
        temperature: Difference at which a comparison is nearly decided, in deviations.
        eps: Deviation of predictions below which they count as constant, in their unit.
        form: See `Form`.
        published: Both lists as they are, as Thong et al. compare them; then T is in their units.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> kendall_loss(q, torch.rand(8)).backward()
    """
    q, y = paired(q, y, "kendall_loss")
    size = len(q)
    if size < 2:
        return nothing(q)
    above_zero(temperature, "temperature")
    a, b = (torch.tanh((x[:, None] - x) / temperature) for x in _on_one_scale(q, y, eps, published))
    return _shaped((a * b).sum() / (size * (size - 1)), form)  # each pair twice
