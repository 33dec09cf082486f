"""What the commands that read a CSV file tell of its columns."""

from pathlib import Path

import numpy as np
import pytest

from app.cli.csv_options import column_lines, label_line, require_label
from app.csv_events import CsvEvents
from schemas.errors import SettingsError
from schemas.streams import CsvSpec, StreamSpec

SPEC = StreamSpec(name="s", features=("a",))
THREE = StreamSpec(name="s", features=("a",), task="multiclass", classes=("x", "y", "z"))


def events(**columns: str) -> CsvEvents:
    return CsvEvents(
        columns=CsvSpec(**columns),
        event_ids=["e", "f", "g"],
        entity_ids=["e", "f", "g"],
        times_ms=None,
        features=np.ones((3, 1)),
        labels=np.array([1, -1, 0]),
    )


def test_what_no_column_tells_is_told_to_be_made_up() -> None:
    assert list(column_lines(events(), "now")) == [
        "event_id       made of the row",
        "entity_id      the event itself",
        "event_time_ms  now",
    ]


@pytest.mark.parametrize(("spec", "told"), [(SPEC, "late, 1 of 2 are 1"), (THREE, "late")])
def test_of_two_classes_it_is_told_how_many_rows_have_the_one_that_counts(spec: StreamSpec, told: str) -> None:
    assert label_line(spec, events(label="late")) == f"label          {told}"


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        (CsvSpec(), "has no column 'label', and no other is said to be the label: name it with --label, or as `label`"),
        (CsvSpec(label="late"), "has no column 'late', the label of stream s"),
    ],
)
def test_a_label_that_is_missed_is_told_with_where_it_is_named(csv: CsvSpec, words: str) -> None:
    spec = StreamSpec(name="s", features=("a",), csv=csv)
    with pytest.raises(SettingsError, match=words):
        require_label(Path("x.csv"), spec, events())
    require_label(Path("x.csv"), spec, events(label="late"))
