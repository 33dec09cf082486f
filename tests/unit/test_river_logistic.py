"""The river model against river itself."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from river import linear_model, multiclass, optim, preprocessing
from river.base import Classifier

from ml.errors import ModelInputInvalid, ModelPayloadInvalid
from ml.models.protocol import Labels, Matrix
from ml.models.river_logistic import CLASSES_IN_PICKLE, RiverLogisticModel
from ml.models.sealing import header, seal

HEADER = header("river-logistic")


def _data(classes: int, rows: int = 400) -> tuple[Matrix, Labels]:
    random = np.random.default_rng(3)
    matrix = (random.normal(size=(rows, 4)) * [1, 1e4, 1e-4, 0] + [0, 1e6, 0, 2]).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    matrix[5] = np.nan
    return matrix, random.integers(max(classes, 2), size=rows)


def _river(classes: int) -> Any:
    regression: Classifier = linear_model.LogisticRegression(optim.SGD(0.05))
    last = regression if classes == 1 else multiclass.OneVsRestClassifier(regression)
    return preprocessing.StandardScaler() | last


def _known(row: list[float]) -> dict[int, float]:
    return {feature: value for feature, value in enumerate(row) if value == value}


def _score(pipeline: Any, row: list[float], classes: int) -> list[float]:
    shares = pipeline.predict_proba_one(_known(row))
    return [shares[True]] if classes == 1 else [shares.get(label, 0.0) for label in range(classes)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
def test_its_state_is_rivers_own_to_the_last_digit(classes: int, weighted: bool) -> None:
    matrix, labels = _data(classes)
    weights = np.random.default_rng(0).uniform(0, 3, len(labels)) if weighted else None
    model, pipeline = RiverLogisticModel(4, classes, learning_rate=0.05), _river(classes)
    model.learn(matrix, labels, weights)
    for index, (row, label) in enumerate(zip(matrix.tolist(), labels.tolist(), strict=True)):
        extra = {} if weights is None else {"w": float(weights[index])}
        pipeline.learn_one(_known(row), label, **extra)
    _, _, scaler, classifier = pickle.loads(model.dump()[len(HEADER) + 4 :])
    own_scaler, own_classifier = pipeline.steps.values()
    assert (scaler.counts, scaler.means, scaler.vars) == (own_scaler.counts, own_scaler.means, own_scaler.vars)
    assert _parameters(classifier) == _parameters(own_classifier)


def _parameters(classifier: Any) -> Any:
    each = getattr(classifier, "classifiers", {None: classifier})
    return {label: (one.weights, one.intercept, one.optimizer.n_iterations) for label, one in each.items()}


@pytest.mark.parametrize("learned", [1, 2, 20, 400])
@pytest.mark.parametrize("classes", [1, 4])
def test_its_scores_are_rivers_own(classes: int, learned: int) -> None:
    matrix, labels = _data(classes)
    model, pipeline = RiverLogisticModel(4, classes, learning_rate=0.05), _river(classes)
    model.learn(matrix[:learned], labels[:learned])
    for row, label in zip(matrix[:learned].tolist(), labels[:learned].tolist(), strict=True):
        pipeline.learn_one(_known(row), label)
    expected = np.array([_score(pipeline, row, classes) for row in matrix.tolist()])
    assert np.abs(model.predict(matrix).reshape(expected.shape) - expected).max() <= 1e-12


def test_scores_saturate_as_rivers_do() -> None:
    model, pipeline = RiverLogisticModel(1), _river(1)
    model.learn(np.array([[0], [1], [2]], np.float32), np.array([0, 1, 1]))
    for value, label in ((0.0, 0), (1.0, 1), (2.0, 1)):
        pipeline.learn_one({0: value}, label)
    extremes = np.array([[-1e30], [1e30]], np.float32)
    assert model.predict(extremes).tolist() == [_score(pipeline, [value], 1)[0] for value in extremes[:, 0].tolist()]
    assert set(model.predict(extremes)) == {0.0, 1.0}


@pytest.mark.parametrize(("classes", "share"), [(1, 0.5), (3, 1 / 3)])
def test_before_anything_is_learned_every_outcome_is_equally_likely(classes: int, share: float) -> None:
    assert RiverLogisticModel(2, classes).predict(np.ones((2, 2), np.float32)) == pytest.approx(share)


def test_a_class_that_was_never_seen_scores_zero() -> None:
    model = RiverLogisticModel(1, classes=3)
    model.learn(np.array([[1], [2]], np.float32), np.array([0, 2]))
    scores = model.predict(np.array([[1.5]], np.float32))[0]
    assert scores[1] == 0
    assert scores[0] > 0
    assert scores[2] > 0


def test_a_missing_value_scores_as_the_features_mean() -> None:
    model = RiverLogisticModel(2)
    model.learn(np.array([[1, 5], [3, 7], [2, np.nan]], np.float32), np.array([0, 1, 1]))
    missing, mean = np.array([[1, np.nan], [1, 6]], np.float32)
    assert model.predict(missing[None]) == pytest.approx(model.predict(mean[None]), abs=1e-12)


def test_an_infinite_value_is_not_learned() -> None:
    model = RiverLogisticModel(1)
    with pytest.raises(ModelInputInvalid, match="infinite"):
        model.learn(np.array([[1], [np.inf]], np.float32), np.array([0, 1]))


def test_the_pickle_may_name_what_it_needs_and_nothing_else() -> None:
    needed: set[tuple[str, str]] = set()

    class Recorder(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            needed.add((module, name))
            return super().find_class(module, name)

    for classes in (1, 3):
        model = RiverLogisticModel(4, classes)
        model.learn(*_data(classes))
        Recorder(io.BytesIO(model.dump()[len(HEADER) + 4 :])).load()
    assert needed == CLASSES_IN_PICKLE


def test_a_hostile_pickle_behind_the_right_header_and_checksum_is_refused() -> None:
    with pytest.raises(ModelPayloadInvalid, match=r"wants builtins\.eval, which is not on the list"):
        RiverLogisticModel.load(seal("river-logistic", (1, 1, preprocessing.StandardScaler(), eval)))


@pytest.mark.parametrize(
    "state",
    [
        None,
        (1, 1, None, None),
        (1, 1, preprocessing.StandardScaler(), preprocessing.StandardScaler()),
        (1, 3, preprocessing.StandardScaler(), linear_model.LogisticRegression()),
    ],
    ids=["nothing", "no parts", "no classifier", "a binary classifier for three classes"],
)
def test_a_pickle_of_something_else_is_refused(state: object) -> None:
    with pytest.raises(ModelPayloadInvalid, match="something else than a scaler and a classifier"):
        RiverLogisticModel.load(seal("river-logistic", state))


def test_another_format_version_is_named() -> None:
    payload = RiverLogisticModel(1).dump().replace(b"river-logistic 1", b"river-logistic 2", 1)
    with pytest.raises(ModelPayloadInvalid, match="does not begin with b'penstock river-logistic 1"):
        RiverLogisticModel.load(payload)


def test_any_changed_byte_is_noticed() -> None:
    model = RiverLogisticModel(4)
    model.learn(*_data(1))
    payload = model.dump()
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 1
        with pytest.raises(ModelPayloadInvalid):
            RiverLogisticModel.load(bytes(damaged))
