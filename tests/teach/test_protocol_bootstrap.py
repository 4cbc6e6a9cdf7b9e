"""Bootstrap intervals of the protocol: resampling at once against one by one, contents, coverage, text."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from opinions import opinions, tied

from perceptloss.compare.statistics.bootstrap import Interval, bootstrap, evaluator
from perceptloss.compare.statistics.measures import krcc, plcc, srcc
from perceptloss.compare.statistics.paired import ProtocolError, Ties, pearson
from perceptloss.compare.statistics.pairs import level_accuracy, pairwise_accuracy

STATISTICS = {
    "srcc": srcc,
    "krcc": krcc,
    "plcc": plcc,
    "pairs": pairwise_accuracy,
    "levels": level_accuracy,
}


@pytest.mark.parametrize("groups", [None, np.arange(40) // 4], ids=["images", "contents"])
@pytest.mark.parametrize("data", [opinions(40), tied(40)], ids=["plain", "tied"])
@pytest.mark.parametrize("name", STATISTICS)
def test_resampling_at_once_is_resampling_one_by_one(name, data, groups):
    statistic = STATISTICS[name]
    at_once = bootstrap(statistic, *data, groups=groups, rounds=40)
    one_by_one = bootstrap(lambda x, y: statistic(x, y), *data, groups=groups, rounds=40)
    for key in ("value", "low", "high", "undefined"):
        assert getattr(at_once, key) == pytest.approx(getattr(one_by_one, key), abs=1e-10)


def test_fits_are_made_anew_in_each_resample():
    data = opinions(60)
    at_once = bootstrap(partial(plcc, fit="logistic4"), *data, rounds=12)
    one_by_one = bootstrap(lambda x, y: plcc(x, y, "logistic4"), *data, rounds=12)
    # one by one starts from scratch and may find a deeper minimum of a few points
    assert at_once.value == one_by_one.value
    assert (at_once.low, at_once.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=3e-3)


def test_contents_make_wider_intervals():
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 25)
    shift = draw.normal(size=20)[groups]  # errors that a content's versions share
    mos = draw.normal(size=500)
    pred = mos + 2 * shift + 0.1 * draw.normal(size=500)
    images, contents = bootstrap(srcc, pred, mos, rounds=300), bootstrap(srcc, pred, mos, groups=groups, rounds=300)
    assert images.value == contents.value
    assert contents.high - contents.low > 1.3 * (images.high - images.low)


def test_interval_covers():
    truth = 6 / math.pi * math.asin(0.7 / 2)  # Spearman of a normal pair with correlation 0.7
    hits = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        pred = draw.normal(size=150)
        mos = 0.7 * pred + math.sqrt(1 - 0.49) * draw.normal(size=150)
        interval = bootstrap(srcc, pred, mos, rounds=200, seed=seed)
        hits += interval.low <= truth <= interval.high
    assert hits >= 51  # 57 expected


def test_draws_depend_on_the_seed_alone(monkeypatch):
    data = opinions(50)
    first = bootstrap(srcc, *data, rounds=30)
    assert first == bootstrap(srcc, *data, rounds=30)
    assert first != bootstrap(srcc, *data, rounds=30, seed=1)
    monkeypatch.setattr("perceptloss.compare.statistics.bootstrap._CELLS", 350)  # seven rounds at a time
    assert bootstrap(srcc, *data, rounds=30) == first


def test_each_copy_of_a_content_is_a_content():
    pred, mos = tied(24)
    groups = np.arange(24) // 6
    drawn = np.array([2, 0, 1, 3])
    taken = np.concatenate([np.flatnonzero(groups == g) for g in np.repeat(np.arange(4), drawn)])
    expected = pairwise_accuracy(pred[taken], mos[taken], groups=np.arange(36) // 6)
    statistic = evaluator(partial(pairwise_accuracy, groups=groups), pred, mos)
    assert statistic(drawn[None, groups].astype(float))[0] == pytest.approx(expected)


def test_levels_nest_in_contents():
    draw = np.random.default_rng(0)
    groups, level = np.repeat(np.arange(12), 5), np.tile(np.arange(5.0), 12)
    pred = -level + draw.normal(size=60)
    found = bootstrap(partial(level_accuracy, groups=groups), pred, level, groups=groups // 3, rounds=50)
    assert found.low < found.value == level_accuracy(pred, level, groups) < found.high
    with pytest.raises(ProtocolError, match="give bootstrap the same groups"):
        bootstrap(partial(level_accuracy, groups=groups), pred, level, rounds=5)


def test_undefined_resamples_are_counted():
    pred, mos = np.arange(8.0), np.array([0.0] * 6 + [1, 1])
    found = bootstrap(srcc, pred, mos, rounds=200)
    assert 0 < found.undefined < 40  # (6/8)^8 = 0.1 of them lack a 1
    with pytest.raises(ProtocolError, match=r"constant.*too few images"):
        bootstrap(srcc, pred, np.array([0.0] * 7 + [1]), rounds=200)


def test_an_empty_resample_is_undefined():
    counts = np.array([[0.0, 0, 0], [2, 0, 0], [1, 1, 0]])
    found = pearson(np.arange(3.0), np.arange(3.0) ** 2, counts)
    assert np.isnan(found).tolist() == [True, True, False]


def test_ranks_of_a_resample():
    ranks = Ties.of(np.array([5.0, 1, 5, 2])).ranks(np.array([[1.0, 2, 1, 0]]))
    assert ranks[0, :3].tolist() == [3.5, 1.5, 3.5]


def test_interval_text():
    assert str(Interval(0.8123, 0.7901, 0.8333)) == "0.812 [0.790, 0.833]"
    assert str(Interval(0.99961, 0.99944, 0.99978)) == "0.99961 [0.99944, 0.99978]"
    assert str(Interval(-0.05, -0.31, 0.2)) == "−0.050 [−0.310, 0.200]"
    assert str(Interval(121.53, 110.2, 133.8)) == "122 [110, 134]"
    assert str(Interval(1, 1, 1)) == "1.0000 [1.0000, 1.0000]"
