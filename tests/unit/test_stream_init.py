"""What `penstock stream init` proposes from a CSV file."""

import gzip
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.csv_columns import read_columns
from app.demo.flights import DATA_FILE, flights_stream
from app.settings import load_settings
from app.stream_init import propose_stream, stream_toml
from schemas.errors import SettingsError
from schemas.streams import CsvSpec, EvaluationSpec, JoinSpec, LearnerSpec, StreamSpec

CARDS = """transaction_id,cardId,created_at,amount,hour,country,bank,status_id,is_fraud
t1,c1,2024-05-01T10:00:00Z,12.5,10,DE,1,5,no
t2,c2,2024-05-01T11:00:00Z,,11,FR,1,6,no
t3,c1,2024-05-01T12:00:00Z,NA,12,FR,1,5,yes
t4,c1,2024-05-01T13:00:00Z,1e3,13,DE,1,6,no
"""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    return written(tmp_path, CARDS)


def written(folder: Path, text: str, name: str = "Card payments.2024.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def accepted(folder: Path, toml: str) -> StreamSpec:
    """Return the stream as the worker would read it."""
    config = folder / "penstock.toml"
    config.write_text(toml)
    (stream,) = load_settings({}, config).streams
    return stream


def test_the_proposal_is_a_stream_that_the_settings_accept(tmp_path: Path, cards: Path) -> None:
    assert accepted(tmp_path, propose_stream(cards)) == StreamSpec(
        name="card-payments",
        task="binary",
        features=("amount", "hour"),
        csv=CsvSpec(event_id="transaction_id", entity="cardId", time="created_at", label="is_fraud"),
    )


def test_ids_times_and_labels_are_named_and_are_no_features(cards: Path) -> None:
    proposal = propose_stream(cards)
    assert '# event_id       "transaction_id"' in proposal
    assert '# entity_id      "cardId"' in proposal
    assert '# event_time_ms  "created_at"' in proposal
    assert '# label          "is_fraud": "no" 75.0%, "yes" 25.0%' in proposal
    assert '#                "yes" counts as 1\n' in proposal


def test_what_is_left_out_is_told_with_the_reason(cards: Path) -> None:
    proposal = propose_stream(cards)
    assert '#   "country" is text with 2 different values' in proposal
    assert '#   "bank" is always "1" in these rows' in proposal
    assert '#   "status_id" is another id' in proposal


def test_missing_values_are_told_beside_their_feature(cards: Path) -> None:
    assert '  "amount",  # 50.0% missing\n  "hour",\n' in propose_stream(cards)


def test_a_label_with_more_than_two_values_makes_a_multiclass_stream(tmp_path: Path) -> None:
    path = written(tmp_path, "x,class\n1,10\n2,9\n3,10\n4,11\n")
    stream = accepted(tmp_path, propose_stream(path, name="sizes"))
    assert (stream.name, stream.task, stream.classes) == ("sizes", "multiclass", ("9", "10", "11"))


def test_a_last_column_of_two_values_is_taken_for_the_label(tmp_path: Path) -> None:
    proposal = propose_stream(written(tmp_path, "x,late\n1,0\n2,1\n3,0\n4,0\n"))
    assert '# label          "late": "0" 75.0%, "1" 25.0%' in proposal
    assert "counts as 1" not in proposal


def test_labels_that_do_not_speak_for_themselves_are_to_be_told_with_positive(tmp_path: Path) -> None:
    proposal = propose_stream(written(tmp_path, "x,late\n1,left\n2,stayed\n3,left\n"))
    assert '#                say which counts as 1: --positive "left", or "stayed"\n' in proposal


@pytest.mark.parametrize("time", ["01.01.2025 00:08:00", "1/31/2025", "31-1-25 9:30"])
def test_dates_that_are_not_iso_8601_are_told_how_to_be_written(tmp_path: Path, time: str) -> None:
    proposal = propose_stream(written(tmp_path, f"when,x\n{time},1\n{time},2\n{time[:-1]}1,3\n"))
    assert "# event_time_ms  no column is a time" in proposal
    assert '#   "when" looks like a time, but not one of ISO 8601: write it as 2025-01-31T09:30:00Z' in proposal


@pytest.mark.parametrize(("zone", "told"), [("", ", taken as UTC where it names no zone"), ("+02:00", "")])
def test_a_time_without_a_zone_is_told_to_be_taken_as_utc(tmp_path: Path, zone: str, told: str) -> None:
    rows = "".join(f"2025-01-0{day}T10:00{zone},{day}\n" for day in (1, 2, 3))
    assert f'# event_time_ms  "at"{told}\n' in propose_stream(written(tmp_path, f"at,x\n{rows}"))


def test_a_column_without_a_name_has_no_role(tmp_path: Path) -> None:
    proposal = propose_stream(written(tmp_path, ",x\n2025-01-01,1\n2025-01-02,2\n2025-01-03,3\n"))
    assert accepted(tmp_path, proposal).csv == CsvSpec()
    assert '#   "" has no name' in proposal


def test_a_file_without_id_entity_time_and_label_is_told_so(tmp_path: Path) -> None:
    proposal = propose_stream(written(tmp_path, "x,b\n1,5\n2,6\n3,7\n"))
    for sentence in ("no column is an id", "no column repeats", "no column is a time", "no column is a label"):
        assert sentence in proposal


def test_large_numbers_are_times_only_if_they_are_called_so(tmp_path: Path) -> None:
    path = written(tmp_path, "revenue,timestamp\n1700000000,1700000000\n1700000001,1700000001\n1700000002,1700000002\n")
    proposal = propose_stream(path)
    assert '# event_time_ms  "timestamp"' in proposal
    assert accepted(tmp_path, proposal).features == ("revenue",)


def test_the_demos_own_file_can_be_proposed(tmp_path: Path) -> None:
    proposal = propose_stream(DATA_FILE)
    assert accepted(tmp_path, proposal).name == "flights_ewr_2013"
    assert '# entity_id      "tailnum"' in proposal


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path, "a,b\n1,2\n3,4\n5,6\n".replace(",", delimiter))
    assert [column.name for column in read_columns(path, 10)] == ["a", "b"]


