"""Data is cut by event time, and what cannot be learned from is refused in a sentence."""

import numpy as np
import pytest

from ml.training.protocol import TrainingImpossible
from ml.training.split import folds, rarer, require_learnable, split, untriable_folds, vanished
from ml.training.table import Table


def table_of(times: list[int], labels: list[int] | None = None, matrix: np.ndarray | None = None) -> Table:
    rows = len(times)
    return Table(
        np.zeros((rows, 2), np.float32) if matrix is None else matrix.astype(np.float32),
        np.array(labels if labels is not None else [0] * rows, np.int64),
        np.ones(rows),
        np.array(times, np.int64),
        np.arange(rows),
        np.zeros(rows),
    )


def test_the_first_rows_train_the_next_validate_and_the_last_test() -> None:
    parts = split(table_of(list(range(10))), 0.1, 0.2)
    assert parts.train.event_time_ms.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert parts.validation.event_time_ms.tolist() == [7]
    assert parts.test.event_time_ms.tolist() == [8, 9]


@pytest.mark.parametrize(("times", "train"), [([1, 1, 1, 1, 1, 1, 1, 1, 2, 3], 8), ([0, 1, 2, 3, 4, 5, 6, 6, 6, 9], 6)])
def test_rows_of_one_time_stay_together_on_the_nearer_side(times: list[int], train: int) -> None:
    assert len(split(table_of(times), 0.2, 0.1).train) == train


@pytest.mark.parametrize(
    ("times", "part"), [([], "training"), ([5] * 50, "validation"), ([5] * 40 + [9], "validation")]
)
def test_too_few_times_for_three_parts_are_refused(times: list[int], part: str) -> None:
    with pytest.raises(TrainingImpossible, match=f"{len(times)} samples of .* leave no {part} data"):
        split(table_of(times), 0.1, 0.2)


def test_each_fold_trains_on_all_that_came_before_what_it_is_judged_on() -> None:
    found = folds(table_of(list(range(10))), 4)
    assert [(len(train), judged.event_time_ms.tolist()) for train, judged in found] == [
        (2, [2, 3]),
        (4, [4, 5]),
        (6, [6, 7]),
        (8, [8, 9]),
    ]


def test_more_folds_than_times_are_refused() -> None:
    with pytest.raises(TrainingImpossible, match="3 samples of 3 different event times leave no fold"):
        folds(table_of([1, 2, 3]), 5)


def test_folds_that_cannot_be_tried_are_named() -> None:
    table = table_of(list(range(12)), [0] * 4 + [1, 0] * 4)
    table.weights[9:] = 0
    assert untriable_folds(table, 3, 1) == {
        1: "fold 1 of 3 cannot be tried: the fold's training data has 3 samples, all of class 0; two classes are the "
        "least",
        3: "fold 3 of 3 cannot be tried: what follows it has no samples that count",
    }


def test_a_feature_that_most_of_the_test_rows_lack_is_told() -> None:
    matrix = np.ones((100, 4))
    matrix[81:, 0] = np.nan  # too late to be gone from the newest fifth
    matrix[90:, 1] = np.nan  # half of the test
    matrix[5:, 2] = np.nan  # hardly ever known
    matrix[:80, 3] = np.nan  # new
    table = table_of(list(range(100)), matrix=matrix)
    names = ("a", "b", "c", "d")
    assert vanished(table, names) is None
    assert rarer(table.rows(slice(0, 70)), table.rows(slice(80, 100)), names) == (
        "Feature a is known in 5.0% of the test data, and in 100.0% of the training data: has it gone?",
    )


def test_too_few_samples_and_one_class_are_refused_with_figures() -> None:
    table = table_of(list(range(20)), [0] * 12 + [1] * 8)
    require_learnable(table, 1, 20)
    with pytest.raises(TrainingImpossible, match="the whole data has 20 samples, and needs 21"):
        require_learnable(table, 1, 21, "whole")
    with pytest.raises(TrainingImpossible, match="the test data has 8 samples, all of class 1; two classes"):
        require_learnable(table.rows(slice(12, 20)), 3, 1, "test")
    with pytest.raises(TrainingImpossible, match="the test data has 0 samples; two classes"):
        require_learnable(table.rows(slice(0)), 1, 0, "test")


def test_samples_without_weight_do_not_count() -> None:
    table = table_of(list(range(20)), [0] * 12 + [1] * 8)
    table.weights[12:] = 0
    with pytest.raises(TrainingImpossible, match="12 samples, all of class 0"):
        require_learnable(table, 1, 5)


def test_a_feature_that_the_newest_fifth_lacks_and_the_others_had_vanished() -> None:
    matrix = np.ones((100, 3))
    matrix[80:, 1] = np.nan
    matrix[:, 2] = np.nan  # never known: it did not vanish
    sentence = vanished(table_of(list(range(100)), matrix=matrix), ("a", "b", "c"))
    assert sentence == "a feature vanished: b (known in 0% of the newest 20 samples, in 100% of those before)"


def test_a_feature_that_is_rarer_or_new_did_not_vanish() -> None:
    matrix = np.ones((100, 3))
    matrix[84:, 0] = np.nan
    matrix[:80, 1] = np.nan
    assert vanished(table_of(list(range(100)), matrix=matrix), ("a", "b", "c")) is None


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_of_too_few_rows_nothing_can_vanish(rows: int) -> None:
    assert vanished(table_of(list(range(rows))), ("a", "b")) is None
