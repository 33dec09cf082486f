"""What every trainer must do, whichever package it comes from."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.models.registry import model_type
from ml.training.losses import log_losses
from ml.training.protocol import Fitted, Stopped, Trainer, TrainingImpossible, Unwatched
from ml.training.registry import trainer_type, trainers
from ml.training.table import Table

NAMES = ("one", "two", "three", "four", "five")
# Small, and such that something is drawn at random where the trainer can.
PARAMETERS: dict[str, dict[str, Any]] = {
    "xgboost": {"rounds": 101, "max_depth": 3, "subsample": 0.8, "colsample_bytree": 0.8},
    "sklearn": {"max_iter": 26, "max_leaf_nodes": 5, "max_features": 0.8},
}


@dataclass(frozen=True)
class Case:
    """A trainer and a task."""

    trainer: str
    classes: int

    def __str__(self) -> str:
        return f"{self.trainer}-{self.classes}"

    def make(self, **changes: Any) -> Trainer:
        settings: dict[str, Any] = {"seed": 3, **PARAMETERS[self.trainer], **changes}
        return trainer_type(self.trainer)(NAMES, self.classes, **settings)

    def data(self) -> tuple[Table, Table]:
        return _table(self.classes, 800, 1), _table(self.classes, 300, 2)


CASES = [Case(name, classes) for name in PARAMETERS for classes in (1, 3)]


class Watching(Unwatched):
    """Writes down what it is told."""

    def __init__(self, patience: int = 10**9) -> None:
        self.seen: list[tuple[int, int, float | None]] = []
        self.kept: list[bytes] = []
        self.patience = patience

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        self.seen.append((done, of, loss))
        if len(self.seen) == self.patience:
            raise Stopped("seen enough")

    def keep(self, payload: bytes) -> None:
        self.kept.append(payload)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@cache
def _fitted(case: Case) -> tuple[Fitted, Watching]:
    watch = Watching()
    return case.make().fit(*case.data(), watch), watch


def hash_fits() -> None:
    """Print the hash of what each case comes to."""
    print(json.dumps({str(case): hashlib.sha256(_fitted(case)[0].payload).hexdigest() for case in CASES}))


def _table(classes: int, rows: int, seed: int) -> Table:
    """A tenth of the values missing; the first columns tell the class, with noise; nobody knows the last one."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, len(NAMES))).astype(np.float32)
    told = matrix + random.normal(size=matrix.shape)
    labels = (told[:, 0] > 0.3).astype(np.int64) if classes == 1 else told[:, :classes].argmax(axis=1)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    matrix[:, -1] = np.nan
    order = np.arange(rows)
    return Table(matrix, labels, random.uniform(0.5, 2, rows), order, order, np.zeros(rows))


def test_every_installed_trainer_is_tested_here() -> None:
    assert set(trainers()) == set(PARAMETERS), "say here what its parameters are for a small fit"


def test_the_class_found_by_a_name_goes_by_that_name_and_is_a_trainer(case: Case) -> None:
    assert trainer_type(case.trainer).name == case.trainer
    assert isinstance(case.make(), Trainer)


def test_its_algorithm_opens_what_it_made_and_the_loss_is_that_on_the_validation_data(case: Case) -> None:
    fitted, _ = _fitted(case)
    assert fitted.algorithm == trainer_type(case.trainer).algorithm
    model = model_type(fitted.algorithm).load(fitted.payload)
    assert (model.n_features, model.classes) == (len(NAMES), case.classes)
    _, validation = case.data()
    losses = log_losses(model.predict(validation.matrix), validation.labels)
    assert fitted.loss == pytest.approx(np.average(losses, weights=validation.weights), rel=1e-5)


def test_it_learns(case: Case) -> None:
    fitted, _ = _fitted(case)
    _, validation = case.data()
    shares = np.bincount(validation.labels, validation.weights) / validation.weights.sum()
    assert fitted.loss < -0.9 * (shares * np.log(shares)).sum(), "little better than a model that knows no feature"


def test_the_same_data_gives_the_same_bytes_on_any_number_of_threads(case: Case) -> None:
    for threads in (1, 2):
        assert case.make(threads=threads).fit(*case.data(), Unwatched()) == _fitted(case)[0]


def test_the_same_data_gives_the_same_bytes_in_another_process() -> None:
    program = "from tests.contract.test_trainers import hash_fits; hash_fits()"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        str(case): hashlib.sha256(_fitted(case)[0].payload).hexdigest() for case in CASES
    }


def test_another_seed_gives_another_model(case: Case) -> None:
    assert case.make(seed=4).fit(*case.data(), Unwatched()).payload != _fitted(case)[0].payload


def test_the_parameters_that_it_tells_give_the_same_model_again(case: Case) -> None:
    fitted, _ = _fitted(case)
    again: Any = {name: value for name, value in fitted.parameters.items() if value is not None}
    assert trainer_type(case.trainer)(NAMES, case.classes, **again).fit(*case.data(), Unwatched()) == fitted


def test_the_watch_is_told_each_step_with_its_loss_and_the_lowest_one_counts(case: Case) -> None:
    fitted, watch = _fitted(case)
    done, of, losses = zip(*watch.seen, strict=True)
    assert list(done) == sorted(set(done))
    assert set(of) == {of[0]}
    assert done[-1] <= of[0]
    assert min(losses) == fitted.loss
    assert dict(zip(losses, done, strict=True))[fitted.loss] == fitted.rounds


