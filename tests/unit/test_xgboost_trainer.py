"""XGBoost stops by the validation data, and names columns where it can."""

from typing import Any

import numpy as np
import pytest

from ml.models.xgboost_model import XGBoostModel
from ml.training.protocol import Fitted, Unwatched
from ml.training.table import Table
from ml.training.xgboost_trainer import XGBoostTrainer


def table_of(seed: int, rows: int = 400) -> Table:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, 2)).astype(np.float32)
    labels = (matrix[:, 0] + random.normal(size=rows) > 0).astype(np.int64)
    order = np.arange(rows)
    return Table(matrix, labels, np.ones(rows), order, order, np.zeros(rows))


def fitted(names: tuple[str, ...] = ("a", "b"), **parameters: Any) -> Fitted:
    return XGBoostTrainer(names, **parameters).fit(table_of(1), table_of(2), Unwatched())


def test_it_stops_when_the_loss_no_longer_falls_and_keeps_the_rounds_up_to_the_best() -> None:
    early = fitted(learning_rate=0.3, early_stopping_rounds=10)
    assert early.rounds < 100
    assert not early.notes
    exactly = fitted(learning_rate=0.3, early_stopping_rounds=10, rounds=early.rounds)
    assert exactly.payload == early.payload


def test_a_fit_that_used_all_its_rounds_says_so() -> None:
    assert "still falling after 5 rounds" in fitted(rounds=5).notes[0]


def test_columns_have_the_names_of_the_features() -> None:
    assert XGBoostModel.load(fitted(("age", "höhe in m"), rounds=2).payload).feature_names == ("age", "höhe in m")


@pytest.mark.parametrize("name", ["a[0]", "x<3", "]"])
def test_names_that_xgboost_refuses_are_left_out(name: str) -> None:
    assert XGBoostModel.load(fitted((name, "b"), rounds=2).payload).feature_names == ()


def test_nothing_of_the_unfinished_fit_is_in_the_model() -> None:
    assert b"penstock-fit" not in fitted(rounds=60, early_stopping_rounds=60).payload


def test_two_classes_by_name_have_a_column_each() -> None:
    made = XGBoostTrainer(("a", "b"), 2, rounds=3).fit(table_of(1), table_of(2), Unwatched())
    assert XGBoostModel.load(made.payload).predict(table_of(3).matrix).shape == (400, 2)
