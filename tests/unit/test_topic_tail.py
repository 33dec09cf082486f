"""Records of a topic as lines of JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.topic_tail import Placed, topic_called
from schemas.errors import SettingsError
from schemas.streams import StreamSpec
from tests.support import Entry

SPEC = StreamSpec(name="flights", features=("a",))


def placed(value: bytes | None, key: bytes | None = None) -> Placed:
    return Placed(2, Entry(7, value, key, 10))


@pytest.mark.parametrize("name", ["features.dead", "flights.features.dead"])
def test_a_topic_is_called_with_its_streams_name_or_without(name: str) -> None:
    assert topic_called(SPEC, name) == "flights.features.dead"


def test_a_topic_that_is_none_is_told_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no topic 'prediction'; its topics are alerts, .*predictions"):
        topic_called(SPEC, "prediction")


def test_a_record_is_its_value_or_all_that_kafka_knows_of_it() -> None:
    record = placed(b'{\n "score": 0.25,\n "label": null}', "n1é".encode())
    assert record.value_line() == '{"score": 0.25, "label": null}'
    assert json.loads(record.line()) == {
        "partition": 2,
        "offset": 7,
        "time_ms": 10,
        "key": "n1é",
        "value": {"score": 0.25, "label": None},
    }


@pytest.mark.parametrize(("value", "line"), [(None, "null"), (b"oops\n{", '"oops\\n{"'), (b"\xff", '"\ufffd"')])
def test_what_is_no_json_is_shown_as_text(value: bytes | None, line: str) -> None:
    assert placed(value).value_line() == line


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_record_says_anything_to_the_terminal_and_nothing_of_it_is_lost(text: str) -> None:
    line = placed(json.dumps({"message": text}).encode()).value_line()
    assert line.isprintable()
    assert json.loads(line) == {"message": text}
