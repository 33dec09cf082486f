"""The rows of a CSV file as the events of a stream."""

from pathlib import Path

import numpy as np
import pytest

from app.csv_events import ColumnNames, CsvEvents, read_events
from schemas.errors import SettingsError
from schemas.streams import StreamSpec

SPEC = StreamSpec(name="cards", features=("amount", "hour"))
THREE = StreamSpec(name="sizes", features=("x",), task="multiclass", classes=("s", "m", "l"))
CARDS = """transaction_id,card_id,created_at,amount,hour,is_fraud
t3,c1,2024-05-01T12:00:00Z,7.25,12,1
t1,c1,2024-05-01T10:00:00Z,12.5,10,0
t2,c2,2024-05-01T13:00:00+02:00,NA,11,
"""


def events_of(folder: Path, text: str, spec: StreamSpec = SPEC, positive: str = "", **columns: str) -> CsvEvents:
    path = folder / "rows.csv"
    path.write_text(text)
    return read_events(path, spec, ColumnNames(**columns), positive)


def test_rows_become_events_in_the_order_of_their_times(tmp_path: Path) -> None:
    events = events_of(tmp_path, CARDS)
    assert events.columns == ColumnNames(
        event_id="transaction_id", entity="card_id", time="created_at", label="is_fraud"
    )
    assert (events.event_ids, events.entity_ids) == (["t1", "t2", "t3"], ["c1", "c2", "c1"])
    assert events.times_ms is not None
    assert events.times_ms.tolist() == [1714557600000, 1714561200000, 1714564800000]
    np.testing.assert_array_equal(events.features, [[12.5, 10], [np.nan, 11], [7.25, 12]])
    assert events.labels.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    "time",
    [
        "2024-05-01",
        "2024-05-01T00:00",
        "20240501",
        "2024-05-01T02:00:00+02:00",
        "1714521600",
        "1714521600000",
        "1.7145216e9",
    ],
)
def test_a_time_is_iso_8601_or_seconds_or_milliseconds_since_the_epoch(tmp_path: Path, time: str) -> None:
    events = events_of(tmp_path, f"amount,hour,timestamp\n1,2,{time}\n", time="timestamp")
    assert events.times_ms is not None
    assert events.times_ms.tolist() == [1714521600000]


def test_a_file_longer_than_a_piece_is_read_whole(tmp_path: Path) -> None:
    rows = "".join(f"o{i},{20_000 - i},{i},1\n" for i in range(20_000))
    events = events_of(tmp_path, f"order_id,event_time_ms,amount,hour\n{rows}")
    assert events.features[:, 0].tolist() == list(range(19_999, -1, -1))
    assert (events.event_ids[0], len(set(events.event_ids))) == ("o19999", 20_000)


def test_a_file_of_few_rows_is_read_as_the_long_one_that_the_stream_was_made_from(tmp_path: Path) -> None:
    lines = CARDS.splitlines()
    events = events_of(tmp_path, f"{lines[0]}\n{lines[1]}\n")
    assert events.columns == ColumnNames(
        event_id="transaction_id", entity="card_id", time="created_at", label="is_fraud"
    )


def test_a_feature_is_never_taken_for_an_id_a_time_or_a_label(tmp_path: Path) -> None:
    spec = StreamSpec(name="s", features=("order_id", "date", "class"))
    events = events_of(tmp_path, "order_id,date,class\n1,1700000000,0\n2,1700000001,1\n3,1700000002,0\n", spec)
    assert events.columns == ColumnNames()


def test_ids_that_are_not_there_are_made_of_the_row_and_are_the_same_again(tmp_path: Path) -> None:
    text = "amount,hour\n1,2\n1,2\n3,4\n"
    first, again = events_of(tmp_path, text), events_of(tmp_path, text)
    assert first.event_ids == again.event_ids == first.entity_ids
    assert len(set(first.event_ids)) == 3
    assert events_of(tmp_path, "amount,hour\n1,2\n1,3\n").event_ids[0] == first.event_ids[0]
    assert first.times_ms is None


def test_columns_that_are_named_are_not_guessed(tmp_path: Path) -> None:
    text = "transaction_id,who,card_id,amount,hour,fraud,checked\nt1,a,c1,1,2,0,1\nt2,,c1,3,4,1,1\n"
    events = events_of(tmp_path, text, entity="who", label="checked", event_id="transaction_id")
    assert events.columns == ColumnNames(event_id="transaction_id", entity="who", label="checked")
    assert events.entity_ids == ["a", "t2"]
    assert events.labels.tolist() == [1, 1]


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("False", "TRUE"), ("no", "Yes"), ("0.0", "1.0")])
def test_labels_of_two_values_that_speak_for_themselves_are_understood(tmp_path: Path, no: str, yes: str) -> None:
    events = events_of(tmp_path, f"amount,hour,label\n1,2,{no}\n1,2,{yes}\n1,2,\n")
    assert events.labels.tolist() == [0, 1, -1]


def test_what_counts_as_1_can_be_said(tmp_path: Path) -> None:
    text = "amount,hour,outcome\n1,2,left\n1,2,stayed\n1,2,left\n"
    assert events_of(tmp_path, text, positive="left").labels.tolist() == [1, 0, 1]


def test_classes_are_numbered_as_the_stream_declares_them(tmp_path: Path) -> None:
    assert events_of(tmp_path, "x,class\n1,l\n2,s\n3,m\n", THREE).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("amount,label\n1,0\n2,1\n", {}, "has no column 'hour'; its header has amount, label"),
        ("amount,hour\n1,x\n", {}, "row 1, column 'hour': 'x' is not a number"),
        ("amount,hour,label\n1,2,left\n1,2,right\n", {}, "'left' is neither 0 nor 1; say with --positive"),
        ("amount,hour,label\n1,2,a\n", {"positive": "b"}, "has no row whose 'label' is 'b'"),
        ("amount,hour\n1,2\n", {"label": "late"}, "has no column 'late'"),
        ("amount,hour,day\n1,2,monday\n", {"time": "day"}, "row 1, column 'day': 'monday' is no ISO 8601 time"),
        ("amount,hour,event_time_ms\n1,2,\n", {"time": "event_time_ms"}, "is no number of milliseconds since 1970"),
        ("amount,hour,day\n1,2,1969-12-31\n", {"time": "day"}, "since 1970"),
        ("amount,hour,id\n1,2,\n1,2,b\n", {"event_id": "id"}, "row 1, column 'id' has no id of the event"),
        ("amount,hour,id\n1,2," + "b" * 257 + "\n", {"event_id": "id"}, "is longer than an id may be"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, text: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        events_of(tmp_path, text, **options)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_label_that_is_no_class_of_the_stream_is_told_with_the_classes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'xl' is no class of stream sizes, which has s, m, l"):
        events_of(tmp_path, "x,class\n1,s\n2,xl\n", THREE)


def test_no_class_of_several_counts_as_1(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="stream sizes has the classes s, m, l"):
        events_of(tmp_path, "x,class\n1,s\n", THREE, positive="s")
