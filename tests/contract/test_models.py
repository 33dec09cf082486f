"""What every model must do, whichever package it comes from; `conftest` says how each is built."""

import hashlib
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.errors import ModelInputInvalid, ModelParametersInvalid, ModelPayloadInvalid
from ml.explain import contributions_of
from ml.models.protocol import Explains, Learner, Matrix, Model, Scores
from ml.models.registry import algorithms
from tests.contract.conftest import N_FEATURES, TRAINERS, Case


class _Gadget:
    """Pickled, it asks the reader to run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _copy(case: Case, learner: Learner) -> Learner:
    copy = case.type.load(learner.dump())
    assert isinstance(copy, Learner)
    return copy


def test_every_registered_algorithm_is_tested_here() -> None:
    assert set(algorithms()) == set(TRAINERS), "teach tests/contract/conftest.py how to train it"


def test_the_class_found_by_a_name_goes_by_that_name_and_is_a_model(case: Case, model: Model) -> None:
    assert case.type.algorithm == case.algorithm
    assert isinstance(model, case.type)
    assert isinstance(model, Model)


def test_it_knows_its_columns_and_its_size(case: Case, model: Model) -> None:
    assert (model.n_features, model.classes) == (N_FEATURES, case.classes)
    assert isinstance(model.memory_bytes, int)
    assert len(model.dump()) < model.memory_bytes < 100 * len(model.dump())


@pytest.mark.parametrize("rows", [0, 1, 2, 257])
def test_scores_are_one_number_per_row_or_one_per_class(case: Case, model: Model, rows: int, matrix: Matrix) -> None:
    scores = model.predict(matrix[:rows])
    assert scores.shape == ((rows,) if case.classes == 1 else (rows, case.classes))
    assert np.issubdtype(scores.dtype, np.floating)


@pytest.mark.parametrize("batch", [2, 63, 64, 65, 1000])
def test_a_row_scores_the_same_alone_and_in_any_batch(
    case: Case, model: Model, batch: int, matrix: Matrix, alone: Scores
) -> None:
    assert np.array_equal(model.predict(matrix[:batch]), alone[:batch])


def test_it_has_learned_which_column_is_which_class(case: Case, model: Model) -> None:
    matrix, labels = case.data()
    scores = model.predict(matrix)
    guesses = (scores > 0.5).astype(np.int64) if case.classes == 1 else scores.argmax(axis=1)
    assert (guesses == labels).mean() > 0.75


def test_what_the_features_contribute_adds_up_to_the_scores(case: Case, model: Model, matrix: Matrix) -> None:
    for row in (matrix[:1], np.full((1, N_FEATURES), np.nan, np.float32)):
        found = [
            contributions_of(model, row, matrix[1:21], np.random.default_rng(0), index) for index in range(case.classes)
        ]
        outputs = np.array([one.output for one in found])
        if found[0].scale == "log-odds":
            likely = np.exp(outputs)
            outputs = likely / (1 + likely) if case.classes == 1 else likely / likely.sum()
        assert outputs == pytest.approx(model.predict(row).ravel(), abs=1e-6)
        assert any(one.values[0] for one in found), "the first column tells the class"


def test_contributions_of_its_own_are_told_by_row_and_class(case: Case, model: Model, matrix: Matrix) -> None:
    if not isinstance(model, Explains):
        assert not case.algorithm.startswith("xgboost")
        return
    for rows in (0, 1, 20):
        shape = (rows, N_FEATURES + 1) if case.classes == 1 else (rows, case.classes, N_FEATURES + 1)
        assert model.contributions(matrix[:rows]).shape == shape
    with pytest.raises(ModelInputInvalid):
        model.contributions(matrix[:, :-1])


def test_a_dumped_and_loaded_model_scores_the_same_to_the_bit(case: Case, model: Model, matrix: Matrix) -> None:
    loaded = case.type.load(model.dump())
    assert (loaded.n_features, loaded.classes) == (model.n_features, model.classes)
    assert np.array_equal(loaded.predict(matrix), model.predict(matrix))


def test_dumping_changes_nothing_and_repeats_itself(case: Case, model: Model) -> None:
    payload = model.dump()
    assert model.dump() == payload
    assert case.type.load(payload).dump() == payload


def test_the_number_of_threads_does_not_change_a_score(case: Case, model: Model, matrix: Matrix) -> None:
    assert np.array_equal(case.type.load(model.dump(), threads=2).predict(matrix), model.predict(matrix))


def test_several_threads_may_score_at_once(case: Case, model: Model, matrix: Matrix) -> None:
    parts = [matrix[start : start + 50] for start in range(0, 1000, 50)]
    expected = [model.predict(part) for part in parts]
    with ThreadPoolExecutor(4) as threads:
        assert all(map(np.array_equal, threads.map(model.predict, parts * 2), expected * 2))


def test_missing_values_give_probabilities(case: Case, model: Model) -> None:
    rows = np.vstack([np.full((1, N_FEATURES), np.nan), np.where(np.eye(N_FEATURES) == 1, np.nan, 1.0)])
    scores = model.predict(rows.astype(np.float32))
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    if case.classes > 1:
        assert scores.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_extreme_values_give_probabilities(case: Case, model: Model) -> None:
    largest = np.finfo(np.float32).max
    scores = model.predict(np.array([[largest] * N_FEATURES, [-largest] * N_FEATURES], np.float32))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_same_data_and_seed_give_the_same_bytes(case: Case, model: Model) -> None:
    assert case.build(seed=0).dump() == model.dump()


def test_the_same_data_and_seed_give_the_same_bytes_in_another_process(
    case: Case, model: Model, hashes: dict[str, str]
) -> None:
    assert hashes[str(case)] == hashlib.sha256(model.dump()).hexdigest()


def test_the_matrix_is_not_changed(case: Case, model: Model, matrix: Matrix) -> None:
    given = matrix.copy()
    given.flags.writeable = False
    model.predict(given)
    assert np.array_equal(given, matrix, equal_nan=True)


def test_the_scores_are_the_callers_to_keep(case: Case, model: Model, matrix: Matrix) -> None:
    first = model.predict(matrix[:100])
    kept = first.copy()
    model.predict(matrix[100:200])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("misfit", "sentence"),
    [
        (np.zeros((3, N_FEATURES + 1), np.float32), r"shape \(3, 6\), and the model takes \(n, 5\)"),
        (np.zeros((3, N_FEATURES - 1), np.float32), r"shape \(3, 4\), and the model takes \(n, 5\)"),
        (np.zeros(N_FEATURES, np.float32), r"shape \(5,\), and the model takes \(n, 5\)"),
        (np.zeros((3, N_FEATURES), np.float64), "is float64, and the model takes float32"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(model: Model, misfit: Matrix, sentence: str) -> None:
    with pytest.raises(ModelInputInvalid, match=sentence):
        model.predict(misfit)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_payload_is_refused(case: Case, model: Model, share: float) -> None:
    payload = model.dump()
    with pytest.raises(ModelPayloadInvalid):
        case.type.load(payload[: int(len(payload) * share)])


@pytest.mark.parametrize("size", [1, 10, 10_000])
def test_random_bytes_are_refused(case: Case, size: int) -> None:
    with pytest.raises(ModelPayloadInvalid):
        case.type.load(np.random.default_rng(size).bytes(size))


def test_a_payload_with_something_after_its_end_is_refused(case: Case, model: Model) -> None:
    with pytest.raises(ModelPayloadInvalid):
        case.type.load(model.dump() + b"more")


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelPayloadInvalid):
        case.type.load(pickle.dumps(_Gadget(f"touch {tmp_path / 'ran'}")))
    assert not (tmp_path / "ran").exists()


def test_a_learner_loaded_again_goes_on_learning_the_same(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    matrix, labels = case.data()
    loaded = _copy(case, learner)
    for copy in (learner, loaded):
        copy.learn(matrix[::-1], labels[::-1])
    assert loaded.canonical() == learner.canonical()
    assert np.array_equal(loaded.predict(matrix), learner.predict(matrix))


def test_what_is_learned_depends_on_the_order_of_rows_but_not_on_the_batches(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    matrix, labels = case.data()
    in_pieces, reversed_order = (_copy(case, learner) for _ in range(2))
    learner.learn(matrix, labels)
    reversed_order.learn(matrix[::-1], labels[::-1])
    for start, end in ((0, 1), (1, 1), (1, 400), (400, 1000)):
        in_pieces.learn(matrix[start:end], labels[start:end])
    assert (in_pieces.canonical() == learner.canonical()) == learner.by_row
    assert (reversed_order.canonical() != learner.canonical()) or not learner.by_row


def test_learning_tells_what_each_row_scored_before(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    matrix, labels = case.data()
    size = 1 if learner.by_row else 50
    for start in range(0, 200, size):
        rows = slice(start, start + size)
        expected = learner.predict(matrix[rows])
        scores = learner.learn(matrix[rows], labels[rows])
        assert scores.shape == expected.shape
        # river's logistic regression has seen the row's scale by then, though not its label.
        assert np.abs(scores - expected).max() <= (0.02 if case.algorithm == "river-logistic" else 0)


def test_the_canonical_state_is_blind_to_dumping_and_sees_learning(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    matrix, labels = case.data()
    loaded = _copy(case, learner)
    assert loaded.canonical() == learner.canonical()
    for copy in (learner, loaded):
        copy.learn(matrix[:300], labels[:300])
    assert loaded.canonical() == learner.canonical()
    loaded.learn(matrix[300:301], labels[300:301])
    assert loaded.canonical() != learner.canonical()


def test_a_parameter_that_it_does_not_have_is_refused(learned: tuple[Case, Learner]) -> None:
    case, learner = learned
    for make in (partial(type(learner), N_FEATURES, case.classes), learner.retune):
        with pytest.raises(ModelParametersInvalid, match=f"{case.algorithm} has no parameter 'magic'; it has: "):
            make(magic=1)


def test_what_it_has_may_be_asked_for_again(learning: tuple[Case, Learner]) -> None:
    _, learner = learning
    before = learner.canonical()
    learner.retune()
    assert learner.canonical() == before


def test_learning_changes_no_input(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    (matrix, labels), weights = case.data(), np.ones(1000)
    for array in (matrix, labels, weights):
        array.flags.writeable = False
    learner.learn(matrix, labels, weights)
    assert np.array_equal(matrix, case.data()[0], equal_nan=True)
    assert np.array_equal(labels, case.data()[1])
    assert (weights == 1).all()


def test_scoring_learns_nothing(learned: tuple[Case, Learner]) -> None:
    case, learner = learned
    before = learner.dump()
    learner.predict(case.data()[0])
    assert learner.dump() == before


def test_no_weights_are_weights_of_one_and_others_count(learning: tuple[Case, Learner]) -> None:
    case, learner = learning
    matrix, labels = case.data()
    same, heavier = (_copy(case, learner) for _ in range(2))
    learner.learn(matrix, labels)
    same.learn(matrix, labels, np.ones(1000))
    heavier.learn(matrix, labels, np.full(1000, 2.0))
    assert same.canonical() == learner.canonical()
    assert heavier.canonical() != learner.canonical()


@pytest.mark.parametrize("weight", [0.0, 1e-6, 1e6])
def test_the_extreme_weights_are_learned_from(learning: tuple[Case, Learner], weight: float) -> None:
    case, learner = learning
    matrix, labels = case.data()
    learner.learn(matrix[:50], labels[:50], np.resize([weight, 1.0], 50))
    assert np.isfinite(learner.predict(matrix)).all()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda matrix, labels, weights: (matrix[:, :-1], labels, weights), "takes"),
        (lambda matrix, labels, weights: (matrix, labels[:-1], weights), "labels must be"),
        (lambda matrix, labels, weights: (matrix, labels + 3, weights), "labels must be"),
        (lambda matrix, labels, weights: (matrix, labels - 1, weights), "labels must be"),
        (lambda matrix, labels, weights: (matrix, labels.astype(np.float64), weights), "labels must be"),
        (lambda matrix, labels, weights: (matrix, labels, weights[:-1]), "weights must be"),
        (lambda matrix, labels, weights: (matrix, labels, -weights), "weights must be"),
        (lambda matrix, labels, weights: (matrix, labels, weights * np.nan), "weights must be"),
        (lambda matrix, labels, weights: (matrix, labels, weights * 1.1e6), "that are 0 or from 1e-06 to 1000000.0"),
        (lambda matrix, labels, weights: (matrix, labels, weights * 5e-324), "that are 0 or from 1e-06 to 1000000.0"),
    ],
)
def test_what_cannot_be_learned_is_refused_and_leaves_no_trace(
    learned: tuple[Case, Learner], spoil: Callable[..., tuple[Matrix, np.ndarray, np.ndarray]], sentence: str
) -> None:
    case, learner = learned
    before = learner.dump()
    with pytest.raises(ModelInputInvalid, match=sentence):
        learner.learn(*spoil(*case.data(), np.ones(1000)))
    assert learner.dump() == before
