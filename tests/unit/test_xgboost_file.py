"""What XGBoost would end the process on must not reach it."""

import contextlib
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
    task = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "verbosity": 0, **parameters}
    return xgboost.train(task, xgboost.DMatrix(matrix, labels, feature_names=names, nthread=1), rounds)


@pytest.fixture(scope="module")
def payload() -> bytes:
    return bytes(_booster().save_raw("ubj"))


def test_a_file_says_what_it_takes_and_gives(payload: bytes) -> None:
    assert inspect(payload) == XGBoostFile(n_features=3, classes=1, feature_names=())
    several = _booster(["x", "y", "ü"], objective="multi:softprob", num_class=4)
    assert inspect(bytes(several.save_raw("ubj"))) == XGBoostFile(3, 4, ("x", "y", "ü"))


def test_everything_that_xgboost_wrote_is_read(payload: bytes) -> None:
    assert _written(ubj.parse(payload)) == payload


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
def test_changed_bytes_are_refused_with_a_sentence_or_pass(payload: bytes, data: st.DataObject) -> None:
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelPayloadInvalid):
        inspect(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_only_begin_like_a_model_are_refused(payload: bytes, tail: bytes) -> None:
    with pytest.raises(ModelPayloadInvalid):
        inspect(payload[:40] + tail)


@pytest.mark.parametrize("array", [b"[#L", b"[$l#L"])
def test_a_negative_length_is_refused(array: bytes) -> None:
    with pytest.raises(ModelPayloadInvalid, match=r"no length|promises -4 bytes"):
        inspect(array + b"\xff" * 8)


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
    document = ubj.parse(payload)
    tree = _forest(document)["trees"][-1]
    tree[array] = tree[array].copy()
    tree[array][node] = value
    with pytest.raises(ModelPayloadInvalid, match=reason):
        inspect(_written(document))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tree_info": [0, 0, 1, 0, 0]}, "a tree belongs to no class"),
        ({"tree_info": [0, 0, 0, 0]}, "trees are missing"),
        ({"trees": []}, "trees are missing"),
        ({"iteration_indptr": [0, 1, 2, 3, 4, 6]}, "the rounds do not hold the trees"),
        ({"iteration_indptr": [0, 1, 4, 3, 4, 5]}, "the rounds are out of order"),
    ],
    ids=str,
)
def test_a_forest_that_contradicts_itself_is_refused(payload: bytes, change: dict[str, Any], reason: str) -> None:
    document = ubj.parse(payload)
    _forest(document).update(change)
    with pytest.raises(ModelPayloadInvalid, match=reason):
        inspect(_written(document))


@pytest.mark.parametrize("array", ["left_children", "parents", "split_conditions", "default_left"])
def test_a_tree_that_lacks_a_node_is_refused(payload: bytes, array: str) -> None:
    document = ubj.parse(payload)
    tree = _forest(document)["trees"][0]
    tree[array] = tree[array][:-1]
    with pytest.raises(ModelPayloadInvalid, match="nodes are missing"):
        inspect(_written(document))


def test_a_file_of_a_version_that_wrote_no_rounds_passes(payload: bytes) -> None:
    document = ubj.parse(payload)
    del _forest(document)["iteration_indptr"]
    assert inspect(_written(document)).n_features == 3


def _forest(document: Any) -> Any:
    return document["learner"]["gradient_booster"]["model"]


def _written(value: Any) -> bytes:
    """Write a parsed document as XGBoost does."""
    if isinstance(value, dict):
        return b"{" + b"".join(_text(key) + _written(inner) for key, inner in value.items()) + b"}"
    if isinstance(value, list):
        return b"[#" + _length(len(value)) + b"".join(map(_written, value))
    if isinstance(value, np.ndarray):
        marker = {"u1": b"U", "i4": b"l", "i8": b"L", "f4": b"d"}[value.dtype.str[1:]]
        return b"[$" + marker + b"#" + _length(len(value)) + value.tobytes()
    if isinstance(value, str):
        return b"S" + _text(value)
    return b"i" + int(value).to_bytes(1)


def _text(text: str) -> bytes:
    return _length(len(text.encode())) + text.encode()


def _length(length: int) -> bytes:
    return b"L" + length.to_bytes(8)
