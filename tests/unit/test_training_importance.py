"""Which features a model relies on."""

import numpy as np
import pytest

from ml.models.protocol import Matrix, Scores
from ml.training.importance import permutation_importance
from ml.training.table import Table
from tests.tables import ANOMALY, BINARY, THREE, Weighing, table_of

NAMES = ("much", "some", "none")


def rows(n: int) -> Table:
    """Return events that depend on the first column, half as much on the second, and not on the third."""
    random = np.random.default_rng(3)
    matrix = random.normal(size=(n, 3)).astype(np.float32)
    labels = random.random(n) < 1 / (1 + np.exp(-(2 * matrix[:, 0] - matrix[:, 1])))
    return table_of(labels, matrix)


class Counted(Weighing):
    """Says which matrices it scored."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__(weights)
        self.seen: list[Matrix] = []

    def predict(self, matrix: Matrix) -> Scores:
        self.seen.append(matrix.copy())
        return super().predict(matrix)


@pytest.mark.parametrize("scoring", [BINARY, ANOMALY])
def test_a_feature_matters_as_much_as_the_loss_grows_without_it(scoring: object) -> None:
    found = permutation_importance(Weighing([2, -1, 0]), NAMES, rows(3000), scoring, seed=1)
    much, some, none = found
    assert tuple(each.feature for each in found) == NAMES
    assert much.increase > 2 * some.increase > 0.02
    assert much.spread < much.increase / 5
    assert (none.increase, none.spread) == (0.0, 0.0)


def test_a_feature_that_misleads_has_a_negative_importance() -> None:
    misled, _, _ = permutation_importance(Weighing([-2, 0, 0]), NAMES, rows(1000), BINARY, seed=1)
    assert misled.increase < -0.1


@pytest.mark.parametrize("n", [2000, 6000])
def test_equal_seeds_give_equal_importance_and_the_rows_stay_as_they_are(n: int) -> None:
    table = rows(n)
    before = table.matrix.copy()
    first, second, other = (permutation_importance(Weighing([2, -1, 0]), NAMES, table, BINARY, s) for s in (1, 1, 2))
    assert first == second
    assert first != other
    assert np.array_equal(before, table.matrix)


def test_it_costs_three_times_5000_rows_for_each_feature() -> None:
    model = Counted([2, -1, 0])
    permutation_importance(model, NAMES, rows(7000), BINARY, seed=1)
    assert [matrix.shape for matrix in model.seen] == [(5000, 3)] * (1 + 3 * 3)
    for column in range(3):
        for matrix in model.seen[1 + 3 * column : 4 + 3 * column]:
            moved = [c for c in range(3) if not np.array_equal(matrix[:, c], model.seen[0][:, c])]
            assert moved == [column]
            assert np.array_equal(np.sort(matrix[:, column]), np.sort(model.seen[0][:, column]))


def test_several_classes_have_importance_too() -> None:
    class ByColumn(Weighing):
        classes = 3

        def predict(self, matrix: Matrix) -> Scores:
            odds = np.exp(matrix * [1, 1, 0])
            return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    matrix = np.random.default_rng(4).normal(size=(1000, 3)).astype(np.float32)
    table = table_of(matrix.argmax(axis=1), matrix)
    much, also, none = permutation_importance(ByColumn([0, 0, 0]), NAMES, table, THREE, seed=1)
    assert min(much.increase, also.increase) > 0.05
    assert none.increase == 0.0
