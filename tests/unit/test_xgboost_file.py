"""What XGBoost would end the process on must not reach it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.errors import ModelPayloadInvalid
from ml.models import ubj
from ml.models.xgboost_file import XGBoostFile, inspect
from ml.models.xgboost_model import XGBoostModel


def _booster(names: list[str] | None = None, rounds: int = 5, **parameters: Any) -> xgboost.Booster:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(300, 3)).astype(np.float32)
    labels = (matrix[:, 0] + matrix[:, 1] ** 2 > 0.5).astype(int)
    task = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **parameters}
    return xgboost.train(task, xgboost.DMatrix(matrix, labels, feature_names=names, nthread=1), rounds)


@pytest.fixture(scope="module")
def payload() -> bytes:
    return bytes(_booster().save_raw("ubj"))


def test_a_file_says_what_it_takes_and_gives(payload: bytes) -> None:
    assert inspect(payload) == XGBoostFile(n_features=3, classes=1, feature_names=())
    several = _booster(["x", "y", "ü"], objective="multi:softprob", num_class=4)
    assert inspect(bytes(several.save_raw("ubj"))) == XGBoostFile(3, 4, ("x", "y", "ü"))


def test_the_parsed_document_is_the_one_that_xgboost_wrote_as_json(payload: bytes) -> None:
    import json

    expected = json.loads(_booster().save_raw("json"))
    assert _plain(ubj.parse(payload)) == pytest.approx(expected) or _plain(ubj.parse(payload)) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"tree_method": "exact", "gamma": 3},
        {"grow_policy": "lossguide", "max_leaves": 5},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"objective": "multi:softprob", "num_class": 2, "num_parallel_tree": 2},
        {"gamma": 1000},
    ],
    ids=str,
)
def test_every_kind_of_forest_passes(parameters: dict[str, Any]) -> None:
    booster = _booster(**parameters)
    matrix = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    assert np.array_equal(XGBoostModel.from_booster(booster).predict(matrix), booster.inplace_predict(matrix))


def test_memory_grows_with_the_model() -> None:
    small, large = (XGBoostModel.from_booster(_booster(rounds=rounds)) for rounds in (5, 50))
    assert large.memory_bytes > 5 * small.memory_bytes


def test_a_model_made_from_a_booster_is_a_copy() -> None:
    booster = _booster()
    model = XGBoostModel.from_booster(booster)
    before = model.dump()
    booster.set_param({"learning_rate": 0.9})
    booster.update(xgboost.DMatrix(np.ones((4, 3), np.float32), [0, 1, 1, 1], nthread=1), 5)
    assert model.dump() == before


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"objective": "binary:logitraw"}, "objective 'binary:logitraw'; it must be binary:logistic or multi:softprob"),
        ({"objective": "multi:softmax", "num_class": 2}, "objective 'multi:softmax'"),
        ({"objective": "reg:squarederror"}, "objective 'reg:squarederror'"),
        ({"booster": "dart"}, "is a 'dart' booster; it must be 'gbtree'"),
        ({"booster": "gblinear"}, "is a 'gblinear' booster"),
        (
            {"objective": "multi:softprob", "num_class": 2, "multi_strategy": "multi_output_tree"},
            "has a tree for all classes",
        ),
    ],
    ids=str,
)
def test_a_model_whose_scores_would_mean_something_else_is_refused(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelPayloadInvalid, match=sentence):
        XGBoostModel.from_booster(_booster(**parameters))


def test_xgboosts_json_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelPayloadInvalid, match=r"not a whole XGBoost model in UBJ .*; save it with booster.save_mo"):
        XGBoostModel.load(bytes(_booster().save_raw("json")))


def test_a_file_cut_off_anywhere_is_refused(payload: bytes) -> None:
    for size in range(len(payload)):
        with pytest.raises(ModelPayloadInvalid, match="not a whole XGBoost model"):
            inspect(payload[:size])


def test_a_file_that_goes_on_is_refused(payload: bytes) -> None:
    with pytest.raises(ModelPayloadInvalid, match="goes on after its end"):
        inspect(payload + b"}")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused_in_one_way_or_not_at_all(payload: bytes, data: st.DataObject) -> None:
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        inspect(bytes(damaged))
    except ModelPayloadInvalid as refusal:
        assert "XGBoost model" in str(refusal)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_only_begin_like_a_model_are_refused(payload: bytes, tail: bytes) -> None:
    with pytest.raises(ModelPayloadInvalid):
        inspect(payload[:40] + tail)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ModelPayloadInvalid, match="recursion"):
        inspect(b"[#L\0\0\0\0\0\0\0\1" * 100_000)


@pytest.mark.parametrize(
    ("array", "node", "value", "reason"),
    [
        ("left_children", 0, 1_000_000, "a child is no node"),
        ("right_children", 0, -2, "a child is no node"),
        ("left_children", 1, 0, "a child is no node"),
        ("right_children", 1, 1, "a child has two parents"),
        ("split_indices", 0, 3, "a split is on no feature"),
        ("split_indices", 0, -1, "a split is on no feature"),
        ("left_children", 0, -1, "a leaf has a child"),
    ],
)
def test_a_tree_that_leads_out_of_itself_or_in_a_circle_is_refused(
    payload: bytes, array: str, node: int, value: int, reason: str
) -> None:
    with pytest.raises(ModelPayloadInvalid, match=reason):
        inspect(_edit(payload, array, node, value))


def _edit(payload: bytes, array: str, index: int, value: int) -> bytes:
    """Return `payload` with one number changed in the first array of that name."""
    start = payload.index(array.encode() + b"[$l#L") + len(array) + 5 + 8 + 4 * index
    return payload[:start] + value.to_bytes(4, "big", signed=True) + payload[start + 4 :]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda p: _edit(p, "tree_info", 2, 1), "a tree belongs to no class"),
        (lambda p: _edit(p, "iteration_indptr", 5, 6), "the rounds do not hold the trees"),
        (lambda p: _edit(p, "iteration_indptr", 2, 4), "the rounds are out of order"),
        (
            lambda p: p.replace(b"num_treesSL\0\0\0\0\0\0\0\x015", b"num_treesSL\0\0\0\0\0\0\0\x016"),
            "trees are missing",
        ),
    ],
)
def test_a_forest_that_contradicts_itself_is_refused(
    payload: bytes, edit: Callable[[bytes], bytes], reason: str
) -> None:
    with pytest.raises(ModelPayloadInvalid, match=reason):
        inspect(edit(payload))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
