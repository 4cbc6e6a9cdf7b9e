"""The fitted curves of the protocol: against scipy, exact relations, and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from opinions import opinions
from scipy import stats
from scipy.optimize import curve_fit

from perceptloss.compare.statistics.fits import FORMS, fit_curve
from perceptloss.compare.statistics.measures import plcc, rmse


def logistic4(x, b1, b2, b3, b4):
    with np.errstate(over="ignore"):
        return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


def logistic5(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


@pytest.mark.parametrize("sign", [1, -1])
def test_logistic4_is_curve_fits(sign):
    pred, mos = opinions()
    expected, _ = curve_fit(logistic4, sign * pred, mos, p0=[sign * 30 + 50, 50 - sign * 30, 0, 0.5], ftol=1e-14)
    curve = fit_curve(sign * pred, mos, "logistic4")
    expected[3] = abs(expected[3])
    np.testing.assert_allclose(curve.parameters, expected, rtol=1e-5, atol=1e-5)
    fitted = logistic4(sign * pred, *expected)
    np.testing.assert_allclose(curve(sign * pred), fitted, rtol=1e-6)
    assert plcc(sign * pred, mos, "logistic4") == pytest.approx(stats.pearsonr(fitted, mos).statistic, abs=1e-9)
    assert rmse(sign * pred, mos, "logistic4") == pytest.approx(np.sqrt(np.mean((fitted - mos) ** 2)), rel=1e-9)


def test_logistic5_is_curve_fits():
    pred, mos = opinions()
    start = [40, 2, 0, 0, 50]
    expected, _ = curve_fit(logistic5, pred, mos, p0=start, ftol=1e-14, xtol=1e-14, maxfev=20000)
    curve = fit_curve(pred, mos, "logistic5")
    np.testing.assert_allclose(curve.parameters, expected, rtol=1e-4, atol=1e-4)
    fitted = logistic5(pred, *expected)
    assert plcc(pred, mos, "logistic5") == pytest.approx(stats.pearsonr(fitted, mos).statistic, abs=1e-9)


def test_poly3_is_polyfits():
    pred, mos = opinions()
    expected = np.polyfit(pred, mos, 3)
    np.testing.assert_allclose(fit_curve(pred, mos, "poly3").parameters, expected, rtol=1e-9)
    fitted = np.polyval(expected, pred)
    assert plcc(pred, mos, "poly3") == pytest.approx(stats.pearsonr(fitted, mos).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_fits_that_contain_the_line_are_no_worse(seed):
    draw = np.random.default_rng(seed)
    pred, mos = draw.normal(size=60), draw.normal(size=60)  # no relation: the hardest case
    raw = abs(plcc(pred, mos))
    assert plcc(pred, mos, "poly3") >= raw - 1e-12
    assert plcc(pred, mos, "logistic5") >= raw - 1e-9
    assert plcc(pred, mos, "logistic4") >= raw - 1e-6  # the line is its limit


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "curve",
    [lambda x: 3 * x + 2, lambda x: logistic4(x, 90, 20, 0.3, 0.2), lambda x: -5 * logistic4(x, 4, 1, -0.5, 1.5)],
    ids=["line", "steep", "falling"],
)
def test_exact_relations_are_found(form, curve):
    pred, _ = opinions(80)
    mos = curve(pred)
    if form == "poly3" and plcc(pred, mos) < 1 - 1e-9:
        assert plcc(pred, mos, form) > abs(plcc(pred, mos))
        return
    assert plcc(pred, mos, form) == pytest.approx(1, abs=1e-7)
    assert rmse(pred, mos, form) < 1e-4 * mos.std()
    np.testing.assert_allclose(fit_curve(pred, mos, form)(pred), mos, atol=1e-3 * mos.std())


def test_extreme_relations_stay_finite():
    pred, _ = opinions(100)
    assert plcc(pred, np.where(pred > 0.3, 1.0, 0.0), "logistic4") == pytest.approx(1, abs=1e-6)
    assert plcc(pred, np.exp(3 * pred), "logistic4") == pytest.approx(1, abs=1e-6)
    flat = np.tile([0, 0, 1, 1], 5), np.tile([0, 1, 0, 1], 5) + 1449
    assert [plcc(*flat, form) for form in FORMS] == [0, 0, 0]


def test_fits_ignore_units():
    pred, mos = opinions()
    for form in FORMS:
        scaled = plcc(1449 + 121.5 * pred, 1e-3 * mos, form)
        assert scaled == pytest.approx(plcc(pred, mos, form), abs=1e-8)
    assert rmse(pred, 1e-3 * mos) == pytest.approx(1e-3 * rmse(pred, mos), rel=1e-6)


def test_rmse_without_a_fit():
    assert rmse([1, 2, 3], [2, 2, 5], "none") == pytest.approx(math.sqrt(5 / 3))


@pytest.mark.parametrize("place", [-1.7, -0.4, 0.37, 1.1])
def test_steps_are_found_wherever_they_are(place):
    pred, _ = opinions(300)
    mos = logistic4(pred, 1, 0, place, 0.004)
    assert rmse(pred, mos, "logistic4") < 1e-9
    assert rmse(pred, mos, "logistic5") < 1e-9
