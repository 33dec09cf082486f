"""Training data out of a database; SQLite stands for all of them."""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.train.data import Span
from agents.train.sql import QueryRefused, read_sql
from ml.training.table import Table
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from tests.making import DAY_MS, stream_of

SPEC = stream_of()
BIRDS = stream_of("birds", task="multiclass", classes=("tit", "owl", "crow"))
EVER = Span(from_ms=0, to_ms=2**45)
QUERY = "SELECT * FROM events ORDER BY event_id"


def database(folder: Path, columns: str, rows: Iterable[tuple[Any, ...]]) -> str:
    """Return the URL of a database with a table `events`."""
    path = folder / "events.db"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE events ({columns})")
    for row in rows:
        connection.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", row)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def table_of(spec: StreamSpec, url: str, query: str = QUERY, span: Span = EVER) -> Table:
    return read_sql(spec, query, url, span).table


def test_rows_become_events(tmp_path: Path) -> None:
    url = database(
        tmp_path,
        "event_id, entity_id, event_time, label, weight, c, b, a",
        [
            ("x2", "N1", DAY_MS + 5, 1, 2.0, 3, None, 1.5),
            ("x1", "N2", DAY_MS, 0, 1, 0, -1, 2),
            ("x3", "N1", DAY_MS + 9, 1, 1, 0, 0, 0),
        ],
    )
    table = table_of(SPEC, url)
    np.testing.assert_array_equal(table.matrix, np.array([[2, -1, 0], [1.5, np.nan, 3], [0, 0, 0]], np.float32))
    assert table.labels.tolist() == [0, 1, 1]
    assert table.weights.tolist() == [1.0, 2.0, 1.0]
    assert table.event_time_ms.tolist() == [DAY_MS, DAY_MS + 5, DAY_MS + 9]
    assert (table.entities[0] == table.entities[1], table.entities[1] == table.entities[2]) == (False, True)
    assert np.isnan(table.served).all()


def test_without_weights_and_entities_each_event_counts_once_and_for_itself(tmp_path: Path) -> None:
    url = database(tmp_path, "event_id, event_time, label, a, b, c", [(n, n, n % 2, 0, 0, 0) for n in range(4)])
    table = table_of(SPEC, url)
    assert table.weights.tolist() == [1.0] * 4
    assert len(set(table.entities.tolist())) == 4
    assert not table.entities_known
    assert not table.rows(slice(1, 3)).entities_known


def test_a_query_without_entities_is_noted_and_one_that_has_them_is_not(tmp_path: Path) -> None:
    url = database(tmp_path, "event_id, event_time, label, a, b, c", [(n, n, n % 2, 0, 0, 0) for n in range(4)])
    [note] = read_sql(SPEC, QUERY, url, EVER).notes
    assert "gives no entity_id" in note
    known = read_sql(SPEC, "SELECT *, 'N1' AS entity_id FROM events", url, EVER)
    assert (known.notes, known.table.entities_known, set(known.table.entities.tolist())) == ((), True, {0})


def test_a_row_without_its_entity_is_refused(tmp_path: Path) -> None:
    row = ("x", None, 1, 1, 0, 0, 0)
    url = database(tmp_path, "event_id, entity_id, event_time, label, a, b, c", [row])
    with pytest.raises(QueryRefused, match="a row without entity_id"):
        table_of(SPEC, url)


@pytest.mark.parametrize(
    "time", [1_700_000_000_000, "2023-11-14T22:13:20+00:00", "2023-11-14 23:13:20+01:00", "2023-11-14 22:13:20"]
)
def test_times_are_milliseconds_or_timestamps(tmp_path: Path, time: object) -> None:
    url = database(tmp_path, "event_id, event_time, label, a, b, c", [("x", time, 1, 0, 0, 0)])
    assert table_of(SPEC, url).event_time_ms.tolist() == [1_700_000_000_000]


