"""Sparse counts over real numbers: how exact they are, and that the way they were added up leaves no trace."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from ml.evaluation.figures import roc_auc
from ml.evaluation.histogram import Histogram, ordered_keys, probability_keys

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

SHAPES: dict[str, Draw] = {
    "even": lambda rng, n: rng.random(n),
    "all below 0.01": lambda rng, n: 0.01 * rng.random(n),
    "all below 1e-6": lambda rng, n: 1e-6 * rng.random(n) ** 3,
    "near 1": lambda rng, n: 1 - 1e-5 * rng.random(n),
    "near 1 in single precision": lambda rng, n: (1 - 1e-4 * rng.random(n)).astype(np.float32).astype(np.float64),
    "both ends": lambda rng, n: rng.beta(0.05, 0.05, n),
    "close together": lambda rng, n: 0.3 + 1e-7 * rng.random(n),
    "few values": lambda rng, n: rng.integers(0, 4, n) / 4,
}


def _exact_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Mann and Whitney, by ranks."""
    p, n = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def _counted(scores: NDArray[np.float64], positive: NDArray[np.bool_], keys: Callable[..., object]) -> Histogram:
    histogram = Histogram(2)
    for rows in np.array_split(np.arange(len(scores)), 20):
        histogram.add(keys(scores[rows]), np.column_stack([~positive[rows], positive[rows]]).astype(np.int64))  # type: ignore[arg-type]
    return histogram


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1_000, 200_000])
def test_auc_is_within_two_thousandths_of_exact(shape: str, n: int) -> None:
    rng = np.random.default_rng(7)
    scores = SHAPES[shape](rng, n)
    positive = rng.random(n) < 0.1 + 0.6 * rankdata(scores) / n
    histogram = _counted(scores, positive, probability_keys)
    auc = roc_auc(histogram)
    assert auc == pytest.approx(_exact_auc(scores, positive), abs=0.002 if n > 8192 else 1e-4)
    assert histogram.bins <= 8192


@pytest.mark.parametrize("centre", [-1e9, -3.5, 0.0, 1e6])
def test_auc_of_anomaly_scores_works_anywhere_on_the_line(centre: float) -> None:
    rng = np.random.default_rng(8)
    scores = centre + 100 * rng.standard_normal(50_000)
    positive = scores + 100 * rng.standard_normal(50_000) > centre
    auc = roc_auc(_counted(scores, positive, ordered_keys))
    assert auc == pytest.approx(_exact_auc(scores, positive), abs=0.002)


def test_auc_is_within_the_bound_that_it_states() -> None:
    rng = np.random.default_rng(9)
    scores = np.where(rng.random(60_000) < 0.5, 0.2 + 1e-9 * rng.random(60_000), rng.beta(0.03, 0.03, 60_000))
    positive = rng.random(60_000) < 0.2 + 0.5 * (rankdata(scores) / 60_000)
    histogram = _counted(scores, positive, probability_keys)
    _, counts = histogram.counted()
    bound = (counts[:, 0] * counts[:, 1]).sum() / 2 / (counts[:, 0].sum() * counts[:, 1].sum())
    auc = roc_auc(histogram)
    assert auc is not None
    assert abs(auc - _exact_auc(scores, positive)) <= bound


def test_without_both_classes_there_is_no_auc() -> None:
    scores = np.array([0.2, 0.7])
    assert roc_auc(_counted(scores, np.array([True, True]), probability_keys)) is None
    assert roc_auc(Histogram(2)) is None


def test_keys_are_in_the_order_of_the_numbers_and_zero_has_one_sign() -> None:
    numbers = np.array([-1e300, -2.5, -1e-300, 0.0, 1e-300, 0.5, np.nextafter(0.5, 1), 1 - 1e-16, 1.0, 7.0])
    for keys in (ordered_keys, probability_keys):
        assert (np.diff(keys(numbers)) > 0).all()
        assert keys(np.array([-0.0]))[0] == keys(np.array([0.0]))[0]


def test_any_order_cut_or_merge_gives_the_same_bins() -> None:
    rng = np.random.default_rng(10)
    keys = ordered_keys(rng.lognormal(0, 4, 30_000))
    counts = rng.integers(1, 5, (30_000, 2))
    whole = Histogram(2, max_bins=500)
    whole.add(keys, counts)
    order = rng.permutation(30_000)
    parts = [Histogram(2, max_bins=500) for _ in range(3)]
    for index, rows in enumerate(np.array_split(order, 57)):
        parts[index % 3].add(keys[rows], counts[rows])
    parts[2].merge(parts[0])
    parts[1].merge(parts[2])
    assert 250 <= whole.bins <= 500
    assert parts[1].level == whole.level
    for mine, other in zip(parts[1].counted(), whole.counted(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_what_is_dumped_comes_back() -> None:
    histogram = Histogram(2, max_bins=50)
    histogram.add(ordered_keys(np.linspace(-5, 5, 200)), np.tile([1, -2], (200, 1)))
    for original in (histogram, Histogram(2)):
        copy = Histogram(2, max_bins=50)
        copy.load(original.dump())
        assert copy.level == original.level
        for mine, other in zip(copy.counted(), original.counted(), strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_are_within_a_128th(share: float) -> None:
    rng = np.random.default_rng(11)
    times = np.concatenate([rng.lognormal(8, 3, 5_000), [0, 0, 86_400_000]]).astype(np.int64)
    histogram = Histogram(1, level=46)
    histogram.add(ordered_keys(times), np.ones((len(times), 1), dtype=np.int64))
    exact = np.quantile(times, share, method="inverted_cdf")
    assert histogram.quantile(share) == pytest.approx(exact, rel=1 / 128, abs=0)


def test_nothing_has_no_quantile_and_times_before_zero_have_one() -> None:
    histogram = Histogram(1, level=46)
    assert histogram.quantile(0.5) is None
    histogram.add(ordered_keys(np.array([-1000, -1000, 5])), np.ones((3, 1), dtype=np.int64))
    assert histogram.quantile(0.5) == pytest.approx(-1000, rel=1 / 128)
