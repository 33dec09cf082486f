"""The statistics of experiments: confidence sequences, evidence on a share, and tests with a fixed horizon."""

import numpy as np
import pytest
from scipy import integrate, stats

from ml.experiments import fixed, sequence
from ml.experiments.proportion import log_evidence


@pytest.mark.parametrize("limit", [0.01, 0.1])
def test_a_share_below_its_limit_is_hardly_ever_broken_and_twice_the_limit_soon(limit: float) -> None:
    random = np.random.default_rng(5)
    sure = np.log(1 / 0.05)

    def broken_at(share: float, looks: int) -> list[int]:
        """Return after how many events each of 200 runs was broken, with a look at every 100; 0 for never."""
        found = []
        for hits in np.cumsum(random.binomial(100, share, size=(200, looks)), axis=1):
            sums = enumerate(hits.tolist(), start=1)
            found.append(next((100 * i for i, x in sums if log_evidence(x, 100 * i, limit) >= sure), 0))
        return found

    assert np.mean(np.array(broken_at(0.99 * limit, 100)) > 0) <= 0.05
    soon = broken_at(2 * limit, 100)
    assert min(soon) > 0
    assert np.median(soon) <= 20 / limit


def test_evidence_is_a_likelihood_ratio_over_the_shares_above_the_limit() -> None:
    prior = stats.beta(0.5, 0.5)
    for hits, n, limit in ((3, 40, 0.05), (12, 40, 0.2), (0, 5, 0.01)):
        above, _ = integrate.quad(lambda q, x=hits, n=n: prior.pdf(q) * stats.binom.pmf(x, n, q), limit, 1)
        expected = above / prior.sf(limit) / stats.binom.pmf(hits, n, limit)
        assert log_evidence(hits, n, limit) == pytest.approx(np.log(expected), rel=1e-3)
    assert log_evidence(0, 10**9, 0.1) < 0 < log_evidence(10**9, 10**9, 1e-9) < np.inf
    assert log_evidence(5, 5, 1.0) == 0.0


def test_the_sequence_is_one_with_its_p_value() -> None:
    r = sequence.mixing(1000, 0.2)
    for variance in (1e-6, 1e-4, 1e-2):
        half = sequence.half_width(variance, r, 0.05)
        assert sequence.p_value(half, variance, r) == pytest.approx(0.05)
        assert half > 1.96 * variance**0.5
    assert sequence.p_value(0.0, 1e-4, r) == 1.0


def test_the_sequence_is_tightest_at_three_times_the_fewest_samples() -> None:
    r = sequence.mixing(1000, 0.2)
    ratios = {}
    for n in (500, 3000, 50_000):
        variance = 0.2 * 2 / n
        ratios[n] = sequence.half_width(variance, r, 0.05) / variance**0.5
    assert ratios[3000] < min(ratios[500], ratios[50_000])


def test_a_brownian_motion_leaves_the_sequence_in_at_most_alpha_of_all_cases() -> None:
    random = np.random.default_rng(3)
    information = np.arange(1, 2001) / 100
    paths = np.cumsum(random.normal(size=(2000, 2000)) * 0.1, axis=1)
    half = np.array([sequence.half_width(1 / i, 1.0, 0.05) * i for i in information])
    ever = (np.abs(paths) > half).any(axis=1).mean()
    assert 0.01 < ever <= 0.05
    assert (np.abs(paths) > 1.96 * np.sqrt(information)).any(axis=1).mean() > 0.4


def test_tests_with_a_fixed_horizon_are_those_of_scipy() -> None:
    table = np.array([[30, 70, 45, 55], [20, 80, 60, 45]])
    assert fixed.chi_square(table.reshape(2, 2, 2)) == pytest.approx(stats.chi2_contingency(table)[1])
    hits, n = np.array([30.0, 45.0]), np.array([100.0, 105.0])
    pooled = stats.chi2_contingency(np.column_stack([hits, n - hits]), correction=False)[1]
    assert fixed.two_proportion_z(hits, n) == pytest.approx(pooled)
    a, b = np.arange(9.0), np.array([4.0, 7.0, 9.5])
    sums = [np.array([f(a), f(b)]) for f in (len, np.sum, lambda x: (x * x).sum())]
    assert fixed.welch(*sums) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert fixed.two_proportion_z(np.zeros(2), n) is None
    assert fixed.welch(np.array([9.0, 1.0]), hits, hits) is None
    assert fixed.chi_square(np.zeros((2, 2, 2), dtype=np.int64)) is None
