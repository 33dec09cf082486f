"""Judging drift: what moved is found and named, and what did not is left alone."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter, Counts
from ml.drift.judgement import ColumnFigures, Judgement, Rules, judge
from ml.drift.statistics import chi_square_p_value, jensen_shannon, psi, rate_p_value, share_p_value
from schemas.drift import ColumnDrift

NAMES = tuple(f"f{place}" for place in range(20))


def _rows(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Return n rows of 20 independent features of many kinds."""
    columns = [rng.standard_normal(n) for _ in range(6)]
    columns += [rng.lognormal(0, 1, n), rng.lognormal(0, 1, n), rng.standard_t(2, n), rng.standard_t(2, n)]
    columns += [rng.poisson(4, n), rng.poisson(4, n), rng.integers(1, 13, n), rng.random(n) < 0.02]
    columns += [rng.geometric(0.3, n), np.where(rng.random(n) < 0.7, 0, rng.gamma(2, 1, n)), rng.integers(0, 500, n)]
    columns += [np.where(rng.random(n) < 0.05, np.nan, rng.standard_normal(n)), rng.random(n), np.full(n, 3.0)]
    return np.column_stack(columns).astype(np.float32)


def _judged(baseline: Baseline, rows: NDArray[Any], scores: Any = (), **rules: Any) -> Judgement:
    return judge(baseline, Counter(baseline).count(rows, scores), Rules(**rules))


def _one(reference: Any, current: Any, **rules: Any) -> ColumnFigures:
    """Judge one feature that stands among four quiet ones."""
    before, now = (np.zeros((len(values), 5)) for values in (reference, current))
    before[:, 2], now[:, 2] = reference, current
    found = _judged(make_baseline(before, NAMES[:5]), now, **rules)
    assert all(column.severity == "none" for place, column in enumerate(found.features) if place != 2)
    assert found.severity == found.features[2].severity
    return found.features[2]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("rows", [1000, 20_000])
