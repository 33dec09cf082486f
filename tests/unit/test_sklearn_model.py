"""Each classifier that the trainer offers serves row by row; what is not one of them does not open."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from ml.errors import ModelPayloadInvalid
from ml.models.sklearn_model import SklearnModel
from ml.training.protocol import TrainingImpossible, Unwatched
from ml.training.sklearn_trainer import SklearnTrainer
from ml.training.table import Table

NAMES = ("a", "b", "c")
GROWN = {"sklearn.ensemble.HistGradientBoostingClassifier": "max_iter"} | {
    f"sklearn.ensemble.{name}Classifier": "n_estimators" for name in ("RandomForest", "ExtraTrees", "GradientBoosting")
}
ALONE = (
    "sklearn.tree.DecisionTreeClassifier",
    "sklearn.linear_model.LogisticRegression",
    "sklearn.naive_bayes.GaussianNB",
)


def table_of(classes: int, seed: int, rows: int = 200) -> Table:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, 3)).astype(np.float32)
    labels = (matrix[:, 0] > 0).astype(np.int64) if classes == 1 else matrix.argmax(axis=1)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    order = np.arange(rows)
    return Table(matrix, labels, np.ones(rows), order, order, np.zeros(rows))


def trained(estimator: str, classes: int, threads: int = 1, **parameters: Any) -> SklearnModel:
    small = {GROWN[estimator]: 5} if estimator in GROWN else {}
    trainer = SklearnTrainer(NAMES, classes, threads=threads, estimator=estimator, **small, **parameters)
    fitted = trainer.fit(table_of(classes, 1), table_of(classes, 2), Unwatched())
    return SklearnModel.load(fitted.payload)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("estimator", [*GROWN, *ALONE])
def test_each_classifier_learns_and_scores_a_row_the_same_alone_and_in_any_batch(estimator: str, classes: int) -> None:
    model, judged = trained(estimator, classes), table_of(classes, 3)
    scores = model.predict(judged.matrix)
    guesses = (scores > 0.5).astype(np.int64) if classes == 1 else scores.argmax(axis=1)
    assert (guesses == judged.labels).mean() > 0.7
    alone = np.concatenate([model.predict(judged.matrix[row : row + 1]) for row in range(50)])
    assert np.array_equal(scores[:50], alone)


@pytest.mark.parametrize("estimator", [*GROWN, *ALONE])
def test_each_classifier_trained_again_on_more_threads_gives_the_same_bytes(estimator: str) -> None:
    assert trained(estimator, 1, threads=2).dump() == trained(estimator, 1).dump()


def test_logistic_regression_scores_as_the_library_does() -> None:
    model, rows = trained("sklearn.linear_model.LogisticRegression", 3), table_of(3, 3).matrix
    imputer, scaler, classifier = model._before[0], model._before[1], model._classifier
    expected = classifier.predict_proba(scaler.transform(imputer.transform(rows.astype(np.float64))))
    assert model.predict(rows) == pytest.approx(expected, abs=1e-12)


def test_boosting_stops_when_the_loss_no_longer_falls_and_keeps_the_best() -> None:
    trainer = SklearnTrainer(NAMES, early_stopping_rounds=20, max_iter=400, learning_rate=0.5, max_leaf_nodes=4)
    fitted = trainer.fit(table_of(1, 1), table_of(1, 2), Unwatched())
    classifier = SklearnModel.load(fitted.payload)._classifier
    assert classifier.n_iter_ == fitted.rounds < 400
    assert not fitted.notes


def test_a_fit_that_used_all_its_rounds_says_so() -> None:
    fitted = SklearnTrainer(NAMES, max_iter=20, learning_rate=0.01).fit(table_of(1, 1), table_of(1, 2), Unwatched())
    assert "still falling after 20 rounds" in fitted.notes[0]


@pytest.mark.parametrize("estimator", ["sklearn.cluster.KMeans", "os.system", "RandomForestClassifier"])
def test_an_estimator_that_is_not_offered_is_refused(estimator: str) -> None:
    with pytest.raises(TrainingImpossible, match=r"has no estimator .*; it has: sklearn.ensemble.ExtraTrees"):
        SklearnTrainer(NAMES, estimator=estimator)


@pytest.mark.parametrize("ours", ["random_state", "warm_start", "early_stopping", "validation_fraction"])
def test_what_would_shuffle_or_draw_otherwise_cannot_be_given(ours: str) -> None:
    with pytest.raises(TrainingImpossible, match=f"has no parameter '{ours}' here"):
        SklearnTrainer(NAMES, **{ours: 1})


def test_an_estimator_of_a_type_that_is_not_listed_is_not_written() -> None:
    clusters = KMeans(2, n_init=1).fit(np.eye(4))
    with pytest.raises(
        ModelPayloadInvalid, match=r"holds a sklearn.cluster._kmeans.KMeans \(ObjectNode\), which is not"
    ):
        SklearnModel.from_steps([clusters], 4, 1)


def rewritten(payload: bytes, change: Callable[[Any], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return the payload with another schema."""
    whole = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(payload)) as read, zipfile.ZipFile(whole, "w", compression) as made:
        for name in read.namelist():
            content = read.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                change(schema)
                content = json.dumps(schema).encode()
            made.writestr(name, content)
    return whole.getvalue()