@pytest.mark.parametrize(
    ("condition", "as_time"),
    [
        ("event_time >= :from_time_ms AND event_time < :to_time_ms", lambda day: day * DAY_MS),
        (
            "event_time >= :from_time AND event_time < :to_time",
            lambda day: f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d %H:%M:%S}.000000",
        ),
        ("1", lambda day: day * DAY_MS),
    ],
    ids=["milliseconds", "timestamps", "the query does not say"],
)
def test_only_the_span_that_is_wanted_counts(tmp_path: Path, condition: str, as_time: Any) -> None:
    rows = [(f"x{day:02}", as_time(day), day % 2, day, 0, 0) for day in range(10)]
    url = database(tmp_path, "event_id, event_time, label, a, b, c", rows)
    query = f"SELECT * FROM events WHERE {condition}"
    table = table_of(SPEC, url, query, Span(from_ms=3 * DAY_MS, to_ms=7 * DAY_MS))
    assert table.matrix[:, 0].tolist() == [3, 4, 5, 6]
    newest = table_of(SPEC, url, query, Span(from_ms=3 * DAY_MS, to_ms=7 * DAY_MS, newest=2))
    assert newest.matrix[:, 0].tolist() == [5, 6]


def test_classes_are_read_by_name(tmp_path: Path) -> None:
    url = database(
        tmp_path, "event_id, event_time, label, a, b, c", [("x", 1, "owl", 0, 0, 0), ("y", 2, "tit", 0, 0, 0)]
    )
    table = table_of(BIRDS, url)
    assert table.labels.tolist() == [1, 0]
    assert table.served.shape == (2, 3)


@pytest.mark.parametrize(
    ("spec", "row", "words"),
    [
        (SPEC, ("x", 1, 2, 0, 0, 0), "row 1, column 'label': 2 is none of the labels 0, 1"),
        (SPEC, ("x", 1, None, 0, 0, 0), "column 'label': None is none of the labels"),
        (SPEC, ("x", 1, 0.5, 0, 0, 0), "column 'label': 0.5 is none of the labels"),
        (BIRDS, ("x", 1, "cat", 0, 0, 0), "'cat' is none of the labels tit, owl, crow"),
        (SPEC, ("x", "noon", 1, 0, 0, 0), "column 'event_time': 'noon' is no time"),
        (SPEC, ("x", None, 1, 0, 0, 0), "column 'event_time': None is no time"),
        (SPEC, ("x", 1, 1, "much", 0, 0), "column 'a': 'much' is no number"),
        (SPEC, ("x", 1, 1, 1e300, 0, 0), "column 'a': 1e+300 is infinite, or beyond the range"),
        (SPEC, (None, 1, 1, 0, 0, 0), "a row without event_id"),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_column(
    tmp_path: Path, spec: StreamSpec, row: tuple[Any, ...], words: str
) -> None:
    url = database(tmp_path, "event_id, event_time, label, a, b, c", [row])
    with pytest.raises(QueryRefused) as raised:
        table_of(spec, url)
    assert words in str(raised.value)


def test_columns_that_the_query_does_not_give_are_named(tmp_path: Path) -> None:
    url = database(tmp_path, "event_id, event_time, a, c", [])
    with pytest.raises(QueryRefused, match="gives no column label, b; it gives event_id, event_time, a, c"):
        table_of(SPEC, url)


def test_a_name_that_nothing_fills_in_is_said(tmp_path: Path) -> None:
    url = database(tmp_path, "event_id, event_time, label, a, b, c", [])
    with pytest.raises(QueryRefused, match="names :since, which nothing fills in"):
        table_of(SPEC, url, f"{QUERY} WHERE event_time > :since")


def test_a_database_that_is_away_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="unable to open database file"):
        table_of(SPEC, f"sqlite:///{tmp_path}/nowhere/events.db")


@pytest.mark.parametrize("url", ["", "no url", "nonsense://user:canary@host/x"])
def test_a_wrong_url_is_a_wrong_setting_and_its_password_is_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="training_sql_url") as raised:
        table_of(SPEC, url)
    assert "canary" not in str(raised.value)
