"""What must hold of any two models' difference, and of any ranking, whatever the scores, weights and entities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.training.comparison import compare
from ml.training.measure import measure
from ml.training.table import Table
from tests.tables import BINARY, table_of

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
Pair = tuple[np.ndarray, np.ndarray, Table]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Return the scores of two models for at most 30 events of at most 5 entities, of which two weigh something."""
    rows = st.tuples(SCORES, SCORES, st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 4))
    drawn = [(0.5, 0.5, 0, 1.0, 0), (0.5, 0.5, 1, 1.0, 1), *draw(st.lists(rows, max_size=28))]
    first, second, labels, weights, entities = (np.array(column) for column in zip(*drawn, strict=True))
    return first, second, table_of(labels, weights=weights, entities=entities)


@settings(deadline=None, database=None)
@given(pairs(), st.sampled_from(["roc_auc", "accuracy", "log_loss", "brier"]))
def test_the_difference_turns_round_with_the_models(pair: Pair, metric: str) -> None:
    first, second, table = pair
    there, back = compare(metric, first, second, table, BINARY), compare(metric, second, first, table, BINARY)
    assert there.value == -back.value
    assert (there.low is None) == (back.low is None)
    if there.low is not None:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
        assert there.low <= there.value <= there.high
    assert not (there.surely_better and back.surely_better)


@settings(deadline=None, database=None)
@given(pairs(), st.sampled_from(["roc_auc", "accuracy", "log_loss", "brier"]), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_scale_of_weights_nor_the_names_of_entities_matter(
    pair: Pair, metric: str, random: object
) -> None:
    first, second, table = pair
    order = np.array(random.sample(range(len(table)), len(table)))  # type: ignore[attr-defined]
    moved = table.rows(order)
    other = table_of(moved.labels, weights=moved.weights * 4, entities=1000 - 7 * moved.entities)
    one, two = (
        compare(metric, first, second, table, BINARY),
        compare(metric, first[order], second[order], other, BINARY),
    )
    assert (one.candidate, one.champion, one.entities) == pytest.approx((two.candidate, two.champion, two.entities))
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=1e-9)


@settings(deadline=None, database=None)
@given(pairs())
def test_the_area_is_the_share_of_pairs_in_the_right_order_and_the_curves_belong_to_it(pair: Pair) -> None:
    scores, _, table = pair
    measured = measure(scores, table, BINARY)
    positive = table.labels == 1
    order = np.sign(np.subtract.outer(scores[positive], scores[~positive])) / 2 + 0.5
    weights = np.outer(table.weights[positive], table.weights[~positive])
    assert measured.roc_auc == pytest.approx((order * weights).sum() / weights.sum())
    fpr = np.array([0.0, *(point.false_positive_rate for point in measured.curve)])
    recall = np.array([0.0, *(point.recall for point in measured.curve)])
    assert measured.roc_auc == pytest.approx(np.trapezoid(recall, fpr))
    assert max(point.f1 for point in measured.curve) == pytest.approx(measured.best.f1)
