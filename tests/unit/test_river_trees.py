"""The trees against river's own, and what they change of it."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from river import forest, tree

from ml.errors import ModelParametersInvalid, ModelPayloadInvalid
from ml.models.protocol import Labels, Matrix
from ml.models.river_trees import (
    Leaf,
    Observer,
    RiverAdaptiveForestModel,
    RiverHoeffdingTreeModel,
    Tree,
    _RiverClassifier,
)
from ml.models.sealing import header, seal

KINDS = [RiverHoeffdingTreeModel, RiverAdaptiveForestModel]
Kind = type[RiverHoeffdingTreeModel] | type[RiverAdaptiveForestModel]


def _data(classes: int, rows: int = 3000) -> tuple[Matrix, Labels]:
    """Rows with missing values whose meaning turns around half-way, so that a forest replaces its trees."""
    random = np.random.default_rng(3)
    matrix = random.normal(size=(rows, 4)).astype(np.float32)
    labels = (matrix[:, 0] + matrix[:, 1] > 0).astype(np.int64) if classes == 1 else matrix[:, :classes].argmax(axis=1)
    labels[rows // 2 :] = labels[rows // 2 :][::-1]
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels


def _known(row: list[float]) -> dict[int, float]:
    return {feature: value for feature, value in enumerate(row) if value == value}


@pytest.mark.parametrize("classes", [1, 4])
def test_a_hoeffding_tree_scores_as_rivers_at_every_step(classes: int) -> None:
    matrix, labels = _data(classes)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(labels))
    river = tree.HoeffdingTreeClassifier(grace_period=50, delta=0.5, tau=0.2)
    model = RiverHoeffdingTreeModel(4, classes, grace_period=50, delta=0.5, tau=0.2)
    scores = model.learn(matrix, labels, weights)
    for row, label, weight, score in zip(
        matrix.tolist(), labels.tolist(), weights.tolist(), scores.tolist(), strict=True
    ):
        shares = river.predict_proba_one(_known(row))
        if shares:
            assert score == (shares.get(1, 0.0) if classes == 1 else [shares.get(k, 0.0) for k in range(classes)])
        river.learn_one(_known(row), label, w=weight)
    assert river.n_branches > 5, "the tree did not grow, so the test shows little"


def test_a_forest_scores_as_rivers_with_missing_values_and_replaced_trees() -> None:
    matrix, labels = _data(1, rows=1500)
    river, model = (
        forest.ARFClassifier(n_models=3, max_features=2, seed=1),
        RiverAdaptiveForestModel(4, n_models=3, seed=1),
    )
    scores = model.learn(matrix, labels)
    for row, label, score in zip(matrix.tolist(), labels.tolist(), scores.tolist(), strict=True):
        if len(river):
            assert score == river.predict_proba_one(_known(row)).get(1, 0.0)
        river.learn_one(_known(row), label)
    assert river.n_drifts_detected() > 0, "no tree was replaced, so the test shows little"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "share"), [(1, 0.5), (3, 1 / 3)])
def test_before_anything_is_learned_every_outcome_is_equally_likely(kind: Kind, classes: int, share: float) -> None:
    model = kind(2, classes)
    before = model.dump()
    assert model.predict(np.ones((2, 2), np.float32)) == pytest.approx(share)
    assert model.dump() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_was_never_seen_scores_zero(kind: Kind) -> None:
    model = kind(1, classes=3)
    model.learn(np.array([[1], [2], [3]], np.float32), np.array([0, 2, 2]))
    scores = model.predict(np.array([[1.5]], np.float32))[0]
    assert scores[1] == 0
    assert scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_weight_is_passed_over(kind: Kind) -> None:
    matrix, labels = _data(1, rows=200)
    weights = np.tile([0.0, 1.0], 100)
    whole, half = kind(4), kind(4)
    whole.learn(matrix, labels, weights)
    half.learn(matrix[1::2], labels[1::2])
    assert whole.canonical() == half.canonical()


def test_a_forest_draws_a_row_more_often_the_more_it_weighs() -> None:
    matrix, labels = _data(1, rows=100)
    light, heavy, heaviest = (RiverAdaptiveForestModel(4, n_models=1) for _ in range(3))
    for model, weight in ((light, 0.5), (heavy, 2.0), (heaviest, 1e6)):
        model.learn(matrix, labels, np.full(100, weight))
    drawn = [sum(t._train_weight_seen_by_model for t in model._classifier) for model in (light, heavy, heaviest)]
    assert 200 < drawn[0] < 400
    assert 1000 < drawn[1] < 1400
    assert 55_000 < drawn[2] < 65_000


def test_weights_as_far_apart_as_can_be_spoil_no_score() -> None:
    matrix, labels = _data(3, rows=400)
    weights = np.tile([1e-6, 1e6, 1e-6, 1.0], 100)
    scores = RiverHoeffdingTreeModel(4, 3, grace_period=20, delta=0.5, tau=0.2).learn(matrix, labels, weights)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.sum(axis=1) == pytest.approx(1)


def test_a_class_of_next_to_no_weight_has_no_share() -> None:
    leaf = Leaf({0: 5e-324, 1: 1e6}, 0, Observer())
    assert leaf.prediction({}, tree=Tree()) == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_its_size_is_known_from_its_bytes_until_it_learns(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, labels = _data(1, rows=400)
    model = kind(4, grace_period=20, tau=0.5)
    model.learn(matrix[:30], labels[:30])
    loaded = kind.load(model.dump())
    with monkeypatch.context() as patch:
        patch.delattr(_RiverClassifier, "dump")
        before = {copy.memory_bytes for copy in (model, loaded)}
    model.learn(matrix[30:], labels[30:])
    assert before == {loaded.memory_bytes}
    assert model.memory_bytes > loaded.memory_bytes


def test_the_seed_decides_what_a_forest_draws() -> None:
    data = _data(1, rows=100)
    first, same, other = (RiverAdaptiveForestModel(4, n_models=2, seed=seed) for seed in (1, 1, 2))
    for model in (first, same, other):
        model.learn(*data)
    assert first.canonical() == same.canonical()
    assert first.canonical() != other.canonical()


@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_bounds_the_tree(kind: Kind) -> None:
    model = kind(4, max_depth=2, grace_period=20, delta=0.5, tau=0.5)
    model.learn(*_data(1, rows=600))
    trees = [model._classifier] if kind is RiverHoeffdingTreeModel else model._classifier.data
    assert max(grown.n_leaves for grown in trees) <= 4
    assert max(grown.height for grown in trees) > 1, "nothing grew, so nothing was bounded"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"grace": 3}, "has no parameter 'grace'; it has: .*grace_period"),
        ({"grace_period": 0}, "cannot take these parameters: .*>= 1.*grace_period"),
        ({"delta": "small"}, "cannot take these parameters: .*delta"),
        ({"split_criterion": "magic"}, "cannot take these parameters: .*'magic'.*split_criterion"),
    ],
)
def test_a_parameter_that_it_cannot_use_is_refused(kind: Kind, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelParametersInvalid, match=sentence):
        kind(2, **parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_does_not_change_on_the_way(kind: Kind) -> None:
    model = kind.load(kind(2, grace_period=30).dump())
    model.retune(grace_period=30)
    with pytest.raises(ModelParametersInvalid, match="begun with grace_period = 30, which cannot become 31"):
        model.retune(grace_period=31)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pickle_may_name_what_it_needs_and_nothing_else(kind: Kind) -> None:
    needed: set[tuple[str, str]] = set()

    class Recorder(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            needed.add((module, name))
            return super().find_class(module, name)

    model = kind(4, grace_period=50, tau=0.5)
    model.learn(*_data(1, rows=1500))
    Recorder(io.BytesIO(model.dump()[len(header(kind.algorithm)) + 4 :])).load()
    assert needed == kind._classes_in_pickle


@pytest.mark.parametrize("kind", KINDS)
def test_a_sealed_payload_of_something_else_is_refused(kind: Kind) -> None:
    for state in (None, (1, 1, b"{}", None), (1, 1, b"{}", kind(1))):
        with pytest.raises(ModelPayloadInvalid):
            kind.load(seal(kind.algorithm, state))
    other = KINDS[1 - KINDS.index(kind)]
    with pytest.raises(ModelPayloadInvalid, match=f"this is not a {kind.algorithm} model"):
        kind.load(other(1).dump())
