"""Rankings of systems, and agreement of critics with people: scipy's values, figures by hand, simulations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

from perceptloss.compare.statistics.agreement import constrained_concordance, meng
from perceptloss.compare.statistics.bootstrap import bootstrap
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.compare.statistics.ranks import friedman, ranked
from perceptloss.compare.statistics.strengths import bradley_terry, parts, strengths, votes_of

RANDOM = np.random.default_rng(11)


class TestFriedman:
    @pytest.mark.parametrize("scores", [RANDOM.normal(size=(15, 5)), RANDOM.integers(0, 4, (15, 6)).astype(float)])
    def test_is_that_of_scipy(self, scores):
        oracle = stats.friedmanchisquare(*scores.T)
        found = friedman(ranked(scores))
        assert found.statistic == pytest.approx(oracle.statistic)
        assert found.p == pytest.approx(oracle.pvalue)

    def test_critical_difference_is_nemenyis(self):
        found = friedman(ranked(RANDOM.normal(size=(15, 5))))
        assert found.critical_difference == pytest.approx(2.728 * (5 * 6 / (6 * 15)) ** 0.5, rel=3e-4)

    def test_ranks(self):
        np.testing.assert_array_equal(ranked(np.array([[3.0, 1.0, 3.0]])), [[1.5, 3, 1.5]])
        np.testing.assert_array_equal(ranked(np.array([[-np.inf, 0.0, -np.inf]])), [[2.5, 1, 2.5]])

    def test_mean_ranks_of_correlated_critics_keep_the_level(self):
        """Three critics that say nearly the same are not three times the evidence."""
        random = np.random.default_rng(2)
        p = []
        for _ in range(400):
            own = random.normal(size=(20, 5))
            critics = [ranked(own + 0.2 * random.normal(size=own.shape)) for _ in range(3)]
            p.append(friedman(np.mean(critics, axis=0)).p)
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.033)

    def test_degenerate(self):
        assert friedman(np.full((3, 5), 3.0)).p == 1
        with pytest.raises(ProtocolError):
            friedman(np.ones((1, 5)))


def by_minorisation(wins, prior):
    """Hunter's MM updates, Annals of Statistics 32, 2004, with a phantom of strength 1."""
    k = len(wins)
    games, won, strength = wins + wins.T, wins.sum(axis=1) + prior, np.ones(k)
    for _ in range(20_000):
        strength = won / ((games / (strength[:, None] + strength)).sum(axis=1) + 2 * prior / (strength + 1))
    return np.log(strength) - np.log(strength).mean()


class TestBradleyTerry:
    WINS = np.array([[0, 7, 9.5], [3, 0, 6], [0.5, 4, 0]])

    def test_is_the_fixed_point_of_minorisation(self):
        np.testing.assert_allclose(bradley_terry(self.WINS, 0.1), by_minorisation(self.WINS, 0.1), atol=1e-8)
        always = np.array([[0.0, 5, 5], [0, 0, 5], [0, 0, 0]])
        np.testing.assert_allclose(bradley_terry(always, 0.3), by_minorisation(always, 0.3), atol=1e-6)

    def test_two_systems_have_the_odds(self):
        first, second = bradley_terry(np.array([[0.0, 60], [20, 0]]), prior=1e-9)
        assert first - second == pytest.approx(np.log(3), abs=1e-6)

    def test_many_at_once(self):
        both = bradley_terry(np.stack([self.WINS, self.WINS.T]))
        np.testing.assert_allclose(both, [bradley_terry(self.WINS), bradley_terry(self.WINS.T)], atol=1e-12)

    def test_votes(self):
        votes = votes_of(np.array([2.0, 2.0, np.nan, 1.0]))
        np.testing.assert_array_equal(votes, [[0, 0.5, 0, 1], [0.5, 0, 0, 1], [0] * 4, [0] * 4])

    def test_intervals_cover(self):
        truth = np.array([0.8, 0.0, -0.8])
        random = np.random.default_rng(0)
        chance = 1 / (1 + np.exp(truth - truth[:, None]))
        covered = []
        for n in range(100):
            upper = np.triu(random.random((60, 3, 3)) < chance, 1)
            wins = (upper + np.tril(1 - np.swapaxes(upper, 1, 2), -1)).astype(float)
            found = strengths(wins, rounds=200, seed=n)
            covered += list((np.array(found.low) <= truth) & (truth <= np.array(found.high)))
        assert np.mean(covered) == pytest.approx(0.94, abs=0.05)

    def test_who_never_loses_is_said(self):
        always = np.array([[0.0, 1, 1], [0, 0, 1], [0, 1, 0]])
        assert strengths(np.stack([always] * 9)).is_separated
        assert not strengths(np.stack([always] * 9 + [always.T])).is_separated

    def test_what_no_comparison_links(self):
        wins = np.zeros((4, 4))
        wins[0, 1] = wins[3, 2] = 2
        assert parts(wins) == ((0, 1), (2, 3))
        assert np.isfinite(bradley_terry(wins)).all()
        assert strengths(wins[None]).low == ()

    @pytest.mark.parametrize("wins", [np.ones((2, 3)), -np.ones((2, 2)), np.full((2, 2), np.nan)])
    def test_what_is_no_table_of_wins(self, wins):
        with pytest.raises(ProtocolError, match="expected wins"):
            bradley_terry(wins)
        with pytest.raises(ProtocolError, match="prior"):
            bradley_terry(np.ones((2, 2)), 0)


