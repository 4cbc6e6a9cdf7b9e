"""The test protocol: figures of scipy and of the papers, pairs, tables, and refusals."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from opinions import opinions, tied
from scipy import stats

from perceptloss.compare.statistics.bootstrap import bootstrap
from perceptloss.compare.statistics.measures import banded_srcc, krcc, main_score, plcc, quality_bands, rmse, srcc
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.compare.statistics.pairs import elo_probability, level_accuracy, pairwise_accuracy
from perceptloss.errors import PerceptlossError
from perceptloss.teach.exams.protocol import agree, cross_table

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


def test_main_score_has_no_direction():
    _, mos = opinions()
    assert main_score(mos, mos) == pytest.approx(2, abs=1e-12)
    assert main_score(-mos, mos) == pytest.approx(2, abs=1e-12)
    pred, mos = opinions()
    assert main_score(pred, mos) == pytest.approx(srcc(pred, mos) + plcc(pred, mos))
    assert main_score(pred, mos, "poly3") == pytest.approx(srcc(pred, mos) + plcc(pred, mos, "poly3"))


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


def test_elo():
    assert elo_probability(0) == 0.5
    assert elo_probability(400) == pytest.approx(10 / 11)
    assert elo_probability(1449 + 121.54, 1449) == pytest.approx(0.66811, abs=5e-6)
    assert elo_probability(-1e6) == 0
    np.testing.assert_allclose(elo_probability(np.array([0.0, 400.0]), 400.0), [1 / 11, 0.5])


def test_pairs_by_hand():
    pred, mos = [1, 2, 2, 5], [1, 2, 3, 0]
    # right: 1<2, 1<3; equal: 2=2; wrong: all three with the last
    assert pairwise_accuracy(pred, mos) == pytest.approx(2.5 / 6)
    assert pairwise_accuracy(pred, mos, min_gap=2) == pytest.approx(1 / 3)  # 1-3, and 2-0 and 3-0
    assert pairwise_accuracy(pred, mos, groups=["a", "a", "b", "b"]) == pytest.approx(0.5)
    assert pairwise_accuracy(pred, mos, min_gap=1e-9) == pairwise_accuracy(pred, mos)  # by comparing, by counting


def test_pairs_are_kendalls_without_ties():
    pred, mos = opinions(60)
    assert pairwise_accuracy(pred, mos) == pytest.approx((krcc(pred, mos) + 1) / 2)


def test_elo_weighs_sure_pairs_more():
    pred, mos = [1, 2, 0], [0, 400, 10]
    weights = [10 / 11 - 0.5, elo_probability(10) - 0.5, elo_probability(390) - 0.5]
    expected = (weights[0] + weights[2]) / sum(weights)  # wrong only on the gap of 10
    assert pairwise_accuracy(pred, mos, weight="elo") == pytest.approx(expected)


def test_pairs_in_blocks(monkeypatch):
    pred, mos = tied()
    groups = np.arange(200) % 7
    whole = pairwise_accuracy(pred, mos), pairwise_accuracy(pred, mos, groups, weight="elo")
    monkeypatch.setattr("perceptloss.compare.statistics.pairs._CELLS", 600)
    assert (pairwise_accuracy(pred, mos), pairwise_accuracy(pred, mos, groups, weight="elo")) == pytest.approx(whole)


def test_levels():
    level, groups = [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]
    assert level_accuracy([3, 2, 1, 9, 8, 7], level, groups) == 1
    assert level_accuracy([3, 2, 1, 7, 8, 9], level, groups) == 0.5
    assert level_accuracy([3, 2, 1, 9, 9, 7], level, groups) == pytest.approx(5.5 / 6)
    with pytest.raises(ProtocolError, match=r"groups is negative.* for 2 images"):
        level_accuracy([3, 2, 1, 9, 8, 7], level, [0, 0, 0, 0, -1, -1])


def test_bands():
    mos = np.arange(40.0)
    pred = np.where(mos < 30, mos, 69 - mos)  # the best quarter in reverse
    assert banded_srcc(pred, mos) == pytest.approx((1, 1, 1, -1))
    assert np.bincount(quality_bands(mos)).tolist() == [10, 10, 10, 10]
    assert len(set(quality_bands([1, 1, 1, 1, 1, 2, 3, 4])[:5])) == 1
    assert banded_srcc(*opinions(), bands=1) == pytest.approx((srcc(*opinions()),))


# -- all together ------------------------------------------------------------------------------------------------


def test_agree_holds_each_figure():
    pred, mos = opinions(120)
    contents, families = np.arange(120) // 6, np.array(["blur", "noise"])[np.arange(120) % 2]
    found = agree(pred, mos, contents=contents, families=families, elo=True, rounds=60)
    assert found.count == 120 and found.contents == 20
    assert found.srcc == bootstrap(srcc, pred, mos, groups=contents, rounds=60)
    assert found.figures["PLCC, logistic4"].value == plcc(pred, mos, "logistic4")
    assert found.figures["main score, poly3"].value == main_score(pred, mos, "poly3")
    elo = partial(pairwise_accuracy, groups=contents, weight="elo")
    assert found.figures["pairs, elo weights"] == bootstrap(elo, pred, mos, groups=contents, rounds=60)
    assert [band.value for band in found.bands] == pytest.approx(list(banded_srcc(pred, mos)))
    assert found.families["noise"].value == pytest.approx(srcc(pred[1::2], mos[1::2]))
    text = found.to_markdown()
    assert f"| SRCC | {found.srcc} |\n" in text and "20 contents resampled 60 times" in text
    assert len(text.splitlines()) == 2 + len(found.figures) + 4 + 2 + 2


def test_agree_turns_a_distance():
    pred, mos = opinions(60)
    up, down = agree(pred, mos, rounds=20), agree(-pred, mos, better="lower", rounds=20)
    assert up == down
    assert up.figures["pairs, equal weights"].value > 0.5 and up.plcc.value > 0 and up.krcc.value > 0


def test_agree_without_bands():
    pred, _ = opinions(60)
    mos = np.arange(60.0) % 3
    with pytest.raises(ProtocolError, match=r"band 1 of 4: mos is constant"):
        agree(pred, mos, rounds=20)
    assert agree(pred, mos, bands=0, rounds=20).bands == ()


def test_cross_table():
    pred, mos = opinions(60)
    other = opinions(30, seed=5)
    scores = {"ours": {"kadid": (pred, mos), "live": other}, "a|b": {"kadid": (-pred, mos)}}
    text = cross_table(scores, better={"a|b": "lower"}, contents={"kadid": np.arange(60) // 5}, rounds=30)
    head, rule, ours, peer, _, note = text.splitlines()
    assert head == "| critic | kadid (n = 60) | live (n = 30) |" and rule == "|---|---:|---:|"
    kadid = bootstrap(srcc, pred, mos, groups=np.arange(60) // 5, rounds=30)
    assert ours == f"| ours | {kadid} | {bootstrap(srcc, *other, rounds=30)} |"
    assert peer == f"| a\\|b | {kadid} | — |"
    assert note.startswith("SRCC with 95%") and "contents resampled (kadid), images elsewhere, 30 rounds" in note


def test_cross_table_refuses_to_compare_different_images():
    pred, mos = opinions(30)
    with pytest.raises(ProtocolError, match="kadid: labels of b are not those of a"):
        cross_table({"a": {"kadid": (pred, mos)}, "b": {"kadid": (pred, mos[::-1])}}, rounds=5)
    with pytest.raises(ProtocolError, match="a on kadid: pred is constant"):
        cross_table({"a": {"kadid": (np.ones(30), mos)}}, rounds=5)


# -- refusals ----------------------------------------------------------------------------------------------------

GOOD = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize("statistic", [srcc, krcc, plcc, rmse, main_score, pairwise_accuracy, agree, banded_srcc])
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
        (lambda: plcc(GOOD, GOOD[::-1], "logistic6"), r"unknown fit 'logistic6'.*did you mean 'logistic"),
        (lambda: plcc(GOOD[:5], GOOD[1:], "logistic5"), r"logistic5 has 5 parameters .* got 5"),
        (lambda: pairwise_accuracy(GOOD, GOOD, weight="sure"), r"'equal' or 'elo', got 'sure'"),
        (lambda: pairwise_accuracy(GOOD, GOOD, min_gap=-1), r"min_gap must be at least 0"),
        (lambda: pairwise_accuracy(GOOD, GOOD, min_gap=10), r"no two images have labels that are unequal by .*=10"),
        (lambda: pairwise_accuracy(GOOD, GOOD, range(6)), r"no group holds two images"),
        (lambda: pairwise_accuracy(GOOD, GOOD, [1, 2]), r"groups must hold one label per image, \(6,\)"),
        (lambda: level_accuracy(GOOD, [1] * 6), r"level is constant"),
        (lambda: bootstrap(srcc, GOOD, GOOD, groups=["a"] * 6), r"groups holds a single content"),
        (lambda: bootstrap(srcc, GOOD, GOOD, rounds=0), r"rounds of at least 1"),
        (lambda: bootstrap(srcc, GOOD, GOOD, level=95), r"level between 0 and 1, got 1000 and 95"),
        (lambda: banded_srcc(GOOD, GOOD, 0), r"one band or more, got 0"),
        (lambda: agree(GOOD, GOOD, better="up"), r"'higher' or 'lower', got 'up'"),
        (lambda: agree(GOOD, GOOD, bands=0, families=list("aabbbb")), r"family a: expected at least 3 images, got 2"),
        (lambda: plcc(GOOD, [1e200 * v for v in GOOD]), r"rescale it"),
        (lambda: plcc(GOOD, [1e-200 * v for v in GOOD]), r"rescale it"),
        (lambda: plcc(GOOD, [1e200 * v for v in GOOD], "poly3"), r"rescale it"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ProtocolError, match=message):
        call()
