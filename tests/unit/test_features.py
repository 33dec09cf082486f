"""What makes a feature event, and what is said about one that is none."""

import json
from typing import Any

import numpy as np
import pytest

from schemas.features import FeatureReader
from schemas.streams import StreamSpec

SPEC = StreamSpec(name="flights", features=("distance", "hour"))


def _document(**changes: Any) -> dict[str, Any]:
    whole = {"event_id": "e1", "entity_id": "N1", "event_time_ms": 1000, "features": {"distance": 2.5, "hour": 7}}
    return whole | changes


def _value(**changes: Any) -> bytes:
    return json.dumps(_document(**changes)).encode()


def _refusal(value: bytes | None) -> tuple[str, str]:
    events, bad = FeatureReader(SPEC).read([value])
    assert events == []
    return bad[0].reason, str(bad[0])


def test_features_come_in_declared_order_whatever_order_they_are_sent_in() -> None:
    reader = FeatureReader(SPEC)
    events, bad = reader.read([_value(features={"hour": 7, "distance": 2.5})])
    assert bad == {}
    assert reader.rows(events) == [(2.5, 7.0)]
    assert (events[0].event_id, events[0].entity_id, events[0].event_time_ms) == ("e1", "N1", 1000)


def test_a_feature_may_have_any_name() -> None:
    names = ("dep delay", "ärger", "a.b", "f1", "class", "__init__", "0", "it's")
    reader = FeatureReader(StreamSpec(name="odd", features=names))
    events, bad = reader.read([_value(features={name: i for i, name in enumerate(names)})])
    assert bad == {}
    assert reader.rows(events) == [tuple(map(float, range(len(names))))]


@pytest.mark.parametrize("name", ['say "so"', "back\\slash", "two\nlines"])
def test_a_name_that_json_would_escape_is_refused_where_it_is_declared(name: str) -> None:
    assert StreamSpec(name="odd", features=("distance", name)).problems() != []


def test_a_null_is_a_missing_value_and_an_unknown_field_is_ignored() -> None:
    reader = FeatureReader(SPEC)
    events, bad = reader.read([_value(features={"distance": None, "hour": 1, "more": "x"}, extra=[1])])
    assert bad == {}
    matrix = reader.matrix(reader.rows(events))
    assert np.isnan(matrix[0, 0])
    assert matrix[0, 1] == 1.0


def test_the_matrix_is_what_models_take() -> None:
    reader = FeatureReader(SPEC)
    matrix = reader.matrix([(1.0, 2.0), (None, 3.0)])
    assert matrix.dtype == np.float32
    assert matrix.shape == (2, 2)
    assert matrix.flags.c_contiguous
    assert reader.matrix([]).shape == (0, 2)


def test_a_finite_number_beyond_float32_is_found_by_row_and_named() -> None:
    reader = FeatureReader(SPEC)
    matrix = reader.matrix([(1.0, 2.0), (None, 1e39), (-3.5e38, 1e39), (3.4e38, None)])
    found = reader.overflows(matrix)
    assert {row: str(error) for row, error in found.items()} == {
        1: "feature 'hour' is beyond the range of a 32-bit float",
        2: "feature 'distance' is beyond the range of a 32-bit float",
    }
    assert {error.reason for error in found.values()} == {"out_of_range"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": {"distance": 1}}, "Object missing required field `hour` - at `$.features`"),
        ({"features": {"distance": "far", "hour": 1}}, "Expected `float | null`, got `str` - at `$.features.distance`"),
        ({"features": {"distance": True, "hour": 1}}, "Expected `float | null`, got `bool` - at `$.features.distance`"),
        ({"features": [1, 2]}, "Expected `object`, got `array` - at `$.features`"),
        ({"features": None}, "Expected `object`, got `null` - at `$.features`"),
        ({"event_id": ""}, "Expected `str` of length >= 1 - at `$.event_id`"),
        ({"entity_id": "x" * 257}, "Expected `str` of length <= 256 - at `$.entity_id`"),
        ({"entity_id": 5}, "Expected `str`, got `int` - at `$.entity_id`"),
        ({"event_time_ms": "now"}, "Expected `int`, got `str` - at `$.event_time_ms`"),
        ({"event_time_ms": -1}, "Expected `int` >= 0 - at `$.event_time_ms`"),
        ({"event_time_ms": 10**15}, "Expected `int` <= 32503680000000 - at `$.event_time_ms`"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], sentence: str) -> None:
    assert _refusal(_value(**changes)) == ("invalid_field", sentence)


@pytest.mark.parametrize("field", ["event_id", "entity_id", "event_time_ms", "features"])
def test_a_missing_field_is_named(field: str) -> None:
    document = _document()
    del document[field]
    assert _refusal(json.dumps(document).encode()) == ("invalid_field", f"Object missing required field `{field}`")


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_said_to_be_empty(value: bytes | None) -> None:
    assert _refusal(value) == ("empty", "the record has no value")


@pytest.mark.parametrize(
    "value",
    [
        b"{broken",
        b"hello",
        _value()[:-1],
        _value() + b"x",
        _value().replace(b"N1", b"\xff"),
        b"\xef\xbb\xbf" + _value(),
        "{}".encode("utf-16"),
    ],
)
def test_what_is_not_json_is_said_not_to_be(value: bytes) -> None:
    reason, sentence = _refusal(value)
    assert reason == "malformed_json"
    assert sentence.startswith("the value is not JSON: ")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_json_has_no_number_for_is_named(number: bytes) -> None:
    assert _refusal(_value().replace(b"2.5", number)) == (
        "malformed_json",
        "NaN and Infinity are not JSON; null is a missing value",
    )


def test_endless_nesting_is_refused_and_does_no_harm() -> None:
    deep = _value()[:-1] + b', "more": ' + b"[" * 200_000
    assert _refusal(deep) == ("malformed_json", "the JSON is nested too deeply")


@pytest.mark.parametrize("number", ["1e400", "9" * 400])
def test_a_number_beyond_any_float_is_refused(number: str) -> None:
    assert _refusal(_value().replace(b"2.5", number.encode())) == (
        "invalid_field",
        "Number out of range - at `$.features.distance`",
    )
