"""Whether a difference is more than luck: against formulas written out, and by how often the interval is right."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ml.training.comparison import Metric, NotComparable, compare
from ml.training.losses import log_losses
from ml.training.measure import measure
from ml.training.table import Table
from tests.tables import ANOMALY, BINARY, THREE, table_of, three_classes

Floats = np.ndarray


def two_models(random: np.random.Generator, n: int, entities: int = 0) -> tuple[Floats, Floats, Table]:
    """Return the scores of two models, equally good, of which each is wrong about whole entities (if there are any)."""
    entity = random.integers(0, entities, n) if entities else np.arange(n)
    leaning = random.normal(size=entity.max() + 1)
    signal = random.normal(size=n) + leaning[entity]
    labels = (random.normal(size=n) + signal > 0.5).astype(int)
    wrong = [random.normal(size=entity.max() + 1)[entity] + random.normal(size=n) for _ in range(2)]
    first, second = (1 / (1 + np.exp(-(signal + error))) for error in wrong)
    return first, second, table_of(labels, entities=entity)


def deviation(low: float | None, high: float | None, freedom: float) -> float:
    """Return the standard deviation that an interval at 95% was made of."""
    assert low is not None
    assert high is not None
    return float((high - low) / 2 / stats.t.ppf(0.975, freedom))


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_where_nobody_knows_the_entities_there_is_no_interval(metric: Metric) -> None:
    first, second, table = two_models(np.random.default_rng(1), 400)
    known = compare(metric, first, second, table, BINARY)
    unknown = compare(metric, first, second, replace(table, entities_known=False), BINARY)
    assert known.low is not None
    assert (unknown.low, unknown.high, unknown.entities_known) == (None, None, False)
    assert unknown.value == known.value
    assert not unknown.surely_better


def test_the_interval_of_a_difference_of_areas_is_delongs_where_each_entity_has_one_event() -> None:
    first, second, table = two_models(np.random.default_rng(1), 400)
    first, second = np.round(first, 1), np.round(second, 1)
    positive = table.labels == 1
    kernels = [np.sign(np.subtract.outer(scores[positive], scores[~positive])) / 2 + 0.5 for scores in (first, second)]
    m, n = kernels[0].shape
    rows, columns = np.cov([k.mean(axis=1) for k in kernels]), np.cov([k.mean(axis=0) for k in kernels])
    covariance = rows / m + columns / n
    difference = compare("roc_auc", first, second, table, BINARY)
    assert difference.candidate == pytest.approx(kernels[0].mean())
    assert difference.champion == pytest.approx(kernels[1].mean())
    assert difference.value == pytest.approx(kernels[0].mean() - kernels[1].mean())
    expected = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert deviation(difference.low, difference.high, min(m, n) - 1) == pytest.approx(expected)


def test_the_interval_of_a_difference_of_areas_is_obuchowskis_where_entities_have_several() -> None:
    first, second, table = two_models(np.random.default_rng(2), 300, entities=40)
    positive = table.labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    kernel = np.sign(np.subtract.outer(first[positive], first[~positive])) / 2
    kernel = kernel - np.sign(np.subtract.outer(second[positive], second[~positive])) / 2
    above, below = np.zeros(len(table)), np.zeros(len(table))
    above[positive], below[~positive] = kernel.mean(axis=1) - kernel.mean(), kernel.mean(axis=0) - kernel.mean()
    x, y = (np.array([part[table.entities == k].sum() for k in np.unique(table.entities)]) for part in (above, below))
    with_x, with_y, both = len(set(table.entities[positive])), len(set(table.entities[~positive])), len(x)
    s10, s01 = with_x / ((with_x - 1) * m) * (x @ x), with_y / ((with_y - 1) * n) * (y @ y)
    s11 = both / (both - 1) * (x @ y)
    expected = np.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n))
    difference = compare("roc_auc", first, second, table, BINARY)
    assert deviation(difference.low, difference.high, difference.entities - 1) == pytest.approx(expected)
    assert difference.entities < 40


def test_the_interval_of_a_mean_is_the_paired_t_interval_where_each_entity_has_one_event() -> None:
    first, second, table = two_models(np.random.default_rng(3), 50)
    losses = log_losses(first, table.labels) - log_losses(second, table.labels)
    expected = stats.ttest_1samp(losses, 0).confidence_interval(0.9)
    difference = compare("log_loss", first, second, table, BINARY, alpha=0.1)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "log_loss", "brier"])
def test_figures_are_those_that_measure_gives(metric: str) -> None:
    first, second, table = two_models(np.random.default_rng(4), 300, entities=40)
    difference = compare(metric, first, second, table, BINARY)
    assert difference.candidate == pytest.approx(getattr(measure(first, table, BINARY), metric))
    assert difference.champion == pytest.approx(getattr(measure(second, table, BINARY), metric))
    assert difference.value == difference.candidate - difference.champion
    assert difference.low < difference.value < difference.high


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "log_loss"])
def test_of_100_intervals_95_hold_the_truth_and_fewer_do_where_entities_are_taken_for_events(metric: str) -> None:
    random = np.random.default_rng(5)
    held, held_by_event = 0, 0
    for _ in range(400):
        first, second, table = two_models(random, 300, entities=25)
        difference = compare(metric, first, second, table, BINARY)
        held += difference.low <= 0 <= difference.high
        apart = compare(metric, first, second, table_of(table.labels), BINARY)
        held_by_event += apart.low <= 0 <= apart.high
    assert 0.92 <= held / 400 <= 0.985
    assert held_by_event / 400 < 0.87


def test_a_difference_that_is_there_is_found() -> None:
    random = np.random.default_rng(6)
    first, _, table = two_models(random, 4000, entities=500)
    worse = np.clip(first + random.normal(0, 0.4, len(first)), 0.01, 0.99)
    for metric in ("roc_auc", "accuracy", "log_loss", "brier"):
        better, other = (compare(metric, *pair, table, BINARY) for pair in ((first, worse), (worse, first)))
        assert better.surely_better
        assert better.gain > 0
        assert not other.surely_better
        assert other.gain == -better.gain


def test_a_model_is_no_better_than_itself() -> None:
    first, _, table = two_models(np.random.default_rng(7), 200, entities=20)
    for metric in ("roc_auc", "accuracy", "log_loss", "brier"):
        difference = compare(metric, first, first.astype(np.float64), table, BINARY)
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert not difference.surely_better


def test_few_entities_widen_the_interval_and_one_has_none() -> None:
    first, second, table = two_models(np.random.default_rng(8), 400)
    widths = []
    for entities in (400, 20, 4):
        difference = compare(
            "log_loss", first, second, table_of(table.labels, entities=np.arange(400) % entities), BINARY
        )
        assert difference.entities == pytest.approx(entities)
        widths.append(deviation(difference.low, difference.high, entities - 1) / (difference.high - difference.low))
    assert widths == sorted(widths, reverse=True)
    lonely = compare("log_loss", first, second, table_of(table.labels, entities=np.zeros(400)), BINARY)
    assert (lonely.low, lonely.high, lonely.surely_better) == (None, None, False)


def test_entities_of_which_one_has_nearly_all_events_are_worth_hardly_more_than_one() -> None:
    first, second, table = two_models(np.random.default_rng(9), 400)
    entities = np.where(np.arange(400) < 380, 0, np.arange(400))
    assert compare("brier", first, second, table_of(table.labels, entities=entities), BINARY).low is None


def test_rows_that_weigh_nothing_and_their_entities_do_not_count() -> None:
    first, second, table = two_models(np.random.default_rng(10), 300, entities=40)
    weights = np.where(table.entities < 15, 0.0, 2.0)
    kept = weights > 0
    for metric in ("roc_auc", "accuracy"):
        weighed = compare(
            metric, first, second, table_of(table.labels, weights=weights, entities=table.entities), BINARY
        )
        assert weighed == compare(metric, first[kept], second[kept], table.rows(kept), BINARY)


def test_several_classes_are_compared_by_what_they_have() -> None:
    random = np.random.default_rng(11)
    first, table = three_classes(random, 300)
    second = np.full((300, 3), 1 / 3)
    assert compare("log_loss", first, second, table, THREE).surely_better
    assert compare("brier", first, second, table, THREE).surely_better
    assert compare("accuracy", first, second, table, THREE).surely_better
    with pytest.raises(NotComparable, match="several classes"):
        compare("roc_auc", first, second, table, THREE)


def test_what_cannot_be_compared_is_refused_with_the_reason() -> None:
    scores = np.array([0.1, 0.9])
    with pytest.raises(NotComparable, match="one class"):
        compare("roc_auc", scores, scores, table_of([1, 1]), BINARY)
    with pytest.raises(NotComparable, match="no probability"):
        compare("brier", scores, scores, table_of([0, 1]), ANOMALY)
    with pytest.raises(NotComparable, match="no row"):
        compare("accuracy", scores, scores, table_of([0, 1], weights=[0, 0]), BINARY)


def test_a_hundred_thousand_rows_take_less_than_a_second() -> None:
    first, second, table = two_models(np.random.default_rng(12), 100_000, entities=3000)
    began = time.process_time()
    compare("roc_auc", first, second, table, BINARY)
    assert time.process_time() - began < 1