@pytest.mark.parametrize(
    "node",
    [
        {"__module__": "os", "__class__": "system", "__loader__": "FunctionNode"},
        {"__module__": "builtins", "__class__": "eval", "__loader__": "TypeNode"},
        {"__module__": "functools", "__class__": "partial", "__loader__": "PartialNode", "content": {}},
        {"__module__": "operator", "__class__": "methodcaller", "__loader__": "OperatorFuncNode"},
        {"__module__": "sklearn.tree._tree", "__class__": "Tree", "__loader__": "ObjectNode"},
        {"__module__": "numpy", "__class__": "fromfile", "__loader__": "NdArrayNode"},
    ],
)
def test_a_file_that_names_what_is_not_allowed_is_refused(node: dict[str, Any]) -> None:
    payload = trained(ALONE[0], 1).dump()
    with pytest.raises(ModelPayloadInvalid, match="is not on the list of allowed types"):
        SklearnModel.load(rewritten(payload, lambda schema: schema["content"].update(more=node)))


def test_a_model_of_another_release_is_refused() -> None:
    def older(node: Any) -> None:
        for inner in node.values() if isinstance(node, dict) else node:
            if isinstance(inner, dict | list):
                older(inner)
        if isinstance(node, dict) and "_sklearn_version" in node:
            node["_sklearn_version"]["content"] = '"1.2.0"'

    with pytest.raises(ModelPayloadInvalid, match=r"made by scikit-learn 1.2.0, and .* is installed; train it anew"):
        SklearnModel.load(rewritten(trained(ALONE[0], 1).dump(), older))


def test_a_compressed_file_which_could_grow_without_bounds_is_refused() -> None:
    payload = rewritten(trained(ALONE[0], 1).dump(), lambda schema: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelPayloadInvalid, match="its zip is of another kind"):
        SklearnModel.load(payload)


def _damaged(field: str, value: int) -> DecisionTreeClassifier:
    classifier = DecisionTreeClassifier(random_state=0).fit(np.eye(3), [0, 1, 0])
    tree = classifier.tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    return classifier


@pytest.mark.parametrize(("field", "value"), [("left_child", 0), ("right_child", 99), ("feature", 3), ("feature", -1)])
def test_a_tree_that_leads_astray_is_refused_before_it_is_walked(field: str, value: int) -> None:
    with pytest.raises(ModelPayloadInvalid, match="a tree whose nodes do not hold together"):
        SklearnModel.from_steps([_damaged(field, value)], 3, 1)


def test_a_histogram_tree_that_leads_astray_is_refused() -> None:
    held = skops.io.loads(
        trained("sklearn.ensemble.HistGradientBoostingClassifier", 1).dump(),
        trusted=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
    )
    classifier = held["steps"][-1]
    classifier._predictors[0][0].nodes["left"][0] = 10**6
    with pytest.raises(ModelPayloadInvalid, match="a tree whose nodes do not hold together"):
        SklearnModel.from_steps([classifier], 3, 1)


def test_classes_that_are_not_the_streams_are_refused() -> None:
    forest = RandomForestClassifier(2, random_state=0).fit(np.eye(3), [1, 2, 1])
    with pytest.raises(ModelPayloadInvalid, match=r"knows the classes \[1, 2\], not its stream's"):
        SklearnModel.from_steps([forest], 3, 1)
    assert SklearnModel.from_steps([forest], 3, 3).predict(np.eye(3, dtype=np.float32))[:, 0].tolist() == [0, 0, 0]