def test_of_200_quiet_windows_at_most_16_raise_something(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = make_baseline(_rows(rng, rows), NAMES, {"score": rng.random(rows)})
    found = [_judged(baseline, _rows(rng, 1000), [rng.random(1000)]) for _ in range(200)]
    assert sum(judgement.severity != "none" for judgement in found) <= 16
    least = [min(column.p_value or 0 for column in (*one.features, *one.predictions)) for one in found]
    assert sum(p < 0.05 for p in least) <= 16  # even without an effect


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_of_half_a_deviation_is_found_in_one_window(seed: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = make_baseline(_rows(rng, 5000), NAMES)
    rows = _rows(rng, 1000)
    rows[:, 4] += 0.5
    found = _judged(baseline, rows)
    assert [column.name for column in found.features if column.severity != "none"] == ["f4"]
    assert "moved 0." in found.features[4].reason
    assert found.drifted_share == 1 / 20
    assert found.severity in ("medium", "high")


def test_a_million_events_with_a_tiny_shift_raise_nothing() -> None:
    rng = np.random.default_rng(4)
    baseline = make_baseline(rng.standard_normal((500_000, 2)), ["a", "b"])
    counter, counts = Counter(baseline), Counts.empty(baseline)
    for _ in range(10):
        counts += counter.count(rng.standard_normal((100_000, 2)) + 0.01)
    found = judge(baseline, counts, Rules())
    assert max(column.p_value or 0 for column in found.features) < 1e-3  # significant, and of no account
    assert found.severity == "none"
    assert found.recommendation == ""


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_hundred_quiet_features_raise_at_most_one_of_twenty_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = make_baseline(rng.standard_normal((5000, 100)), [f"f{place}" for place in range(100)])
    found = [_judged(baseline, rng.standard_normal((1000, 100))) for _ in range(20)]
    assert sum(judgement.severity != "none" for judgement in found) <= 1  # 5% is what the threshold promises


def test_a_constant_that_moves_has_drifted() -> None:
    found = _one(np.full(3000, 7.0), np.full(500, 7.5))
    assert found.severity == "high"
    assert found.unseen_share == 1
    assert found.wasserstein == pytest.approx(0.5)
    assert found.wasserstein_scaled is None  # there is no deviation to measure it in
    assert (found.bins, found.reference, found.current) == (("7", "other"), (1.0, 0.0), (0.0, 1.0))
    assert "100.0% of values never seen before" in found.reason


def test_a_new_category_has_drifted_and_a_rare_one_has_not() -> None:
    rng = np.random.default_rng(6)
    known = rng.integers(0, 4, 3000)
    current = rng.integers(0, 4, 1000)
    current[:30] = 17
    found = _one(known, current)
    assert found.unseen_share == 0.03
    assert found.severity != "none"
    assert "3.0% of values never seen before" in found.reason
    current = rng.integers(0, 4, 1000)
    current[:3] = 4
    found = _one(known, current)
    assert (found.severity, found.unseen_share) == ("none", 0.003)


def test_values_beyond_the_range_are_found_though_they_are_few() -> None:
    rng = np.random.default_rng(7)
    current = rng.random(1000)
    current[:25] = 1.0 + rng.random(25)
    found = _one(rng.random(4000), current)
    assert found.severity != "none"
    assert found.unseen_share == pytest.approx(0.025)


def test_missing_values_that_appear_have_drifted() -> None:
    rng = np.random.default_rng(8)
    current = rng.standard_normal(1000)
    current[:60] = np.nan
    found = _one(rng.standard_normal(4000), current)
    assert found.severity in ("medium", "high")
    assert found.missing_share == 0.06
    assert found.n == 940
    assert found.bins[-1] == "missing"
    assert "6.0% missing (was 0.0%)" in found.reason
    assert found.wasserstein_scaled is not None
    assert found.wasserstein_scaled < 0.1  # they are no part of it


def test_more_missing_values_have_drifted_though_psi_is_small() -> None:
    rng = np.random.default_rng(3)
    before, now = (np.where(rng.random(10_000) < share, np.nan, rng.standard_normal(10_000)) for share in (0.05, 0.12))
    found = _one(before, now)
    assert found.psi is not None
    assert found.psi < 0.1
    assert (found.severity, found.reason[-28:]) == (
        "low",
        f"{np.isnan(now).mean():.1%} missing (was {np.isnan(before).mean():.1%})"[-28:],
    )
    assert _one(before, now, min_missing_change=0.1).severity == "none"


def test_a_baseline_without_any_value_says_so() -> None:
    nothing = np.full((200, 1), np.nan)
    baseline = make_baseline(nothing, ["a"])
    quiet, moved = _judged(baseline, nothing), _judged(baseline, np.ones((200, 1)))
    assert [one.features[0].severity for one in (quiet, moved)] == ["none", "high"]
    assert quiet.features[0].reason.startswith("no values in the baseline")
    assert moved.features[0].ks is None


def test_a_window_with_nothing_but_missing_values_says_so() -> None:
    found = _one(np.random.default_rng(9).random(4000), np.full(300, np.nan))
    assert found.severity == "high"
    assert found.missing_share == 1
    figures = (found.ks, found.mean, found.deviation, found.wasserstein, found.wasserstein_scaled, found.unseen_share)
    assert figures == (None,) * 6
    assert found.reason.endswith("no values in the window")


def test_a_column_without_values_in_the_baseline_says_so() -> None:
    nothing = np.full(900, np.nan)
    quiet = _one(nothing, nothing[:300])
    assert (quiet.severity, quiet.psi, quiet.ks) == ("none", 0.0, None)
    assert "no values in the baseline" in quiet.reason
    found = _one(nothing, np.arange(300.0))
    assert found.severity == "high"
    assert found.reason.startswith("PSI")
    assert found.mean == pytest.approx(149.5)


def test_infinite_values_are_drift_and_no_figure_pretends_to_know_them() -> None:
    rng = np.random.default_rng(10)
    current = rng.standard_normal(500)
    current[:20] = np.inf
    found = _one(rng.standard_normal(3000), current)
    assert found.severity != "none"
    assert (found.mean, found.deviation, found.wasserstein, found.wasserstein_scaled) == (None,) * 4
    assert found.reason.endswith("infinite or enormous values, so no moments and no distance")


def test_a_window_of_one_value_has_no_shape() -> None:
    found = _one(np.random.default_rng(11).standard_normal(3000), np.full(200, 1.25))
    assert found.severity == "high"
    assert found.mean == pytest.approx(1.25)
    assert found.deviation == pytest.approx(0.0, abs=1e-6)
    assert (found.skewness, found.kurtosis) == (None, None)


def test_an_empty_window_is_told_from_a_quiet_one() -> None:
    baseline = make_baseline(np.random.default_rng(12).random((100, 2)), ["a", "b"], {"score": np.arange(100)})
    found = judge(baseline, Counts.empty(baseline), Rules())
    assert (found.severity, found.drifted_share, found.recommendation) == ("none", 0.0, "")
    for column in (*found.features, *found.predictions):
        assert (column.judged, column.reason, column.n) == (False, "no events in the window", 0)
        assert (column.psi, column.ks, column.p_value, column.wasserstein, column.missing_share) == (None,) * 5
        assert (column.mean, column.jensen_shannon, column.kl_current_reference) == (None,) * 3


def test_what_is_only_counted_has_figures_and_no_verdict() -> None:
    rng = np.random.default_rng(13)
    baseline = make_baseline(rng.standard_normal((3000, 4)), ["month", "a", "b", "c"])
    rows = rng.standard_normal((500, 4))
    rows[:, 0] += 5
    found = _judged(baseline, rows, only_counted=frozenset({"month"}))
    month = found.features[0]
    assert (month.judged, month.severity, month.reason) == (False, "none", "only counted")
    assert (month.psi or 0) > 1
    assert (found.severity, found.drifted_share) == ("none", 0.0)


@pytest.mark.parametrize(
    ("moved", "share", "severity", "recommendation"),
    [
        (0, 0.0, "none", ""),
        (1, 0.1, "high", "retrain within 24 h"),
        (2, 0.2, "high", "retrain within 24 h"),
        (3, 0.3, "critical", "act now"),
    ],
)
def test_enough_drifted_features_are_critical(moved: int, share: float, severity: str, recommendation: str) -> None:
    rng = np.random.default_rng(14)
    baseline = make_baseline(rng.standard_normal((3000, 10)), NAMES[:10])
    rows = rng.standard_normal((1000, 10))
    rows[:, :moved] += 1.5
    found = _judged(baseline, rows)
    assert (found.drifted_share, found.severity, found.recommendation) == (share, severity, recommendation)


@pytest.mark.parametrize(("features", "severity"), [(2, "critical"), (3, "high")])
def test_one_of_three_features_is_no_landslide(features: int, severity: str) -> None:
    rng = np.random.default_rng(15)
    baseline = make_baseline(rng.standard_normal((3000, features)), NAMES[:features])
    rows = rng.standard_normal((1000, features))
    rows[:, 0] += 1.5
    assert _judged(baseline, rows).severity == severity


def test_predictions_that_move_far_are_critical_though_features_are_quiet() -> None:
    rng = np.random.default_rng(16)
    rows, scores = rng.standard_normal((3000, 3)), rng.random(3000)
    baseline = make_baseline(rows, ["a", "b", "c"], {"score": scores, "class": scores > 0.8})
    found = _judged(baseline, rng.standard_normal((1000, 3)), [rng.random(1000) ** 3, rng.random(1000) > 0.82])
    assert [column.name for column in found.predictions] == ["score", "class"]
    assert [column.severity for column in found.predictions] == ["high", "none"]
    assert (found.severity, found.drifted_share) == ("critical", 0.0)


def test_predictions_of_another_model_have_figures_and_no_verdict_and_are_no_tests_to_correct_for() -> None:
    rng = np.random.default_rng(16)
    baseline = make_baseline(rng.standard_normal((3000, 2)), ["a", "b"], {"score": rng.random(3000)})
    counts = Counter(baseline).count(rng.standard_normal((1000, 2)), [rng.random(1000) ** 3])
    own, other = judge(baseline, counts, Rules()), judge(baseline, counts, Rules(), "it is another's")
    assert (own.severity, other.severity) == ("critical", "none")
    score = other.predictions[0]
    assert (score.judged, score.severity, score.reason) == (False, "none", "it is another's")
    assert score.psi == own.predictions[0].psi
    assert (other.features[0].p_value or 0) <= (own.features[0].p_value or 0)


@pytest.mark.parametrize(("shift", "severity"), [(0.25, "low"), (0.45, "medium"), (1.0, "high")])
def test_severity_goes_by_psi(shift: float, severity: str) -> None:
    rng = np.random.default_rng(17)
    found = _one(rng.standard_normal(10_000), rng.standard_normal(5000) + shift)
    assert found.severity == severity
    assert found.psi == pytest.approx({"low": 0.06, "medium": 0.2, "high": 0.95}[severity], rel=0.2)


def test_thresholds_are_obeyed() -> None:
    rng = np.random.default_rng(18)
    reference, current = rng.standard_normal(5000), rng.standard_normal(1000) + 0.5
    assert _one(reference, current, min_psi=9, min_distance=9, min_unseen_share=1).severity == "none"
    assert _one(reference, current, min_psi=9, min_distance=0.4, min_unseen_share=1).severity != "none"
    assert _one(reference, current, min_psi=0.2, min_distance=9, min_unseen_share=1).severity != "none"
    assert _one(reference, current, threshold=1e-60).severity == "none"


def test_the_p_value_is_corrected_for_the_tests_that_were_made() -> None:
    rng = np.random.default_rng(19)
    reference, current = rng.standard_normal((3000, 1)), rng.standard_normal((500, 1)) + 0.3
    alone = _judged(make_baseline(reference, ["a"]), current).features[0].p_value
    names = [f"f{place}" for place in range(6)]
    baseline = make_baseline(np.tile(reference, 6), names)
    six = _judged(baseline, np.tile(current, 6)).features[0].p_value
    four = _judged(baseline, np.tile(current, 6), only_counted=frozenset(names[:2])).features[0].p_value
    assert alone is not None
    assert alone < 0.01
    assert (six, four) == (pytest.approx(6 * alone), pytest.approx(4 * alone))


def test_chi_square_is_scipys_where_nothing_is_rare_and_pools_what_is() -> None:
    reference, current = np.array([[300, 500, 200], [300, 500, 200]]), np.array([[50, 40, 30], [33, 52, 20]])
    expected = [
        stats.chi2_contingency([a, b], correction=False).pvalue for a, b in zip(reference, current, strict=True)
    ]
    assert chi_square_p_value(reference, current) == pytest.approx(expected)
    rare, pooled = np.array([[300, 3, 500, 9, 0]]), np.array([[300, 500, 12]])
    now, now_pooled = np.array([[40, 4, 52, 3, 1]]), np.array([[40, 52, 8]])
    assert (pooled + now_pooled).min() * 100 / 912 < 5  # still too few: they go with the next
    merged = stats.chi2_contingency([[312, 500], [48, 52]], correction=False).pvalue
    assert chi_square_p_value(rare, now) == pytest.approx([merged])
    assert chi_square_p_value(np.array([[5, 0]]), np.array([[9, 0]])) == 1.0


def test_rates_are_compared_by_the_binomial_test() -> None:
    exact = stats.binomtest(9, 11, 1000 / 6000, alternative="greater").pvalue
    counts = [np.array(number) for number in (2, 5000, 9, 1000)]
    assert rate_p_value(*counts) == pytest.approx(exact)
    assert share_p_value(*counts) == pytest.approx(2 * exact)
    mirrored = [np.array(number) for number in (4998, 5000, 991, 1000)]
    assert share_p_value(*mirrored) == pytest.approx(2 * exact)
    assert rate_p_value(np.array(3), np.array(100), np.array(0), np.array(50)) == 1.0


def test_statistics_of_no_counts_are_unknown_and_of_equal_counts_zero() -> None:
    nothing, some = np.zeros((1, 4), dtype=np.int64), np.array([[4, 0, 2, 9]])
    assert np.isnan(jensen_shannon(some, nothing)).all()
    assert jensen_shannon(some, 7 * some) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(np.array([5, 0]), np.array([0, 3])) == pytest.approx(np.log(2))
    assert psi(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0


def test_figures_are_those_of_the_report() -> None:
    assert ColumnFigures.__struct_fields__ == ColumnDrift.__struct_fields__
