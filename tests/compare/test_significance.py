"""Tests of differences: scipy's values on fixed arrays, uniform p where nothing differs, coverage, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perceptloss.compare.statistics.distributions import (
    chi_squared_tail,
    range_quantile,
    student_quantile,
    student_tail,
)
from perceptloss.compare.statistics.equivalence import detectable, tost
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.compare.statistics.significance import (
    hodges_lehmann,
    holm,
    least_units,
    sign_flip,
    wilcoxon,
    wilson,
)
from perceptloss.compare.statistics.units import Units, bounds

RANDOM = np.random.default_rng(7)
SMALL = RANDOM.normal(0.4, 1, 12)
LARGE = RANDOM.exponential(1, 40) - 0.8
TIED = np.round(RANDOM.normal(0.3, 1, 14))  # with zeros and ties


def trials(count, size, seed=0, draw="normal"):
    return getattr(np.random.default_rng(seed), draw)(size=(count, size))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 11, 30])
def test_distributions_are_those_of_scipy(freedom):
    for t in (-2.5, 0.0, 0.3, 1.0, 4.0):
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-12)
        assert chi_squared_tail(abs(t), freedom) == pytest.approx(stats.chi2.sf(abs(t), freedom), abs=1e-12)
    for probability in (0.2, 0.8, 0.975, 0.9999):
        assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


@pytest.mark.parametrize(("count", "published"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_range_quantile_is_that_of_the_tables(count, published):
    """Demsar, JMLR 7, 2006, table 5 a, divides it by the root of 2."""
    assert range_quantile(0.95, count) / 2**0.5 == pytest.approx(published, abs=6e-4)


class TestSignFlip:
    def test_exact_is_that_of_scipy(self):
        for values in (SMALL, TIED, SMALL[:4]):
            oracle = stats.permutation_test(
                (values, np.zeros_like(values)),
                lambda a, b: (a - b).mean(),
                permutation_type="samples",
                n_resamples=np.inf,
            )
            (chance,) = sign_flip(values[:, None])
            assert chance.is_exact
            assert chance.p == pytest.approx(oracle.pvalue, abs=1e-12)

    def test_random_patterns_come_close_to_all(self):
        values = np.concatenate([SMALL, [1e-9] * 5])  # five more that decide nothing
        (chance,) = sign_flip(values[:, None], rounds=40_000)
        assert not chance.is_exact
        exact = sign_flip(SMALL[:, None])[0].p
        assert chance.p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 40_000) ** 0.5)

    def test_p_is_never_0_and_equal_seeds_give_equal_p(self):
        table = np.stack([np.ones(30), LARGE[:30]], axis=1)
        first, again, other = (sign_flip(table, rounds=999, seed=seed) for seed in (1, 1, 2))
        assert first[0].p == 1 / 1000
        assert first == again
        assert first[1].p != other[1].p
        assert sign_flip(table[:, 1:], rounds=999, seed=1) == first[1:], "other systems change nothing"

    def test_zeros_do_not_count(self):
        (chance,) = sign_flip(np.concatenate([SMALL, np.zeros(30)])[:, None])
        assert chance == sign_flip(SMALL[:, None])[0]
        assert sign_flip(np.zeros((5, 1)))[0].p == 1

    @pytest.mark.parametrize("size", [9, 25])
    def test_p_is_uniform_where_nothing_differs(self, size):
        p = np.array([sign_flip(row[:, None], rounds=400, seed=n)[0].p for n, row in enumerate(trials(400, size))])
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.033)  # three standard errors

    def test_how_many_units_a_star_takes(self):
        assert [least_units(alpha) for alpha in (0.05, 0.05 / 4, 0.5, 1.0)] == [6, 8, 2, 1]
        for count in (5, 6):
            assert (sign_flip(np.ones((count, 1)))[0].p <= 0.05) == (count >= 6)


class TestWilcoxon:
    def test_is_that_of_scipy(self):
        oracle = stats.wilcoxon(SMALL, zero_method="pratt", method="exact")
        found = wilcoxon(SMALL)
        assert (found.is_exact, found.p) == (True, pytest.approx(oracle.pvalue, abs=1e-12))
        assert min(found.statistic, 78 - found.statistic) == oracle.statistic
        many = np.concatenate([LARGE, TIED, np.zeros(3)])
        oracle = stats.wilcoxon(many, zero_method="pratt", correction=False, method="approx")
        found = wilcoxon(many)
        assert (found.is_exact, found.p) == (False, pytest.approx(oracle.pvalue, abs=1e-12))

    def test_ties_and_zeros_are_counted_out(self):
        method = stats.PermutationMethod(n_resamples=np.inf)
        oracle = stats.wilcoxon(TIED, zero_method="pratt", method=method)
        assert wilcoxon(TIED).p == pytest.approx(oracle.pvalue, abs=1e-12)

    def test_effect_sizes(self):
        assert wilcoxon(np.arange(1.0, 6)).biserial == 1
        assert wilcoxon(np.zeros(4)) == wilcoxon(np.zeros(9))
        assert wilcoxon(np.array([3.0, -1.0, 2.0])).biserial == pytest.approx((5 - 1) / 6)
        assert hodges_lehmann(np.array([1.0, 2.0, 9.0])) == 3.5  # median of 1, 1.5, 2, 5, 5.5, 9
        assert hodges_lehmann(SMALL + 1) == pytest.approx(hodges_lehmann(SMALL) + 1)


def test_holm_steps_down():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.5])), [1, 1])
    assert holm(np.array([])).size == 0


def test_wilson_is_that_of_scipy():
    for wins, count in ((0, 5), (17, 24), (24, 24)):
        oracle = stats.binomtest(wins, count).proportion_ci(0.95, "wilson")
        assert wilson(wins / count, count) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


class TestIntervals:
    def test_bca_is_that_of_scipy(self):
        oracle = stats.bootstrap(
            (LARGE,), np.mean, n_resamples=3000, method="BCa", rng=np.random.default_rng(3)
        ).confidence_interval
        (found,) = bounds(Units.of(LARGE[:, None]), rounds=3000, seed=3)
        assert found.method == "bca"
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)

    def test_few_units_give_expanded_percentiles(self):
        (found,) = bounds(Units.of(SMALL[:, None]), rounds=2000)
        tail = stats.norm.cdf(-stats.t.ppf(0.975, 11) * (12 / 11) ** 0.5)
        oracle = stats.bootstrap(
            (SMALL,),
            np.mean,
            n_resamples=2000,
            method="percentile",
            confidence_level=1 - 2 * tail,
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert found.method == "percentile"
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)

    def test_where_nothing_varies(self):
        same, one = bounds(Units.of(np.full((30, 1), 0.25))), bounds(Units.of(np.ones((1, 1))))
        assert (same[0].low, same[0].high, same[0].method) == (0.25, 0.25, "equal")
        assert (one[0].low, one[0].high, one[0].method) == (None, None, "none")

    @pytest.mark.parametrize(
        ("draw", "size", "mean", "share"),
        [
            ("normal", 30, 0.0, 0.94),
            ("exponential", 60, 1.0, 0.935),
            ("normal", 5, 0.0, 0.92),
            ("normal", 3, 0.0, 0.76),
        ],
    )
    def test_coverage(self, draw, size, mean, share):
        """What the bootstrap reaches of 0.95 at such sizes, within three standard errors."""
        rows = trials(800, size, 5, draw)
        found = [bounds(Units.of(row[:, None]), rounds=20_000 // size, seed=n)[0] for n, row in enumerate(rows)]
        covered = np.mean([bound.low <= mean <= bound.high for bound in found])
        assert covered == pytest.approx(share, abs=0.027 if share > 0.9 else 0.045)

    def test_groups_are_drawn_whole(self):
        """Copies of an image are no evidence: its interval, and its test, are those of one."""
        codes = np.repeat(np.arange(len(LARGE)), 4)
        copies = Units.of(np.repeat(LARGE, 4)[:, None], codes)
        assert bounds(copies, rounds=1000)[0].low == pytest.approx(bounds(Units.of(LARGE[:, None]), rounds=1000)[0].low)
        assert copies.error[0] == pytest.approx(stats.sem(LARGE))
        assert sign_flip(copies.sums) == sign_flip(LARGE[:, None])

    def test_groups_of_unequal_size_keep_the_mean_over_images(self):
        values, codes = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
        units = Units.of(values[:, None], codes)
        assert units.mean[0] == 3
        np.testing.assert_allclose(units.means[:, 0], [1.5, 6])

    def test_coverage_with_groups(self):
        """Frames of a clip are alike: drawing them one by one would cover far less."""
        clips = trials(200, 24, 9)
        frames = np.repeat(clips, 5, axis=1) + 0.1 * trials(200, 120, 10)
        codes = np.repeat(np.arange(24), 5)
        right, wrong = (
            np.mean(
                [
                    (b := bounds(Units.of(row[:, None], g), rounds=300, seed=n)[0]).low <= 0 <= b.high
                    for n, row in enumerate(frames)
                ]
            )
            for g in (codes, None)
        )
        assert right == pytest.approx(0.94, abs=0.06)
        assert wrong < 0.75


class TestEquivalence:
    @pytest.mark.parametrize("margin", [0.2, 0.5, 1.5])
    def test_is_two_one_sided_t_tests(self, margin):
        units = Units.of(SMALL[:, None])
        above = stats.ttest_1samp(SMALL, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(SMALL, margin, alternative="less").pvalue
        found = tost(float(units.mean[0]), float(units.error[0]), 12, margin)
        assert found == pytest.approx(max(above, below), abs=1e-10)

    def test_errs_in_one_of_twenty_at_the_margin(self):
        rows = 1 + trials(2000, 20)
        errors = np.array([tost(row.mean(), stats.sem(row), 20, 1.0) <= 0.05 for row in rows])
        assert errors.mean() == pytest.approx(0.05, abs=0.015)

    def test_degenerate(self):
        assert (tost(0.1, 0.0, 5, 0.2), tost(0.2, 0.0, 5, 0.2)) == (0, 1)
        for units, margin in ((1, 0.1), (5, 0.0)):
            with pytest.raises(ProtocolError):
                tost(0.0, 1.0, units, margin)
        with pytest.raises(ProtocolError):
            detectable(1.0, 1)

    def test_what_can_be_detected_is(self):
        size = detectable(1 / 25**0.5, 25)
        found = [sign_flip(row[:, None], rounds=400)[0].p <= 0.05 for row in size + trials(400, 25, 3)]
        assert np.mean(found) == pytest.approx(0.8, abs=0.06)
