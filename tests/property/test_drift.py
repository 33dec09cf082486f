"""Counts of drift add up: however rows are cut into batches and ordered, and whatever the columns hold."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter, Counts
from ml.drift.statistics import ks_from_cells, wasserstein_from_cells

NAMES = ("normal", "lognormal", "tied", "few", "constant", "holes", "all missing")


def _rows(rng: np.random.Generator, n: int, dtype: Any) -> NDArray[Any]:
    columns = [
        rng.standard_normal(n),
        rng.lognormal(0, 3, n),
        np.round(rng.gamma(2, 20, n)) / 10 * (rng.random(n) < 0.7),
        rng.integers(0, 5, n) / 10,
        np.full(n, 0.1),
        np.where(rng.random(n) < 0.3, np.nan, rng.standard_normal(n)),
        np.full(n, np.nan),
    ]
    return np.column_stack(columns).astype(dtype)


def _strange(rng: np.random.Generator, n: int, dtype: Any, baseline: Baseline) -> NDArray[Any]:
    """Rows like the reference's, with edges, their neighbours, zeros, infinities and holes put in."""
    rows = _rows(rng, n, dtype)
    for place, column in enumerate(baseline.features):
        edges = np.array([*column.edges, 0.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
        near = np.concatenate([edges, np.nextafter(edges, dtype(np.inf)), np.nextafter(edges, dtype(-np.inf))])
        taken = rng.random(n) < 0.5
        rows[taken, place] = rng.choice(near, int(taken.sum()))
    return rows


def _share_up_to(values: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([np.float32, np.float64]),
    trained=st.sampled_from([np.float32, np.float64]),
    reference=st.integers(1, 700),
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=8),
)
def test_any_cut_in_any_order_counts_the_same_as_one_pass_and_as_numpy(
    seed: int, dtype: Any, trained: Any, reference: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    baseline = make_baseline(_rows(rng, reference, trained), NAMES, {"score": rng.random(reference)})
    counter, n = Counter(baseline), sum(sizes)
    rows, scores = _strange(rng, n, dtype, baseline), rng.random(n)
    whole, total = counter.count(rows, [scores]), Counts.empty(baseline)
    order = rng.permutation(n)
    for piece in np.split(order, np.cumsum(sizes)[:-1]):
        total += counter.count(rows[piece], [scores[piece]])
    assert total.n == whole.n == n
    np.testing.assert_array_equal(total.cells, whole.cells)
    np.testing.assert_array_equal(total.missing, whole.missing)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-9, atol=1e-9 * (1 + np.abs(whole.sums).max()))
    np.testing.assert_allclose(total.outside, whole.outside, rtol=1e-9, atol=1e-9)
    for place, values in enumerate([*rows.T, scores]):
        edges = [-np.inf, *baseline.columns[place].edges, np.inf]
        expected = np.histogram(values.astype(np.float64), edges)[0]
        np.testing.assert_array_equal(whole.column_cells(place), expected)
        assert whole.missing[place] == np.isnan(values).sum()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), reference=st.integers(1, 3000), current=st.integers(1, 500))
def test_ks_from_cells_is_within_0_005_whatever_comes(seed: int, reference: int, current: int) -> None:
    rng = np.random.default_rng(seed)
    rows = _rows(rng, reference, np.float64)
    baseline = make_baseline(rows, NAMES)
    seen = _rows(rng, current, np.float64) * rng.choice([0.0, 0.5, 1.0, 1.01]) + rng.choice([0.0, 0.3])
    counts = Counter(baseline).count(seen)
    layout = baseline.layout
    found = ks_from_cells(layout.reference, layout.cells(counts.cells))
    for place in range(len(NAMES)):
        known, now = rows[~np.isnan(rows[:, place]), place], seen[~np.isnan(seen[:, place]), place]
        if not len(known) or not len(now):
            assert np.isnan(found[place])
            continue
        points = np.concatenate([known, now])
        exact = np.abs(_share_up_to(known, points) - _share_up_to(now, points)).max()
        assert exact - 0.005 <= found[place] <= exact + 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.floats(-300, 300), scale=st.sampled_from([0.0, 0.3, 1.0, 20.0]))
def test_the_wasserstein_distance_is_near_scipys_wherever_values_go(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = _rows(rng, 2000, np.float64)[:, [0, 3, 4]]
    baseline = make_baseline(rows, ["normal", "few", "constant"])
    seen = _rows(rng, 400, np.float64)[:, [0, 3, 4]] * scale + shift
    counts = Counter(baseline).count(seen)
    layout = baseline.layout
    found = wasserstein_from_cells(layout.edges, layout.reference, layout.cells(counts.cells), counts.outside)
    for place in range(3):
        exact = stats.wasserstein_distance(rows[:, place], seen[:, place])
        within_a_cell = (0.2 * rows[:, 0].std(), 0.05, 1e-9)[place]  # half of the widest: all at one end of it
        assert abs(found[place] - exact) <= 0.01 * exact + within_a_cell


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 2000))
def test_sparse_counts_put_together_again_are_the_same(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = make_baseline(_rows(rng, 300, np.float32), NAMES)
    whole = Counter(baseline).count(_rows(rng, n, np.float32))
    for place, (cells, counts) in enumerate(whole.sparse()):
        again = np.zeros(len(baseline.columns[place].counts), dtype=np.int64)
        again[list(cells or range(len(counts)))] = counts
        np.testing.assert_array_equal(again, whole.column_cells(place))
        filled = np.count_nonzero(again)
        assert len(counts) == (len(again) if 2 * filled > len(again) else filled)
