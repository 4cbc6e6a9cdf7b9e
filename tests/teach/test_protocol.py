"""The test protocol: figures of scipy, pairs, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opinions import opinions, tied
from scipy import stats

from perceptloss.compare.statistics.bootstrap import bootstrap
from perceptloss.compare.statistics.measures import krcc, plcc, srcc
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.compare.statistics.pairs import level_accuracy, pairwise_accuracy
from perceptloss.errors import PerceptlossError

# -- correlations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [opinions(), tied(), tied(7, 3), opinions(3)], ids=["plain", "tied", "few", "three"])
def test_correlations_are_scipys(data):
    assert srcc(*data) == pytest.approx(stats.spearmanr(*data).statistic, abs=1e-13)
    assert krcc(*data) == pytest.approx(stats.kendalltau(*data).statistic, abs=1e-13)
    assert plcc(*data) == pytest.approx(stats.pearsonr(*data).statistic, abs=1e-13)


def test_small_lists_by_hand():
    assert srcc([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert krcc([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert plcc([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert krcc([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))  # one tie of three pairs


def test_monotone_transforms_leave_ranks():
    pred, mos = opinions()
    assert srcc(np.exp(pred), mos) == pytest.approx(srcc(pred, mos), abs=1e-14)
    assert krcc(np.exp(pred), mos) == pytest.approx(krcc(pred, mos), abs=1e-14)
    assert abs(plcc(np.exp(pred), mos) - plcc(pred, mos)) > 0.05
    assert plcc(7 - 3 * pred, mos) == pytest.approx(-plcc(pred, mos), abs=1e-13)


def test_pearson_keeps_its_digits_on_a_large_offset():
    pred, mos = opinions()
    assert plcc(1e9 + pred, 1449 + mos) == pytest.approx(plcc(pred, mos), abs=1e-6)


def test_tensors_are_taken():
    pred, mos = opinions()
    leaf = torch.tensor(pred, requires_grad=True)
    assert srcc(leaf, torch.tensor(mos)) == pytest.approx(srcc(pred, mos))
    assert srcc(leaf.bfloat16(), mos) > 0.9


# -- pairs -------------------------------------------------------------------------------------------------------


def test_pairs_by_hand():
    pred, mos = [1, 2, 2, 5], [1, 2, 3, 0]
    # right: 1<2, 1<3; equal: 2=2; wrong: all three with the last
    assert pairwise_accuracy(pred, mos) == pytest.approx(2.5 / 6)
    assert pairwise_accuracy(pred, mos, groups=["a", "a", "b", "b"]) == pytest.approx(0.5)


def test_pairs_are_kendalls_without_ties():
    pred, mos = opinions(60)
    assert pairwise_accuracy(pred, mos) == pytest.approx((krcc(pred, mos) + 1) / 2)


def test_levels():
    level, groups = [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]
    assert level_accuracy([3, 2, 1, 9, 8, 7], level, groups) == 1
    assert level_accuracy([3, 2, 1, 7, 8, 9], level, groups) == 0.5
    assert level_accuracy([3, 2, 1, 9, 9, 7], level, groups) == pytest.approx(5.5 / 6)
    with pytest.raises(ProtocolError, match=r"groups is negative.* for 2 images"):
        level_accuracy([3, 2, 1, 9, 8, 7], level, [0, 0, 0, 0, -1, -1])


# -- refusals ----------------------------------------------------------------------------------------------------

GOOD = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize("statistic", [srcc, krcc, plcc, pairwise_accuracy])
@pytest.mark.parametrize(
    ("pred", "mos", "message"),
    [
        ([3.0] * 6, GOOD, r"pred is constant, 3 for all 6 images\. The critic has collapsed"),
        (GOOD, [3.0] * 6, r"mos is constant"),
        ([*GOOD[:5], math.nan], GOOD, r"pred holds 1 numbers of 6 that are not finite, the first, nan, at 5"),
        (GOOD, [math.inf, *GOOD[1:]], r"mos holds 1 .* inf, at 0"),
        (GOOD, GOOD[:5], r"same images, got 6 and 5"),
        ([GOOD, GOOD], GOOD, r"pred must be a row of numbers, \(n,\), got an array of shape \(2, 6\)"),
        (["a"] * 6, GOOD, r"pred must be a row of numbers, got list"),
        ([1.0], [2.0], r"expected at least \d images, got 1"),
    ],
)
def test_unusable_numbers_are_refused(statistic, pred, mos, message):
    with pytest.raises(ProtocolError, match=message) as caught:
        statistic(pred, mos)
    assert isinstance(caught.value, PerceptlossError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plcc(GOOD, GOOD[::-1], "logistic6"), r"unknown fit 'logistic6'; expected none or logistic4"),
        (lambda: plcc(GOOD[:4], GOOD[1:5], "logistic4"), r"logistic4 has 4 parameters .* got 4"),
        (lambda: pairwise_accuracy(GOOD, GOOD, range(6)), r"no group holds two images"),
        (lambda: pairwise_accuracy(GOOD, GOOD, [1, 2]), r"groups must hold one label per image, \(6,\)"),
        (lambda: level_accuracy(GOOD, [1] * 6), r"level is constant"),
        (lambda: bootstrap(srcc, GOOD, GOOD, groups=["a"] * 6), r"groups holds a single content"),
        (lambda: bootstrap(srcc, GOOD, GOOD, rounds=0), r"rounds of at least 1"),
        (lambda: bootstrap(srcc, GOOD, GOOD, level=95), r"level between 0 and 1, got 1000 and 95"),
        (lambda: plcc(GOOD, [1e200 * v for v in GOOD]), r"rescale it"),
        (lambda: plcc(GOOD, [1e-200 * v for v in GOOD]), r"rescale it"),
        (lambda: plcc(GOOD, [1e200 * v for v in GOOD], "logistic4"), r"rescale it"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ProtocolError, match=message):
        call()
