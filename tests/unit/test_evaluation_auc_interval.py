"""The interval of a binned ROC AUC: DeLong's on the raw scores, and right 19 times in 20."""

import math

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from ml.evaluation.figures import roc_auc, roc_auc_interval
from ml.evaluation.histogram import Histogram, ordered_keys
from ml.evaluation.tally import Scoring, Tally
from tests.evaluating import bench_of, sample

Floats = NDArray[np.float64]


def _counted(negatives: Floats, positives: Floats, max_bins: int = 8192) -> Histogram:
    histogram = Histogram(2, max_bins=max_bins)
    for column, scores in enumerate((negatives, positives)):
        counts = np.zeros((len(scores), 2), dtype=np.int64)
        counts[:, column] = 1
        histogram.add(ordered_keys(scores), counts)
    return histogram


def _delong(negatives: Floats, positives: Floats) -> list[float]:
    """The ends, by the kernel of every pair of raw scores."""
    pairs = positives[:, np.newaxis] - negatives
    kernel = np.where(pairs > 0, 1.0, np.where(pairs == 0, 0.5, 0.0))
    area = float(kernel.mean())
    variance = kernel.mean(axis=1).var(ddof=1) / len(positives) + kernel.mean(axis=0).var(ddof=1) / len(negatives)
    half = student.ppf(0.975, min(kernel.shape) - 1) * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return [1 / (1 + math.exp(-end)) for end in (centre - half, centre + half)]


def _worlds(rng: np.random.Generator, negatives: int, positives: int, area: float) -> tuple[Floats, Floats]:
    """Return normal scores of two classes whose ROC AUC is `area`."""
    return rng.standard_normal(negatives), rng.standard_normal(positives) + math.sqrt(2) * norm.ppf(area)


@pytest.mark.parametrize(("negatives", "positives", "area"), [(300, 700, 0.6), (900, 30, 0.9), (40, 40, 0.25)])
@pytest.mark.parametrize("decimals", [1, 9])
def test_it_is_delongs_on_the_raw_scores_ties_and_all(
    negatives: int, positives: int, area: float, decimals: int
) -> None:
    below, above = (
        np.round(scores, decimals) for scores in _worlds(np.random.default_rng(1), negatives, positives, area)
    )
    assert roc_auc_interval(_counted(below, above)) == pytest.approx(_delong(below, above), rel=1e-9)


def test_when_scores_share_bins_it_moves_by_less_than_a_hundredth_of_its_width() -> None:
    below, above = _worlds(np.random.default_rng(2), 2_000, 1_500, 0.8)
    exact = _delong(below, above)
    binned = _counted(below, above, max_bins=512)
    assert binned.bins <= 512
    assert roc_auc_interval(binned) == pytest.approx(exact, abs=0.01 * (exact[1] - exact[0]))


@pytest.mark.parametrize(("negatives", "positives", "area"), [(95, 5, 0.6), (80, 20, 0.95), (400, 100, 0.7)])
def test_it_holds_the_true_area_19_times_in_20(negatives: int, positives: int, area: float) -> None:
    rng, held, worlds = np.random.default_rng(3), 0, 1_000
    for _ in range(worlds):
        low, high = roc_auc_interval(_counted(*_worlds(rng, negatives, positives, area)))
        held += low is not None and high is not None and low <= area <= high
    assert held / worlds == pytest.approx(0.95, abs=0.02)


def test_it_lies_around_the_area_within_0_and_1() -> None:
    histogram = _counted(*_worlds(np.random.default_rng(4), 50, 6, 0.985))
    (low, high), area = roc_auc_interval(histogram), roc_auc(histogram)
    assert low is not None
    assert high is not None
    assert area is not None
    assert 0 < low < area < high < 1


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [([], []), ([0.1, 0.4], []), ([0.1, 0.4, 0.6], [0.3]), ([0.1, 0.4], [0.7, 0.8]), ([0.7, 0.8], [0.1, 0.4])],
)
def test_too_few_of_a_class_or_perfect_order_tell_no_interval(negatives: list[float], positives: list[float]) -> None:
    assert roc_auc_interval(_counted(np.array(negatives), np.array(positives))) == (None, None)
    assert roc_auc_interval(_counted(np.full(4, 0.5), np.full(3, 0.5))) == (None, None)


def test_a_tally_of_two_classes_tells_it_and_one_of_three_does_not() -> None:
    rng, zeros = np.random.default_rng(5), np.zeros(200, dtype=np.int64)
    binary, several = Tally(Scoring("binary", 2, 0.5)), Tally(Scoring("multiclass", 3, 0.5))
    scores = rng.random(200)
    binary.add((rng.random(200) < scores).astype(np.int64), scores, zeros, 0, zeros)
    several.add(rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200), zeros, 0, zeros)
    two, three = binary.figures(), several.figures()
    assert two.roc_auc_low is not None
    assert two.roc_auc_high is not None
    assert two.roc_auc is not None
    assert two.roc_auc_low < two.roc_auc < two.roc_auc_high
    assert three.roc_auc is not None
    assert (three.roc_auc_low, three.roc_auc_high) == (None, None)


async def test_it_is_shown_as_metrics_of_a_mature_window_and_is_nan_where_there_is_none() -> None:
    samples = [sample(i, right=i % 4 != 0) for i in range(10)]
    for labels, shown in (({}, True), ({"label": 0}, False)):
        bench = await bench_of([*(msgspec.structs.replace(found, **labels) for found in samples)])
        await bench.take([sample(10, minute=300)])
        low, high = (
            bench.metric("ml_performance", variant="champion", figure=name) for name in ("roc_auc_low", "roc_auc_high")
        )
        assert low is not None
        assert high is not None
        assert (low < high) is shown
        assert math.isnan(low) is math.isnan(high) is not shown
