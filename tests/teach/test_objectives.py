"""Objectives of a critic that learns: known answers, and lists that break careless code."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau, pearsonr, spearmanr
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.objectives import comparison, correlation, listwise, regression

LN10 = math.log(10)


def t64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def num(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).detach())


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# every objective of two lists, under its name and with what changes its course
OBJECTIVES = {
    "pearson": correlation.pearson_loss,
    "pearson-abs": partial(correlation.pearson_loss, form="abs"),
    "pearson-published": partial(correlation.pearson_loss, published=True),
    "ccc": correlation.ccc_loss,
    "spearman": correlation.spearman_loss,
    "kendall": correlation.kendall_loss,
    "rank_hinge": comparison.rank_hinge,
    "rank_hinge-all": partial(comparison.rank_hinge, over="all", clamp=5, min_gap=None),
    "pairwise_bce": comparison.pairwise_bce,
    "elo_mse": comparison.elo_mse,
    "difference_mse": comparison.difference_mse,
    "fidelity": comparison.fidelity_loss,
    "batch_kl": listwise.batch_kl,
    "relative_distance_kl": listwise.relative_distance_kl,
    "surrogate_rank": listwise.surrogate_rank_loss,
    "asna": partial(listwise.asna_loss, mse=0.2),
    "batch_extremes": listwise.batch_extremes,
    "tres": lambda q, y: listwise.tres_loss(q, q.flip(0), y),
    "rank_gradient": regression.rank_gradient_loss,
    "rank_gradient-published": partial(regression.rank_gradient_loss, eps=1e-4),
    "tolerance": lambda q, y: regression.tolerance_loss([q, 2 * q, -q], y),
    "reqa": lambda q, y: regression.reqa_loss([q, q, 2 * q, -q], y),
    "norm_in_norm": regression.norm_in_norm,
    "norm_in_norm-2": partial(regression.norm_in_norm, p=2, q=2),
}
PAIRWISE = ("rank_hinge", "pairwise_bce", "elo_mse", "difference_mse", "fidelity")
LISTS = {
    "ordinary": (t64(0.2, -1.3, 0.7, 2.2, 0.1), t64(1, 0, 3, 5, 2)),
    "constant predictions": (t64(0.7, 0.7, 0.7, 0.7), t64(1, 0, 3, 5)),
    "constant labels": (t64(0.2, -1.3, 0.7, 2.2), t64(3.1, 3.1, 3.1, 3.1)),
    "both constant": (t64(0, 0, 0), t64(0, 0, 0)),
    "ties": (t64(1, 1, 2, 2, 0), t64(5, 5, 2, 2, 2)),
    "one": (t64(0.4), t64(2)),
    "two": (t64(0.4, 0.1), t64(2, 3)),
    "none": (t64(), t64()),
    "Elo, collapsed": (t64(1449, 1449, 1449, 1449), t64(1218.8, 1325.3, 1599.7, 1559.6)),
    "Elo, small predictions": (t64(0.2, -1.3, 0.7, 2.2), t64(1218.8, 1325.3, 1599.7, 1559.6)),
    "far apart": (t64(-9e3, 9e3, 0, 5e3), t64(3, 1, 2, 0)),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_and_gradient_are_finite(name, kind):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        check_value_and_gradient(name, kind, dtype)


def check_value_and_gradient(name: str, kind: str, dtype: torch.dtype) -> None:
    q, y = (values.to(dtype) for values in LISTS[kind])
    q.requires_grad_()
    loss = OBJECTIVES[name](q, y)
    assert loss.ndim == 0
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    (gradient,) = torch.autograd.grad(loss, q)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all(), (dtype, gradient)
    assert loss > -1e-6
    regresses = name.startswith(("asna", "tres", "tolerance", "reqa"))
    if kind == "none" or (kind == "one" and not regresses):
        assert loss == 0
        assert not gradient.any()
    if kind == "constant labels" and not regresses and name not in ("elo_mse", "difference_mse", "pearson-published"):
        teaches = name in ("ccc", "batch_kl", "relative_distance_kl", "surrogate_rank")  # towards equality
        assert teaches or gradient.abs().max() < 1e-5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_precision_is_computed_in_single(name):
    q, y = normal(16).half(), normal(16, 1).half()
    with torch.autocast("cpu", torch.bfloat16):
        assert OBJECTIVES[name](q, y) == OBJECTIVES[name](q.float(), y.float())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_stays_on_its_device_and_never_waits_for_it(name):
    """On the meta device there is no value to wait for, and constants made elsewhere do not mix."""
    q = torch.zeros(6, device="meta", requires_grad=True)
    loss = OBJECTIVES[name](q, torch.zeros(6, device="meta"))
    assert loss.device.type == "meta"
    assert torch.autograd.grad(loss, q)[0].shape == (6,)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_learn_nothing(name):
    q, y = normal(6).requires_grad_(), normal(6, 1).requires_grad_()
    assert torch.autograd.grad(OBJECTIVES[name](q, y), y, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_no_pair_of_lists_is_refused(name):
    for shape, labels in (((1, 6), (1, 6)), ((6, 1), (6, 1)), ((5,), (6,))):
        with pytest.raises(InputError, match=r"two lists \(N,\)"):
            OBJECTIVES[name](torch.zeros(shape), torch.zeros(labels))
    with pytest.raises(InputError, match=r"int64 \(3,\)"):
        OBJECTIVES[name](torch.zeros(3, dtype=torch.long), torch.zeros(3))


SMOOTH = {
    "pearson": correlation.pearson_loss,
    "pearson-half": partial(correlation.pearson_loss, form="half"),
    "pearson-mse": partial(correlation.pearson_loss, form="mse"),
    "pearson-published": partial(correlation.pearson_loss, published=True),
    "ccc": correlation.ccc_loss,
    "spearman": partial(correlation.spearman_loss, temperature=0.5, published=True),
    "kendall": partial(correlation.kendall_loss, temperature=0.5, published=True),
    "pairwise_bce": partial(comparison.pairwise_bce, temperature=0.5),
    "elo_mse": comparison.elo_mse,
    "difference_mse": comparison.difference_mse,
    "fidelity": lambda q, y: comparison.fidelity_loss(q, y, min_gap=None),
    "batch_kl": partial(listwise.batch_kl, temperature=0.7),
    "relative_distance_kl": listwise.relative_distance_kl,
    "surrogate_rank": lambda q, y: listwise.surrogate_rank_loss(q, y, partial(correlation.soft_ranks, temperature=0.5)),
    "asna": lambda q, y: listwise.asna_loss(q, y, 0.3, 0.1, ranker=partial(correlation.soft_ranks, temperature=0.5)),
    "norm_in_norm": partial(regression.norm_in_norm, p=2, q=2),
    "norm_in_norm-3": partial(regression.norm_in_norm, p=3, q=3),
    "rank_gradient": regression.rank_gradient_loss,
    "batch_extremes": listwise.batch_extremes,
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_is_that_of_the_value(name):
    q, y = normal(6).requires_grad_(), normal(6, 1)
    torch.autograd.gradcheck(lambda q: SMOOTH[name](q, y), q)


# ---- correlations


def test_exact_correlations_in_the_limit():
    q, y = normal(64), 0.6 * normal(64) + normal(64, 1)
    assert num(1 - correlation.pearson_loss(q, y)) == pytest.approx(pearsonr(q, y)[0], abs=1e-12)
    assert num(1 - correlation.spearman_loss(q, y, 1e-5)) == pytest.approx(spearmanr(q, y)[0], abs=1e-3)
    assert num(1 - correlation.kendall_loss(q, y, 1e-5)) == pytest.approx(kendalltau(q, y)[0], abs=2e-3)
    for temperature, error in ((0.001, 0.002), (0.01, 0.007), (0.1, 0.01), (1, 0.1)):
        soft = float(1 - correlation.spearman_loss(q, y, temperature))
        assert num(soft) == pytest.approx(spearmanr(q, y)[0], abs=error)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 10.0])
def test_soft_spearman_of_a_list_with_itself_is_one(temperature):
    x = normal(20)
    assert num(correlation.spearman_loss(x, x, temperature)) == pytest.approx(0, abs=1e-12)
    assert num(correlation.spearman_loss(3 * x - 7, x, temperature)) == pytest.approx(0, abs=1e-12)  # z-scored
    assert num(correlation.soft_ranks(x, temperature).sum()) == pytest.approx(20 * 21 / 2)


def test_soft_ranks():
    assert torch.allclose(correlation.soft_ranks(t64(0.3, 0.1, 0.2), 1e-4), t64(3, 1, 2))
    assert torch.allclose(correlation.soft_ranks(t64(2, 1, 2, 0), 1e-4), t64(3.5, 2, 3.5, 1))  # ties: their mean


@pytest.mark.parametrize(
    "objective",
    [
        correlation.soft_ranks,
        *(
            partial(f, t64(1, 2))
            for f in (correlation.spearman_loss, correlation.kendall_loss, comparison.pairwise_bce, comparison.elo_mse)
        ),
        *(
            partial(f, t64(1, 2))
            for f in (listwise.batch_kl, listwise.relative_distance_kl, listwise.surrogate_rank_loss)
        ),
    ],
)
def test_a_temperature_is_above_0(objective):
    for temperature in (0, -1, math.nan):
        with pytest.raises(InputError, match="temperature must be above 0"):
            objective(t64(1, 2), temperature=temperature)


def test_three_images():
    x, y = t64(1, 2, 3), t64(1, 3, 2)
    assert num(1 - correlation.spearman_loss(x, y, 1e-4)) == pytest.approx(0.5)
    assert num(1 - correlation.kendall_loss(x, y, 1e-4)) == pytest.approx(1 / 3)
    assert num(1 - correlation.spearman_loss(x, -x, 1e-4)) == pytest.approx(-1)
    assert num(1 - correlation.kendall_loss(x, -x, 1e-4)) == pytest.approx(-1)


def test_kendall_of_a_list_with_itself_stays_below_one_unless_counted_from_it():
    x = normal(64)
    assert num(1 - correlation.kendall_loss(x, x, 0.01)) == pytest.approx(0.995, abs=0.003)
    assert num(1 - correlation.kendall_loss(x, x, 0.1)) == pytest.approx(0.947, abs=0.01)


def test_pearson_is_free_of_scale_and_shift_and_knows_the_sign():
    q, y = normal(12), normal(12, 1)
    loss = correlation.pearson_loss(q, y)
    assert num(correlation.pearson_loss(3 * q + 5, y)) == pytest.approx(num(loss))
    assert num(correlation.pearson_loss(q, 121 * y + 1449)) == pytest.approx(num(loss))
    assert num(correlation.pearson_loss(-2 * q, y)) == pytest.approx(2 - float(loss))
    assert num(correlation.pearson_loss(y, y)) == pytest.approx(0, abs=1e-12)
    assert num(correlation.pearson_loss(-y, y, form="half")) == pytest.approx(1)
    assert num(correlation.pearson_loss(-y, y, form="abs")) == pytest.approx(0, abs=1e-12)
    assert num(correlation.pearson_loss(-y, y, form="mse")) == pytest.approx(4)
    with pytest.raises(InputError, match="'half'"):
        correlation.pearson_loss(q, y, form="halve")


def test_pearson_gradient_is_orthogonal_to_shift_and_scale():
    q, y = normal(12).requires_grad_(), normal(12, 1)
    (g,) = torch.autograd.grad(correlation.pearson_loss(q, y), q)
    assert g.abs().max() > 1e-2
    assert abs(g.sum()) < 1e-12
    assert abs((g * (q - q.mean())).sum()) < 1e-12
    pn, yn = (F.normalize(x - x.mean(), dim=0) for x in (q.detach(), y))
    wanted = -(yn - (pn @ yn) * pn) / (q.detach() - q.detach().mean()).norm()
    assert torch.allclose(g, wanted)


def test_pearson_in_single_precision_on_elo_labels():
    y = (1449 + 121 * normal(64)).float()
    assert num(correlation.pearson_loss(y, y)) == pytest.approx(0, abs=5e-7)


def test_collapsed_predictions_are_driven_apart_by_a_bounded_force():
    y = normal(64)
    for spread in (0.0, 1e-9, 1e-5):
        q = (5 + spread * normal(64, 1)).requires_grad_()
        (g,) = torch.autograd.grad(correlation.pearson_loss(q, y), q)
        assert 1e2 < g.norm() <= 1 / (1e-4 * 8) * 1.001
        assert (g * (y - y.mean())).sum() < 0  # descends towards the order of the labels


def test_two_images_correlate_by_one():
    q = t64(0.2, 0.9).requires_grad_()
    loss = correlation.pearson_loss(q, t64(3, 7))
    assert num(loss) == pytest.approx(0, abs=1e-12)
    assert num(correlation.pearson_loss(q, t64(7, 3))) == pytest.approx(2)
    assert torch.autograd.grad(loss, q)[0].abs().max() < 1e-9


def test_concordance_wants_the_scale_too():
    p = normal(10)
    assert num(correlation.ccc_loss(p, p)) == pytest.approx(0, abs=1e-12)
    assert correlation.ccc_loss(p, p + 1) > 0.1
    assert correlation.ccc_loss(2 * p, p) > 0.1
    assert correlation.ccc_loss(-p, p) > 1
    x = normal(10, 1)
    alike = (x - x.mean()) / x.std() * p.std() + p.mean()
    assert num(correlation.ccc_loss(alike, p)) == pytest.approx(num(correlation.pearson_loss(alike, p)))


# ---- comparisons


def test_equal_predictions_cost_ln_2_in_cross_entropy():
    assert num(comparison.pairwise_bce(t64(1, 1, 1), t64(1, 2, 3))) == pytest.approx(math.log(2))
    assert num(comparison.fidelity_loss(t64(1, 1), t64(1, 2))) == pytest.approx(1 - math.sqrt(0.5))


def test_elo():
    zero, one = t64(0, 0), t64(LN10, 0)
    assert num(comparison.elo_mse(zero, t64(1449, 1449))) == pytest.approx(0, abs=1e-15)
    assert num(comparison.elo_mse(one, t64(1849, 1449))) == pytest.approx(0, abs=1e-15)
    assert num(comparison.elo_mse(zero, t64(1849, 1449))) == pytest.approx((10 / 11 - 0.5) ** 2)
    assert num(comparison.elo_mse(zero, t64(121.54, 0))) == pytest.approx((0.66811 - 0.5) ** 2, abs=1e-6)
    assert num(comparison.elo_mse(2 * one, t64(4, 0), scale=4, temperature=2)) == pytest.approx(0, abs=1e-15)


def test_hinge_counts_pairs_that_fall_short():
    y = t64(3, 2, 1)
    assert comparison.rank_hinge(t64(3, 2, 1), y, 0.5) == 0
    q = t64(3, 2.9, 1).requires_grad_()
    loss = comparison.rank_hinge(q, y, 0.5)
    assert num(loss) == pytest.approx(0.4)  # one of three pairs
    assert torch.equal(torch.autograd.grad(loss, q)[0], t64(-1, 1, 0))
    assert num(comparison.rank_hinge(q, y, 0.5, over="all")) == pytest.approx(0.4 / 3)
    assert num(comparison.rank_hinge(t64(1, 0), t64(1, 0), comparison.gaps(t64(4, 0)))) == pytest.approx(3)
    clamped = t64(9, 7).requires_grad_()
    loss = comparison.rank_hinge(clamped, t64(1, 2), 0.5, clamp=5)
    assert loss == 0.5
    assert not torch.autograd.grad(loss, clamped)[0].any()
    with pytest.raises(InputError, match="'active' or 'all'"):
        comparison.rank_hinge(q, y, over="some")


@pytest.mark.parametrize("name", PAIRWISE)
def test_masks_choose_pairs(name):
    loss = OBJECTIVES[name]
    q, y = normal(6).requires_grad_(), normal(6, 1)
    shown = torch.tensor([7, 3, 7, 3, 1, 1])
    contents = shown[:, None] == shown
    pairs = [(0, 2), (1, 3), (4, 5)]
    alone = [loss(q[list(pair)], y[list(pair)]) for pair in pairs]
    if name == "rank_hinge":
        alone = [value for value in alone if value > 0]
    assert len(alone) > 0
    within = loss(q, y, mask=contents)
    assert num(within) == pytest.approx(num(sum(alone)) / len(alone))
    assert num(loss(q, y, mask=contents.triu())) == pytest.approx(num(within))
    assert num(loss(q, y, mask=contents.tril())) == pytest.approx(num(within))
    (gradient,) = torch.autograd.grad(loss(q, y, mask=contents & (torch.arange(6) < 4)), q)
    assert not gradient[4:].any()


@pytest.mark.parametrize("name", PAIRWISE)
def test_no_pair_left_gives_nothing(name):
    q, y = normal(5).requires_grad_(), normal(5, 1)
    empty = torch.zeros(5, 5, dtype=torch.bool)
    for chosen in ({"mask": empty}, {"min_gap": 1e9}):
        loss = OBJECTIVES[name](q, y, **chosen)
        assert loss == 0
        assert not torch.autograd.grad(loss, q)[0].any()
    with pytest.raises(InputError, match=r"shape \(5, 5\)"):
        OBJECTIVES[name](q, y, mask=empty[:4])
    with pytest.raises(InputError, match="booleans"):
        OBJECTIVES[name](q, y, mask=empty.long())


def test_ties_and_near_ties_are_left_out():
    q, y = t64(0, 1, 5), t64(1, 1, 2)
    assert num(comparison.pairwise_bce(q, y)) == pytest.approx(num(comparison.pairwise_bce(q, y, min_gap=0.5)))
    assert comparison.pairwise_bce(q.flip(0), y.flip(0), min_gap=None) > 3  # the later should win, and lost by 10 T


def test_difference_mse_is_twice_the_variance_of_the_error():
    q, y = normal(9), normal(9, 1)
    assert num(comparison.difference_mse(q, y)) == pytest.approx(2 * float((q - y).var()))
    assert num(comparison.difference_mse(y + 3, y)) == pytest.approx(0, abs=1e-12)


def test_fidelity_follows_thurstone():
    q = t64(0.3, 1.0)
    wins = torch.special.ndtr((q[1] - q[0]) / math.sqrt(2))
    assert num(comparison.fidelity_loss(q, t64(2, 5))) == pytest.approx(num(1 - wins.sqrt()))
    tie = 1 - (wins / 2).sqrt() - ((1 - wins) / 2).sqrt()
    assert num(comparison.fidelity_loss(q, t64(2, 2), min_gap=None)) == pytest.approx(num(tie))
    assert num(comparison.fidelity_loss(t64(-50, 50), t64(2, 1))) == pytest.approx(1)


# ---- lists


def test_batch_divergence():
    p = t64(0.26894, 0.73106)
    y, q = t64(0, 1), t64(0.5, 0.2).requires_grad_()
    by_hand = (p * (p.log() - q.detach().softmax(0).log())).sum()
    loss = listwise.batch_kl(q, y)
    assert num(loss) == pytest.approx(num(by_hand), abs=1e-5)
    (g,) = torch.autograd.grad(loss, q)
    assert torch.allclose(g, q.detach().softmax(0) - p, atol=1e-5)
    assert num(listwise.batch_kl(q, y, 0.5)) == pytest.approx(num(listwise.batch_kl(2 * q, 2 * y)))
    for objective in (listwise.batch_kl, listwise.relative_distance_kl):
        a, b = normal(8).requires_grad_(), normal(8, 1)
        assert num(objective(b, b)) == pytest.approx(0, abs=1e-12)
        assert num(objective(b + 3, b)) == pytest.approx(0, abs=1e-12)
        assert objective(a, b) > 0.1
        (g,) = torch.autograd.grad(objective(a, b, 0.5), a)
        assert abs(g.sum()) < 1e-12
        assert g.abs().max() <= 2


def test_relative_distances_by_hand():
    q, y = t64(0.5, 0.2, -1), t64(0, 1, 3)
    rows = []
    for i, others in enumerate(((1, 2), (0, 2), (0, 1))):
        p, given = ((x[i] - x[list(others)]).softmax(0) for x in (y, q))
        rows.append(float((p * (p / given).log()).sum()))
    assert num(listwise.relative_distance_kl(q, y)) == pytest.approx(sum(rows) / 3)


def test_surrogate_ranks():
    y = t64(1, 2, 3, 4, 5)
    assert listwise.surrogate_rank_loss(y, y) == 0
    discordant, mended = t64(1, 3, 2, 4, 5), t64(1, 2, 3, 4, 5)
    assert listwise.surrogate_rank_loss(mended, y) < listwise.surrogate_rank_loss(discordant, y)
    exact = partial(listwise.surrogate_rank_loss, temperature=1e-4)
    assert num(exact(discordant, y)) == pytest.approx(2 / 5 * (16 / 5) ** 2)
    assert num(exact(y, y.flip(0))) == pytest.approx(8 * (16 / 5) ** 2)


def test_extremes():
    y = t64(40, 11, 88, 62)
    assert [float(part) for part in listwise.extreme_triplets(y, y)] == [0, 0]
    assert listwise.batch_extremes(y + 7, y) == 0
    assert listwise.batch_extremes(-y, y) == 0  # distances know no direction
    q = t64(0, 0, 0, 0).requires_grad_()
    low, high = listwise.extreme_triplets(q, y)
    assert (num(low), num(high)) == (88 - 40, 62 - 11)
    q = t64(1, 4, 2, 3.5).requires_grad_()
    low, high = listwise.extreme_triplets(q, y)
    assert num(low) == pytest.approx((4 - 1) - (4 - 2) + 48)
    assert num(high) == pytest.approx((3.5 - 2) - (4 - 2) + 51)
    assert listwise.batch_extremes(t64(3, 1), t64(1, 2)) == 0


def test_tres_loss_holds_the_other_side():
    q, m, y = t64(1, 4, 2, 3.5).requires_grad_(), t64(2, 4, 1, 3).requires_grad_(), t64(40, 11, 88, 62)
    loss = listwise.tres_loss(q, m, y)
    here, there = listwise.extreme_triplets(q, y), listwise.extreme_triplets(m, y)
    differ = sum((a - b).abs() for a, b in zip(here, there, strict=True))
    l1 = (q - y).abs().mean() + (m - y).abs().mean()
    assert num(loss) == pytest.approx(num(l1 + 0.05 * sum(here + there) + 0.5 * 2 * differ))
    # each side is held while the other learns, so half the slope of the doubled difference reaches each
    (g,) = torch.autograd.grad(loss, q)
    (wanted,) = torch.autograd.grad(l1 + 0.05 * sum(here + there) + 0.5 * differ, q)
    assert torch.allclose(g, wanted)


# ---- regressions


def test_rank_gradient():
    y = t64(1, 5, 2, 9)
    assert regression.rank_gradient_loss(y**3, y) == 0
    gaps = (y[:, None] - y).abs().sum() / 12
    assert num(regression.rank_gradient_loss(-y, y, 1e-4)) == pytest.approx(2 * float(gaps), rel=1e-3)
    tie = t64(3, 3).requires_grad_()
    assert not torch.autograd.grad(regression.rank_gradient_loss(tie, t64(0, 100)), tie)[0].any()
    for eps, bound in ((None, 3e2), (1e-4, 2e6)):
        hair = t64(3 + 1e-5, 3).requires_grad_()
        slope = torch.autograd.grad(regression.rank_gradient_loss(hair, t64(0, 100), eps), hair)[0].abs().max()
        assert bound / 4 < slope < bound


def test_tolerances():
    y = t64(50, 60)
    stages = [(y + t64(4, -4)).requires_grad_() for _ in range(3)]
    loss = regression.tolerance_loss(stages, y)
    assert num(loss) == pytest.approx(2.5)
    gradients = torch.autograd.grad(loss, stages)
    assert not gradients[0].any()
    assert gradients[1].abs().min() > 0
    assert num(regression.tolerance_loss([100 * q for q in stages], 100 * y, (500, 250, 0))) == pytest.approx(250)
    exactly = [(y + 2.5).requires_grad_()]
    assert not torch.autograd.grad(regression.tolerance_loss(exactly, y, (2.5,), (1,)), exactly)[0].any()
    assert num(regression.reqa_loss([-y, *stages], y)) == pytest.approx(
        0.25 * num(regression.rank_gradient_loss(-y, y)) + 0.75 * 2.5
    )
    with pytest.raises(ConfigError, match=r"tolerances must be .*\n.*weights must be"):
        regression.tolerance_loss(stages, y, (1, 2), (1,))
    with pytest.raises(ConfigError, match="not all 0"):
        regression.tolerance_loss(stages, y, weights=(0, 0, 0))


def test_norm_in_norm():
    q, y = normal(12), normal(12, 1)
    for p, inner in ((1, 2), (2, 2), (1, 1), (2, 1), (1.5, math.inf)):
        loss = regression.norm_in_norm(q, y, p, inner)
        assert 0 < loss <= 1
        assert num(regression.norm_in_norm(3 * q - 8, y, p, inner)) == pytest.approx(num(loss))
        assert num(regression.norm_in_norm(5 * y + 2, y, p, inner)) == pytest.approx(0, abs=1e-9)
    half = correlation.pearson_loss(q, y, form="half")
    assert num(regression.norm_in_norm(q, y, 2, 2, alpha=(1, 0))) == pytest.approx(num(half))
    rho = 1 - 2 * float(half)
    assert num(regression.norm_in_norm(q, y, 2, 2, alpha=(0, 1))) == pytest.approx((1 - rho**2) / 4)
    assert num(regression.norm_in_norm(-y, y, 2, 2, alpha=(1, 0))) == pytest.approx(1)
    constant = torch.full((12,), 3.0, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(regression.norm_in_norm(constant, y), constant)
    assert 0 < g.norm() < 1e4
    with pytest.raises(InputError, match="at least 1"):
        regression.norm_in_norm(q, y, 0.5)


def test_triplet_margin():
    maps = torch.rand(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    loss = 20 * regression.triplet_margin(maps, maps, maps)
    assert num(loss) == pytest.approx(10)
    assert torch.isfinite(torch.autograd.grad(loss, maps)[0]).all()
    near, far = maps + 0.01, maps + 1
    assert regression.triplet_margin(maps, near, far) == 0
    assert num(regression.triplet_margin(maps, far, near)) == pytest.approx(0.99 * math.sqrt(8) + 0.5, abs=1e-6)
    half = [t.detach().half() for t in (maps, far, near)]
    assert regression.triplet_margin(*half).dtype == torch.float32
    with pytest.raises(InputError, match="one shape"):
        regression.triplet_margin(maps, maps, maps[:1])
