"""The fitted curves of the protocol: against scipy, exact relations, and limits."""

from __future__ import annotations

import numpy as np
import pytest
from opinions import opinions
from scipy import stats
from scipy.optimize import curve_fit

from perceptloss.compare.statistics.fits import fitted
from perceptloss.compare.statistics.measures import plcc


def fit(pred, mos):
    """The fitted curve at the predictions."""
    return fitted(pred, mos)(np.ones((1, len(pred))))[0]


def rmse(pred, mos):
    return np.sqrt(np.mean((fit(pred, mos) - mos) ** 2))


def logistic4(x, b1, b2, b3, b4):
    with np.errstate(over="ignore"):
        return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


@pytest.mark.parametrize("sign", [1, -1])
def test_logistic4_is_curve_fits(sign):
    pred, mos = opinions()
    expected, _ = curve_fit(logistic4, sign * pred, mos, p0=[sign * 30 + 50, 50 - sign * 30, 0, 0.5], ftol=1e-14)
    curve = logistic4(sign * pred, *expected)
    np.testing.assert_allclose(fit(sign * pred, mos), curve, rtol=1e-6)
    assert plcc(sign * pred, mos, "logistic4") == pytest.approx(stats.pearsonr(curve, mos).statistic, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_is_no_worse_than_the_line_which_is_its_limit(seed):
    draw = np.random.default_rng(seed)
    pred, mos = draw.normal(size=60), draw.normal(size=60)  # no relation: the hardest case
    assert plcc(pred, mos, "logistic4") >= abs(plcc(pred, mos)) - 1e-6


@pytest.mark.parametrize(
    "curve",
    [lambda x: 3 * x + 2, lambda x: logistic4(x, 90, 20, 0.3, 0.2), lambda x: -5 * logistic4(x, 4, 1, -0.5, 1.5)],
    ids=["line", "steep", "falling"],
)
def test_exact_relations_are_found(curve):
    pred, _ = opinions(80)
    mos = curve(pred)
    assert plcc(pred, mos, "logistic4") == pytest.approx(1, abs=1e-7)
    assert rmse(pred, mos) < 1e-4 * mos.std()
    np.testing.assert_allclose(fit(pred, mos), mos, atol=1e-3 * mos.std())


def test_extreme_relations_stay_finite():
    pred, _ = opinions(100)
    assert plcc(pred, np.where(pred > 0.3, 1.0, 0.0), "logistic4") == pytest.approx(1, abs=1e-6)
    assert plcc(pred, np.exp(3 * pred), "logistic4") == pytest.approx(1, abs=1e-6)
    flat = np.tile([0, 0, 1, 1], 5), np.tile([0, 1, 0, 1], 5) + 1449
    assert plcc(*flat, "logistic4") == 0


def test_fits_ignore_units():
    pred, mos = opinions()
    scaled = plcc(1449 + 121.5 * pred, 1e-3 * mos, "logistic4")
    assert scaled == pytest.approx(plcc(pred, mos, "logistic4"), abs=1e-8)
    assert rmse(pred, 1e-3 * mos) == pytest.approx(1e-3 * rmse(pred, mos), rel=1e-6)


@pytest.mark.parametrize("place", [-1.7, -0.4, 0.37, 1.1])
def test_steps_are_found_wherever_they_are(place):
    pred, _ = opinions(300)
    mos = logistic4(pred, 1, 0, place, 0.004)
    assert rmse(pred, mos) < 1e-9