class TestConstrainedConcordance:
    MOS, HALF = np.array([1.0, 2.0, 3.0, 5.0]), np.array([0.6, 0.5, 0.6, 0.2])

    def test_by_hand(self):
        """1-2 and 2-3 overlap; of the other four, 1-3 is opposed and 3-5 is equal."""
        pred = np.array([3.0, 0.0, 2.0, 2.0 + 1e-9])
        pred[3] = 2.0
        # pairs apart: (1,3) opposed, (1,5) opposed, (2,5) agreed, (3,5) equal
        assert constrained_concordance(pred, self.MOS, half=self.HALF) == pytest.approx(1.5 / 4)

    def test_without_intervals_it_is_pairwise_accuracy(self):
        from perceptloss.compare.statistics.pairs import pairwise_accuracy

        x, y = RANDOM.normal(size=(2, 30))
        assert constrained_concordance(x, y, half=np.zeros(30)) == pytest.approx(pairwise_accuracy(x, y))
        figure = bootstrap(partial(constrained_concordance, half=np.zeros(30)), x, y, rounds=50)
        other = bootstrap(pairwise_accuracy, x, y, rounds=50)
        assert (figure.low, figure.high) == pytest.approx((other.low, other.high))

    def test_refusals(self):
        with pytest.raises(ProtocolError, match="overlap"):
            constrained_concordance(self.MOS, self.MOS, half=np.full(4, 9.0))
        with pytest.raises(ProtocolError, match="finite and at least 0"):
            constrained_concordance(self.MOS, self.MOS, half=-self.HALF)


class TestMeng:
    def test_p_is_uniform_where_critics_agree_alike(self):
        random = np.random.default_rng(4)
        mos = random.normal(size=(400, 80))
        first, second = (mos + random.normal(size=mos.shape) for _ in range(2))
        p = []
        for m, a, b in zip(mos, first, second, strict=True):
            r = np.corrcoef([m, a, b])
            p.append(meng(r[0, 1], r[0, 2], r[1, 2], 80)[1])
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.033)

    def test_signs_and_limits(self):
        z, p = meng(0.9, 0.6, 0.5, 50)
        assert z > 3 and p < 0.01
        assert meng(0.6, 0.9, 0.5, 50) == (-z, p)
        assert meng(0.7, 0.7, 0.2, 50) == (0, 1)
        assert meng(1.0, 0.2, 0.2, 50)[1] < 1e-6
        for bad in ((0.1, 0.2, 0.3, 3), (1.5, 0.2, 0.3, 30)):
            with pytest.raises(ProtocolError):
                meng(*bad)
