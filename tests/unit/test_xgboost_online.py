"""XGBoost that goes on learning: from nothing, from any XGBoost model, with a bounded number of trees."""

from typing import Any

import numpy as np
import pytest
import xgboost

from ml.errors import ModelParametersInvalid, ModelPayloadInvalid
from ml.models.protocol import Labels, Matrix
from ml.models.xgboost_model import XGBoostModel
from ml.models.xgboost_online import XGBoostOnlineModel


def _data(rows: int, seed: int = 0) -> tuple[Matrix, Labels]:
    matrix = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    return matrix, (matrix[:, 0] + matrix[:, 1] ** 2 > 0.5).astype(np.int64)


def _rounds(model: XGBoostOnlineModel) -> int:
    return model._booster.num_boosted_rounds()


def _plain(rounds: int, names: list[str] | None = None) -> bytes:
    rows = xgboost.DMatrix(*_data(500), feature_names=names, nthread=1)
    trained = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, rows, rounds)
    return bytes(trained.save_raw("ubj"))


@pytest.mark.parametrize(("classes", "share"), [(1, 0.5), (3, 1 / 3)])
def test_before_anything_is_learned_every_outcome_is_equally_likely(classes: int, share: float) -> None:
    assert XGBoostOnlineModel(2, classes).predict(np.ones((2, 2), np.float32)) == pytest.approx(share)


def test_each_batch_adds_rounds_and_what_was_scored_gets_better() -> None:
    model = XGBoostOnlineModel(3, rounds=2)
    errors = []
    for batch in range(40):
        matrix, labels = _data(100, seed=batch)
        errors.append(float(((model.learn(matrix, labels) - labels) ** 2).mean()))
    assert _rounds(model) == 80
    assert errors[0] == pytest.approx(0.25)
    assert np.mean(errors[-10:]) < 0.1


def test_beyond_the_limit_the_oldest_rounds_go() -> None:
    model = XGBoostOnlineModel(3, rounds=3, max_rounds=7)
    for batch in range(6):
        model.learn(*_data(50, seed=batch))
    assert _rounds(model) == 7
    grown = XGBoostOnlineModel(3, rounds=3, max_rounds=100)
    for batch in range(6):
        grown.learn(*_data(50, seed=batch))
    assert _rounds(grown) == 18
    assert len(model.dump()) < len(grown.dump())


def test_after_a_change_of_the_world_the_new_trees_take_over() -> None:
    model = XGBoostOnlineModel(3, rounds=2, max_rounds=40)
    for batch in range(120):
        matrix, labels = _data(100, seed=batch)
        model.learn(matrix, labels if batch < 60 else 1 - labels)
    matrix, labels = _data(500, seed=999)
    assert ((model.predict(matrix) > 0.5) == 1 - labels).mean() > 0.85


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_it_goes_on_from_a_model_that_was_trained_elsewhere(names: list[str] | None) -> None:
    payload = _plain(20, names)
    model = XGBoostOnlineModel.load(payload)
    matrix, labels = _data(200, seed=5)
    assert np.array_equal(model.predict(matrix), XGBoostModel.load(payload).predict(matrix))
    model.retune(rounds=2, max_rounds=10)
    before = ((model.predict(matrix) - labels) ** 2).mean()
    for _ in range(4):
        model.learn(matrix, labels)
    assert _rounds(model) == 28
    assert ((model.predict(matrix) - labels) ** 2).mean() < before
    for _ in range(4):
        model.learn(matrix, labels)
    assert _rounds(model) == 30, "those it was begun with count on top of max_rounds"


def test_its_snapshot_is_a_model_that_a_plain_scorer_can_open() -> None:
    model = XGBoostOnlineModel(3)
    model.learn(*_data(100))
    matrix, _ = _data(50, seed=1)
    assert np.array_equal(XGBoostModel.load(model.dump()).predict(matrix), model.predict(matrix))


def test_settings_survive_a_dump() -> None:
    model = XGBoostOnlineModel(3, rounds=5, max_rounds=8)
    model.learn(*_data(100))
    loaded = XGBoostOnlineModel.load(model.dump())
    loaded.learn(*_data(100))
    assert _rounds(loaded) == 8


def test_settings_that_make_no_sense_are_refused() -> None:
    model = XGBoostOnlineModel(3)
    for text, sentence in (("{", "are damaged"), ('{"parameters":{"rounds":0},"limit":3}', "are damaged .*>= 1")):
        model._booster.set_attr(penstock=text)
        with pytest.raises(ModelPayloadInvalid, match=f"the settings in this xgboost-online model {sentence}"):
            XGBoostOnlineModel.load(model.dump())


@pytest.mark.parametrize("parameters", [{"rounds": 0}, {"max_depth": 99}, {"learning_rate": 0}, {"max_bin": 1.5}])
def test_a_parameter_that_it_cannot_use_is_refused(parameters: dict[str, Any]) -> None:
    for attempt in (lambda: XGBoostOnlineModel(3, **parameters), lambda: XGBoostOnlineModel(3).retune(**parameters)):
        with pytest.raises(ModelParametersInvalid, match=f"xgboost-online cannot take .*{next(iter(parameters))}"):
            attempt()


def test_no_rows_teach_nothing() -> None:
    model = XGBoostOnlineModel(3)
    matrix, labels = _data(0)
    assert model.learn(matrix, labels).shape == (0,)
    assert _rounds(model) == 0
