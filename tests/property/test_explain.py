"""Contributions of features: what must hold for whatever model, row and background."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.explain import MOST_ENUMERATED, shapley_values
from ml.models.protocol import Matrix

WIDE = MOST_ENUMERATED + 3
widths = st.sampled_from([1, 2, 5, MOST_ENUMERATED, MOST_ENUMERATED + 1, WIDE])
seeds = st.integers(0, 2**32 - 1)
SETTINGS = settings(deadline=None, max_examples=50)
Score = Callable[[Matrix], NDArray[np.float64]]


@pytest.fixture(scope="module", autouse=True)
def few_orders() -> Iterator[None]:
    """What holds for many sampled orders holds for few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml.explain._LEAST_ROWS", 500)
        yield


def data(random: np.random.Generator, width: int, rows: int) -> tuple[Matrix, Matrix]:
    """Return a row and a background, with missing values and some that are the same."""
    matrix = random.integers(-2, 3, size=(rows + 1, width)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix[0], matrix[1:]


def crooked(random: np.random.Generator, width: int) -> Score:
    """Return a score in which every feature depends on every other, and on being missing."""
    weights = random.normal(size=(width, 4))

    def score(matrix: Matrix) -> NDArray[np.float64]:
        known = np.where(np.isnan(matrix), 0.7, matrix).astype(np.float64)
        return np.asarray(np.tanh(known @ weights).prod(axis=1) + np.isnan(matrix).sum(axis=1) ** 2)

    return score


@SETTINGS
@given(widths, st.integers(1, 30), seeds)
def test_base_and_contributions_add_up_to_the_score(width: int, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    score = crooked(random, width)
    row, background = data(random, width, rows)
    found = shapley_values(score, row, background, random)
    assert found.base == pytest.approx(score(background).mean(), abs=1e-9)
    assert found.output == pytest.approx(score(row[None])[0], abs=1e-9)


@SETTINGS
@given(widths, seeds)
def test_a_linear_model_gives_each_feature_its_weight_times_its_distance_from_the_mean(width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.normal(size=width)
    row, background = (np.nan_to_num(values) for values in data(random, width, 20))
    found = shapley_values(lambda matrix: matrix.astype(np.float64) @ weights, row, background, random)
    assert found.values == pytest.approx(weights * (row - background.astype(np.float64).mean(axis=0)), abs=1e-9)


@SETTINGS
@given(widths, seeds)
def test_a_feature_that_the_model_does_not_look_at_contributes_nothing(width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    score = crooked(random, width)
    row, background = data(random, width + 1, 10)
    found = shapley_values(lambda matrix: score(matrix[:, :-1]), row, background, random)
    assert found.values[-1] == 0


@SETTINGS
@given(widths, seeds)
def test_a_feature_that_is_the_same_everywhere_contributes_nothing(width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    row, background = data(random, width, 10)
    row[0] = background[:, 0] = random.choice([np.nan, 1.0])
    assert shapley_values(crooked(random, width), row, background, random).values[0] == 0


@SETTINGS
@given(st.integers(2, MOST_ENUMERATED), seeds)
def test_features_that_are_alike_in_everything_contribute_alike(width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    row, background = data(random, width, 10)
    row[1], background[:, 1] = row[0], background[:, 0]

    def score(matrix: Matrix) -> NDArray[np.float64]:
        return np.asarray(np.nan_to_num(matrix[:, :2]).prod(axis=1) + np.nan_to_num(matrix).sum(axis=1) ** 3)

    values = shapley_values(score, row, background, random).values
    assert values[0] == pytest.approx(values[1], abs=1e-6)


@SETTINGS
@given(seeds)
def test_the_same_seed_draws_the_same_orders(seed: int) -> None:
    random = np.random.default_rng(seed)
    score = crooked(random, WIDE)
    row, background = data(random, WIDE, 10)
    first, again = (shapley_values(score, row, background, np.random.default_rng(seed)) for _ in range(2))
    assert first.method == again.method
    assert np.array_equal(first.values, again.values)