def test_what_stands_within_quotes_separates_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, '"a, in euros, net";b\n1;2\n')
    assert [column.name for column in read_columns(path, 10)] == ["a, in euros, net", "b"]


def test_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n\n1,2\n\n3,4\n")
    assert [column.rows for column in read_columns(path, 10)] == [2, 2]


def test_only_the_head_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,2\n3,4\nbroken\n")
    assert [column.rows for column in read_columns(path, 2)] == [2, 2]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read_columns(written(tmp_path, "\ufeffa,b\n1,2\n"), 10)[0].name == "a"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a,b\n", "has a header, but no rows"),
        (b"1,2\n3,4\n", "has no header: its first line has the number 1"),
        (b"a,a\n1,2\n", "has 'a' as the name of more than one column"),
        (b"a,b\n1,2\n3\n", "row 2 has 1 fields, but the header has 2, separated by ','"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"a,b\nx,y\nz,w\nu,v\n", 'no column that can be a feature: "a" is text with 3 different values'),
        (b"a," + b"b" * 200_000 + b"\n1,2\n", "is not a CSV file: field larger than field limit"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        propose_stream(path)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["missing.csv", ".", "no.gz"])
def test_a_path_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    written(tmp_path, "a,b\n1,2\n", "no.gz")
    with pytest.raises(SettingsError, match="cannot be read"):
        propose_stream(tmp_path / name)


def test_a_file_cut_off_in_the_middle_of_gzip_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100)[:-12])
    with pytest.raises(SettingsError, match="cannot be read"):
        propose_stream(path)


def test_a_file_name_without_letters_still_names_a_stream(tmp_path: Path) -> None:
    path = written(tmp_path, "x,b\n1,5\n2,6\n3,7\n", "2013-Q1.csv")
    assert accepted(tmp_path, propose_stream(path)).name == "stream-2013-q1"


def test_a_bad_name_is_one_sentence(cards: Path) -> None:
    with pytest.raises(SettingsError, match="stream name 'Bad Name'"):
        propose_stream(cards, name="Bad Name")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_any_feature_name_survives_toml(names: list[str]) -> None:
    spec = StreamSpec(name="s", features=tuple(names), threshold=0.25, partitions=7)
    table = tomllib.loads(stream_toml(spec))["streams"]["s"]
    assert table == {"features": names, "task": "binary", "threshold": 0.25, "partitions": 7}


def test_the_demos_stream_is_accepted(tmp_path: Path) -> None:
    assert accepted(tmp_path, stream_toml(flights_stream())) == flights_stream()


def test_tables_within_a_stream_are_read_back_as_they_were(tmp_path: Path) -> None:
    spec = StreamSpec(
        name="s",
        features=("x",),
        join=JoinSpec(window_minutes=90, assume_negative=True),
        evaluation=EvaluationSpec(accuracy_drop=0.1, reference_accuracy=0.7),
        learners={
            "plain": LearnerSpec(algorithm="river-logistic"),
            "tuned": LearnerSpec(
                algorithm="river-logistic", shadow=True, parameters={"l2": 1e-5, "rate of it": 0.5, "on": False}
            ),
        },
    )
    toml = stream_toml(spec)
    assert accepted(tmp_path, toml) == spec
    assert "[streams.s.join]\nwindow_minutes = 90\nassume_negative = true\n" in toml
    assert "[streams.s.learners]" not in toml
    assert '[streams.s.learners.plain]\nalgorithm = "river-logistic"\n\n' in toml


def test_a_customer_is_an_entity_also_where_each_comes_once(tmp_path: Path) -> None:
    proposal = propose_stream(written(tmp_path, "customer_id,age,churned\nc1,30,0\nc2,41,1\nc3,25,0\n"))
    assert '# entity_id      "customer_id"' in proposal
    assert "no column is an id: one is made of each row" in proposal
