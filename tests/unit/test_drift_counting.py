"""Counting for drift: exact at the edges, whatever the precision; strange values leave marks, and none is lost."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ml.drift.baseline import Baseline, make_baseline
from ml.drift.columns import make_column
from ml.drift.counting import Counter, Counts
from ml.drift.judgement import Rules, judge
from ml.errors import BaselineInvalid, CountsInvalid


def _baseline(rows: int = 2000, names: tuple[str, ...] = ("a", "b")) -> Baseline:
    return make_baseline(np.random.default_rng(1).standard_normal((rows, len(names))), names)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_on_an_edge_is_in_the_cell_that_the_edge_opens(dtype: Any) -> None:
    baseline = _baseline(names=("a",))
    edges = np.array(baseline.features[0].edges)
    values = np.unique(np.concatenate([edges.astype(dtype), np.nextafter(edges.astype(dtype), dtype(-9))]))
    counts = Counter(baseline).count(values[:, None])
    places = np.searchsorted(edges, values.astype(np.float64), side="right")
    np.testing.assert_array_equal(counts.column_cells(0), np.bincount(places, minlength=len(edges) + 1))


def test_powers_of_z_give_the_moments_of_the_window() -> None:
    rng = np.random.default_rng(2)
    baseline = make_baseline(1000 + 3 * rng.standard_normal((5000, 1)), ["a"])
    seen = 1000 + rng.gamma(2, 2, (700, 1))
    found = judge(baseline, Counter(baseline).count(seen), Rules()).features[0]
    assert found.mean == pytest.approx(seen.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(seen.std(), rel=1e-9)
    assert found.skewness == pytest.approx(stats.skew(seen[:, 0]), rel=1e-9)
    assert found.kurtosis == pytest.approx(stats.kurtosis(seen[:, 0]), rel=1e-9)


def test_how_far_values_lie_outside_is_summed_up() -> None:
    baseline = _baseline()
    low, high = baseline.features[1].minimum or 0.0, baseline.features[1].maximum or 0.0
    rows = np.zeros((4, 2))
    rows[:, 1] = [low - 2, high + 3, np.nan, high + 0.5]
    counts = Counter(baseline).count(rows)
    np.testing.assert_allclose(counts.outside, [[0, 0], [2, 3.5]], atol=1e-12)
    np.testing.assert_array_equal(counts.missing, [0, 1])


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_counted_is_not_changed(order: Any) -> None:
    rows = np.array(np.random.default_rng(3).standard_normal((50, 2)).astype(np.float32), order=order)
    scores = np.random.default_rng(4).random(50)
    baseline = make_baseline(rows, ["a", "b"], {"score": scores})
    before = rows.copy(), scores.copy()
    Counter(baseline).count(rows, [scores])
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(scores, before[1])


def test_integers_and_half_precision_are_counted_as_doubles() -> None:
    values = np.arange(40) % 4
    baseline = make_baseline(values[:, None], ["a"])
    for dtype in (np.int8, np.uint64, np.float16):
        counts = Counter(baseline).count(values[:, None].astype(dtype))
        assert counts.sparse()[0][1] == (10, 10, 10, 10)


def test_infinite_values_are_counted_and_leave_sums_finite() -> None:
    baseline = _baseline()
    rows = np.full((3, 2), 0.5, dtype=np.float32)
    rows[0, 0], rows[1, 0], rows[:, 1] = np.inf, -np.inf, np.float32(3e38)
    counts = Counter(baseline).count(rows)
    assert np.isfinite(counts.sums).all()
    assert np.isfinite(counts.outside).all()
    assert (counts.column_cells(0)[0], counts.column_cells(0)[-1]) == (1, 1)
    found = judge(baseline, counts, Rules()).features
    assert found[0].reason.endswith("infinite or enormous values, so no moments and no distance")
    assert (found[0].mean, found[0].wasserstein, found[0].unseen_share) == (None, None, pytest.approx(2 / 3))
    assert found[1].mean == pytest.approx(3e38, rel=1e-6)  # large, and a number


@pytest.mark.parametrize(
    ("rows", "predictions"),
    [
        (np.zeros((5, 3)), [np.zeros(5)]),
        (np.zeros(5), [np.zeros(5)]),
        (np.zeros((5, 2)), []),
        (np.zeros((5, 2)), [np.zeros(4)]),
        (np.zeros((5, 2)), [np.zeros((5, 1))]),
    ],
)
def test_rows_that_do_not_fit_the_baseline_are_refused(rows: Any, predictions: Any) -> None:
    baseline = make_baseline(np.random.default_rng(1).random((9, 2)), ["a", "b"], {"score": np.arange(9)})
    with pytest.raises(CountsInvalid, match=r"baseline has 2 features|rows, and predictions"):
        Counter(baseline).count(rows, predictions)


def test_counts_of_different_baselines_do_not_add_up() -> None:
    with pytest.raises(CountsInvalid, match="different baselines"):
        Counts.empty(_baseline()).__iadd__(Counts.empty(_baseline(rows=30)))
    with pytest.raises(CountsInvalid, match="another baseline"):
        judge(_baseline(), Counts.empty(_baseline(rows=30)), Rules())


@pytest.mark.parametrize(
    ("matrix", "names", "predictions", "sentence"),
    [
        (np.zeros((0, 1)), ["a"], {}, "no rows"),
        (np.array([[1.0], [np.inf]]), ["a"], {}, "column 'a' has infinite values in 1 of 2 rows"),
        (np.array([[1e300], [-1e300]]), ["a"], {}, "too large to measure"),
        (np.zeros((3, 2)), ["a"], {}, "1 features are named"),
        (np.zeros((3, 2)), ["a", "a"], {}, "features of the baseline have the same name: a"),
        (np.zeros((3, 1)), ["a"], {"score": np.zeros(2)}, "prediction 'score' has shape"),
    ],
)
def test_reference_data_that_cannot_be_used_is_refused(
    matrix: Any, names: Any, predictions: Any, sentence: str
) -> None:
    with pytest.raises(BaselineInvalid, match=sentence):
        make_baseline(matrix, names, predictions)


def test_a_baseline_of_other_features_is_named() -> None:
    baseline = _baseline()
    baseline.expect(["a", "b"], [])
    with pytest.raises(BaselineInvalid, match="of other features: it has a, b, and b, a are counted"):
        baseline.expect(["b", "a"], [])
    with pytest.raises(BaselineInvalid, match="of other predictions: it has none, and score are counted"):
        baseline.expect(["a", "b"], ["score"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: b"\xff\xfe", "not a baseline"),
        (lambda text: text[:-5], "not a baseline"),
        (lambda text: b"[]", "not a baseline"),
        (lambda text: text.replace(b'"format":1', b'"format":7'), "format 7"),
        (lambda text: text.replace(b'"n":40', b'"n":41'), "counts do not add up"),
        (lambda text: text.replace(b'"edges":[', b'"edges":[9.0,'), "as many cells"),
        (lambda text: text.replace(b'"edges":[0.0', b'"edges":[5.0'), "edges do not increase"),
        (lambda text: text.replace(b'"mean":1.5', b'"mean":null'), "not finite"),
        (lambda text: text.replace(b'"bin_of":[4', b'"bin_of":[5'), "in no bin"),
    ],
)
def test_bytes_that_are_no_baseline_are_refused(change: Any, sentence: str) -> None:
    payload = make_baseline((np.arange(40.0) % 4)[:, None], ["a"]).encode()
    changed = change(payload)
    assert changed != payload
    with pytest.raises(BaselineInvalid, match=sentence):
        Baseline.decode(changed)


@pytest.mark.parametrize(
    ("values", "kind", "bins"),
    [
        (np.full(7, 3.0), "values", ("3", "other")),
        (np.repeat([1.0, 2.0], 50), "values", ("1", "2", "other")),
        (np.repeat([1.0, 1 + 1e-9], 50), "values", ("1.0", "1.000000001", "other")),
        (np.full(7, np.nan), "values", ("other",)),
        (np.array([1.0, 2.0]), "numeric", ("< 1.1", "1.1 to 1.2")),
        (np.arange(33.0).repeat(40), "numeric", ("< 3", "3 to 6")),
    ],
)
def test_a_column_of_few_values_has_a_bin_for_each(values: Any, kind: str, bins: tuple[str, ...]) -> None:
    column = make_column("a", values, 10, 32)
    assert column.kind == kind
    assert column.bin_names[: len(bins)] == bins
    assert column.problem() is None


def test_a_sketch_stays_small_whatever_it_is_of() -> None:
    rng = np.random.default_rng(6)
    for values in (rng.standard_cauchy(200_000), rng.pareto(0.5, 200_000), 1e-200 * rng.random(1000)):
        assert len(make_column("a", values, 10, 32).edges) < 2300
    assert len(make_column("a", rng.standard_normal(200_000), 10, 32).edges) < 350