def test_a_watch_that_has_seen_enough_stops_it(case: Case) -> None:
    watch = Watching(patience=2)
    with pytest.raises(Stopped):
        case.make().fit(*case.data(), watch)
    assert len(watch.seen) == 2


def test_a_fit_taken_up_again_comes_to_the_same_model(case: Case) -> None:
    fitted, watch = _fitted(case)
    for kept in watch.kept:
        again = Watching()
        assert case.make().fit(*case.data(), again, kept) == fitted
        assert len(again.seen) < len(watch.seen), "it did not go on, it began anew"


@pytest.mark.parametrize("resume", [b"", b"nonsense", b"{"])
def test_what_is_not_an_unfinished_fit_is_passed_over(case: Case, resume: bytes) -> None:
    assert case.make().fit(*case.data(), Unwatched(), resume) == _fitted(case)[0]


def test_the_unfinished_fit_of_other_data_is_passed_over(case: Case) -> None:
    train, validation = case.data()
    watch = Watching()
    case.make().fit(replace(train, weights=np.ones(len(train))), validation, watch)
    for kept in watch.kept:
        assert case.make().fit(train, validation, Unwatched(), kept) == _fitted(case)[0]


def test_the_data_is_not_changed(case: Case) -> None:
    parts = case.data()
    for table in parts:
        for array in (table.matrix, table.labels, table.weights, table.event_time_ms):
            array.flags.writeable = False
    assert case.make().fit(*parts, Unwatched()) == _fitted(case)[0]


def test_rows_that_weigh_next_to_nothing_teach_next_to_nothing(case: Case) -> None:
    train, validation = case.data()
    light = np.arange(len(train)) % 2 == 0
    wrong = np.where(light, (train.labels + 1) % max(case.classes, 2), train.labels)
    misled = case.make().fit(replace(train, labels=wrong), validation, Unwatched())
    told = replace(train, labels=wrong, weights=np.where(light, 1e-6, 1.0))
    assert case.make().fit(told, validation, Unwatched()).loss < 0.97 * misled.loss


def test_a_parameter_that_it_does_not_have_is_refused(case: Case) -> None:
    with pytest.raises(TrainingImpossible, match=r"has no parameter 'magic'.*; it has: .*learning_rate"):
        case.make(magic=1)


@pytest.mark.parametrize("value", [-1.0, "fast"])
def test_a_value_that_it_cannot_use_is_refused(case: Case, value: Any) -> None:
    with pytest.raises(TrainingImpossible, match="learning_rate"):
        case.make(learning_rate=value)


REFUSED_LATE: list[tuple[str, int, dict[str, Any]]] = [
    ("sklearn", 1, {"estimator": "sklearn.linear_model.LogisticRegression", "penalty": "l1"}),
    ("sklearn", 3, {"estimator": "sklearn.linear_model.LogisticRegression", "solver": "liblinear"}),
    ("sklearn", 1, {"estimator": "sklearn.ensemble.GradientBoostingClassifier", "loss": "exponential"}),
]


@pytest.mark.parametrize(("name", "classes", "parameters"), REFUSED_LATE, ids=lambda value: str(value)[-40:])
def test_what_only_a_fit_or_a_file_refuses_is_refused_before_the_fit(
    name: str, classes: int, parameters: dict[str, Any]
) -> None:
    with pytest.raises(TrainingImpossible, match="cannot take these parameters"):
        trainer_type(name)(NAMES, classes, **parameters)


def test_what_only_the_fit_to_all_rows_refuses_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = Case("sklearn", 1).data()
    monkeypatch.setattr("ml.training.sklearn_trainer.SklearnTrainer._require_storable", lambda _: None)
    name, classes, parameters = REFUSED_LATE[0]
    with pytest.raises(TrainingImpossible, match="LogisticRegression cannot take these parameters"):
        trainer_type(name)(NAMES, classes, **parameters).fit(train, validation, Unwatched())


def test_a_tree_may_be_given_more_rows_than_its_parameters_are_tried_on() -> None:
    forest: dict[str, Any] = {"estimator": "sklearn.ensemble.RandomForestClassifier", "n_estimators": 2}
    trainer = trainer_type("sklearn")(NAMES, 1, **forest, max_samples=700)
    assert trainer.fit(*Case("sklearn", 1).data(), Unwatched()).parameters["max_samples"] == 700


def test_one_class_only_is_refused(case: Case) -> None:
    train, validation = case.data()
    with pytest.raises(TrainingImpossible, match="the training data has 800 samples, all of class 1"):
        case.make().fit(replace(train, labels=np.ones(800, np.int64)), validation, Unwatched())


def test_a_class_that_was_never_seen_is_unlikely() -> None:
    for trainer in PARAMETERS:
        case = Case(trainer, 3)
        train, validation = case.data()
        fitted = case.make().fit(train.rows(train.labels != 1), validation, Unwatched())
        scores = model_type(fitted.algorithm).load(fitted.payload).predict(validation.matrix)
        assert scores.shape == (300, 3)
        assert scores[:, 1].mean() < 0.2


def test_no_validation_data_is_refused(case: Case) -> None:
    train, validation = case.data()
    for useless in (validation.rows(slice(0)), replace(validation, weights=np.zeros(300))):
        with pytest.raises(TrainingImpossible, match="validation data has no samples that count"):
            case.make().fit(train, useless, Unwatched())


def test_data_with_other_columns_is_refused(case: Case) -> None:
    train, validation = case.data()
    with pytest.raises(TrainingImpossible, match=r"the training data does not fit: .* takes \(n, 5\)"):
        case.make().fit(replace(train, matrix=train.matrix[:, 1:].copy()), validation, Unwatched())
