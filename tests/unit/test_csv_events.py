"""The rows of a CSV file as the events of a stream."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.csv_events import CsvEvents, read_events
from app.settings import load_settings
from app.stream_init import propose_stream
from schemas.errors import SettingsError
from schemas.streams import CsvSpec, StreamSpec

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
    return read_events(path, spec, CsvSpec(**columns), positive)


def test_rows_become_events_in_the_order_of_their_times(tmp_path: Path) -> None:
    columns = CsvSpec(event_id="transaction_id", entity="card_id", time="created_at", label="is_fraud")
    events = events_of(tmp_path, CARDS, msgspec.structs.replace(SPEC, csv=columns))
    assert events.columns == columns
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
    events = events_of(tmp_path, f"event_id,event_time_ms,amount,hour\n{rows}")
    assert events.features[:, 0].tolist() == list(range(19_999, -1, -1))
    assert (events.event_ids[0], len(set(events.event_ids))) == ("o19999", 20_000)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("customer_ref,amount,left\nA,1,no\nB,2,yes\nA,3,no\n", "customer_ref,amount,left\nC,1,no\nD,2,no\n"),
        ("customer_number,amount,left\n7,1,no\n8,2,yes\n7,3,no\n", "customer_number,amount,left\n9,1,no\n"),
        ("visit_id,amount,gold\nv1,1,yes\nv2,2,no\nv3,3,no\n", "visit_id,amount,gold\nv4,1,yes\nv5,9,yes\n"),
        ("visit_id,amount,gold\nv1,1,yes\nv1,2,no\nv3,3,no\n", "visit_id,amount,gold\nv4,1,yes\nv5,9,yes\n"),
        (CARDS, "\n".join(CARDS.splitlines()[:2])),
    ],
)
def test_a_file_of_few_rows_is_read_as_the_long_one_that_the_stream_was_made_from(
    tmp_path: Path, long: str, short: str
) -> None:
    (tmp_path / "long.csv").write_text(long)
    (tmp_path / "penstock.toml").write_text(propose_stream(tmp_path / "long.csv"))
    [spec] = load_settings({}, tmp_path / "penstock.toml").streams
    columns = events_of(tmp_path, long, spec).columns
    assert columns.label
    assert columns.entity or columns.event_id
    assert events_of(tmp_path, short, spec).columns == columns == spec.csv


def test_columns_called_as_the_fields_of_an_event_need_not_be_named(tmp_path: Path) -> None:
    events = events_of(tmp_path, "event_id,entity_id,event_time_ms,amount,hour,label\ne,n,1,2,3,1\n")
    assert events.columns == CsvSpec(event_id="event_id", entity="entity_id", time="event_time_ms", label="label")


def test_what_is_in_a_column_makes_it_neither_an_id_nor_a_time_nor_a_label(tmp_path: Path) -> None:
    assert events_of(tmp_path, "order_id,date,amount,hour,fraud\n1,2024-05-01,1,2,0\n").columns == CsvSpec()


def test_a_feature_is_not_taken_for_a_field_of_an_event(tmp_path: Path) -> None:
    spec = StreamSpec(name="s", features=("event_id", "event_time_ms", "label"))
    assert events_of(tmp_path, "event_id,event_time_ms,label\n1,2,0\n3,4,1\n", spec).columns == CsvSpec()


@pytest.mark.parametrize("role", ["event_id", "entity", "time"])
def test_a_column_that_the_stream_names_must_be_there(tmp_path: Path, role: str) -> None:
    spec = msgspec.structs.replace(SPEC, csv=CsvSpec(**{role: "who"}))
    sentence = rf"has no column 'who', which \[streams.cards.csv\] names as {role}; its header has amount, hour"
    with pytest.raises(SettingsError, match=sentence):
        events_of(tmp_path, "amount,hour\n1,2\n", spec)
    assert getattr(events_of(tmp_path, "amount,hour,id\n1,2,1700000000\n", spec, **{role: "id"}).columns, role) == "id"


def test_a_file_may_be_without_the_label_that_the_stream_names(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, csv=CsvSpec(label="late"))
    events = events_of(tmp_path, "amount,hour\n1,2\n", spec)
    assert (events.columns.label, events.labels.tolist()) == ("", [-1])


def test_the_label_is_no_feature(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'hour' is a feature of stream cards: it cannot be the label, too"):
        events_of(tmp_path, "amount,hour\n1,2\n", label="hour")
    [problem] = msgspec.structs.replace(SPEC, csv=CsvSpec(label="hour")).problems()
    assert "csv.label 'hour' is a feature" in problem


def test_rows_of_which_none_counts_as_1_are_rows_as_well_as_any(tmp_path: Path) -> None:
    assert events_of(tmp_path, "amount,hour,label\n1,2,stayed\n", positive="left").labels.tolist() == [0]


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
    assert events.columns == CsvSpec(event_id="transaction_id", entity="who", label="checked")
    assert events.entity_ids == ["a", "t2"]
    assert events.labels.tolist() == [1, 1]


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("False", "TRUE"), ("no", "Yes"), ("0.0", "1.0")])
def test_labels_of_two_values_that_speak_for_themselves_are_understood(tmp_path: Path, no: str, yes: str) -> None:
    events = events_of(tmp_path, f"amount,hour,label\n1,2,{no}\n1,2,{yes}\n1,2,\n")
    assert events.labels.tolist() == [0, 1, -1]


def test_what_counts_as_1_can_be_said(tmp_path: Path) -> None:
    text = "amount,hour,label\n1,2,left\n1,2,stayed\n1,2,left\n"
    assert events_of(tmp_path, text, positive="left").labels.tolist() == [1, 0, 1]


def test_classes_are_numbered_as_the_stream_declares_them(tmp_path: Path) -> None:
    assert events_of(tmp_path, "x,label\n1,l\n2,s\n3,m\n", THREE).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("amount,label\n1,0\n2,1\n", {}, "has no column 'hour'; its header has amount, label"),
        ("amount,hour\n1,x\n", {}, "row 1, column 'hour': 'x' is not a number"),
        ("amount,hour,label\n1,2,left\n1,2,right\n", {}, "'left' is neither 0 nor 1; say with --positive"),
        ("amount,hour\n1,1_000\n", {}, "row 1, column 'hour': '1_000' is not a number"),
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
        events_of(tmp_path, text, SPEC, **options)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_label_that_is_no_class_of_the_stream_is_told_with_the_classes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'xl' is no class of stream sizes, which has s, m, l"):
        events_of(tmp_path, "x,label\n1,s\n2,xl\n", THREE)


def test_no_class_of_several_counts_as_1(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="stream sizes has the classes s, m, l"):
        events_of(tmp_path, "x,label\n1,s\n", THREE, positive="s")
