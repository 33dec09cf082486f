"""XGBoost's C API gives what its Python gives."""

import numpy as np
import pytest
import xgboost
from xgboost.core import XGBoostError

from ml.models.xgboost_call import dense_scores


def _booster(classes: int) -> xgboost.Booster:
    random = np.random.default_rng(3)
    matrix = random.normal(size=(400, 4)).astype(np.float32)
    labels = random.integers(0, classes, 400)
    objective = {"objective": "binary:logistic"} if classes == 2 else {"objective": "multi:softprob", "num_class": 3}
    return xgboost.train(objective | {"nthread": 1}, xgboost.DMatrix(matrix, label=labels), num_boost_round=20)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("rows", [0, 1, 7, 500])
def test_scores_are_those_of_inplace_predict(classes: int, rows: int) -> None:
    booster, random = _booster(classes), np.random.default_rng(rows)
    matrix = random.normal(size=(rows, 4)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    expected = booster.inplace_predict(matrix, validate_features=False)
    assert dense_scores(booster, matrix).tolist() == expected.ravel().tolist()


def test_a_slice_of_a_wider_matrix_is_read_by_its_own_rows_and_columns() -> None:
    booster, wide = _booster(2), np.random.default_rng(5).normal(size=(60, 9)).astype(np.float32)
    expected = booster.inplace_predict(np.ascontiguousarray(wide[::2, 2:6]), validate_features=False)
    assert dense_scores(booster, wide[::2, 2:6]).tolist() == expected.tolist()


def test_the_next_answer_leaves_the_last_one_alone() -> None:
    booster, random = _booster(2), np.random.default_rng(7)
    first = dense_scores(booster, random.normal(size=(5, 4)).astype(np.float32))
    kept = first.copy()
    dense_scores(booster, random.normal(size=(5, 4)).astype(np.float32))
    assert first.tolist() == kept.tolist()


def test_what_xgboost_refuses_is_an_error() -> None:
    with pytest.raises(XGBoostError):
        dense_scores(_booster(2), np.zeros((2, 9), dtype=np.float32))
