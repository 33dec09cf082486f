"""Whatever bytes arrive: each record is an event or a refusal, never both, never neither, and never its neighbour's."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from stream.batches import TopicPartition
from stream.intake import FeatureIntake
from stream.partitioner import partitions_of
from stream.placement import Placement
from tests.support import Entry, batch

SPEC = StreamSpec(name="flights", features=("distance", "hour"), partitions=4)
SOURCE = TopicPartition("flights.features", 1)

NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
IDS = st.text(min_size=1, max_size=10)
EVENTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "event_id": IDS,
        "entity_id": IDS,
        "event_time_ms": st.integers(0, 32_503_680_000_000),
        "features": st.fixed_dictionaries({"distance": NUMBERS, "hour": NUMBERS}, optional={"more": JSON}),
    }
)
GOOD = EVENTS.map(lambda document: json.dumps(document).encode())
SPOILT = st.builds(
    lambda document, field, wrong: json.dumps(document | {field: wrong}).encode(),
    EVENTS,
    st.sampled_from(["event_id", "entity_id", "event_time_ms", "features"]),
    JSON,
)
CUT = st.builds(lambda value, share: value[: int(len(value) * share)], GOOD, st.floats(0, 1))
VALUES = st.one_of(GOOD, SPOILT, CUT, st.binary(max_size=20), st.none())

relaxed = settings(deadline=None, database=None)


@relaxed
@given(st.lists(GOOD, max_size=20))
def test_every_good_event_is_read_to_the_last_bit(values: list[bytes]) -> None:
    reader = FeatureReader(SPEC)
    events, bad = reader.read(values)
    assert bad == {}
    for event, row, value in zip(events, reader.rows(events), values, strict=True):
        document = json.loads(value)
        assert (event.event_id, event.entity_id) == (document["event_id"], document["entity_id"])
        sent = [document["features"][name] for name in SPEC.features]
        assert list(row) == [None if number is None else float(number) for number in sent]


@relaxed
@given(st.lists(VALUES, max_size=30))
def test_a_value_is_judged_in_a_batch_as_it_is_alone(values: list[bytes | None]) -> None:
    reader = FeatureReader(SPEC)
    events, bad = reader.read(values)
    assert len(events) + len(bad) == len(values)
    alone = [reader.read([value]) for value in values]
    assert {i: str(error) for i, error in bad.items()} == {i: str(b[0]) for i, (_, b) in enumerate(alone) if b}
    assert events == [event for found, _ in alone for event in found]


@relaxed
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
def test_the_matrix_holds_float32_of_each_number_and_finds_what_does_not_fit(
    rows: list[tuple[float | None, float | None]],
) -> None:
    reader = FeatureReader(SPEC)
    matrix = reader.matrix(rows)
    with np.errstate(over="ignore"):
        wanted = [[np.float32(np.nan if number is None else number) for number in row] for row in rows]
    np.testing.assert_array_equal(matrix, np.array(wanted, dtype=np.float32).reshape(len(rows), 2))
    assert set(reader.overflows(matrix)) == {i for i, row in enumerate(wanted) if np.isinf(row).any()}


def _key(value: bytes | None, honest: bool) -> bytes | None:
    try:
        return str(json.loads(value or b"")["entity_id"]).encode() if honest else b"somebody-else"
    except (ValueError, TypeError, KeyError):
        return None


@relaxed
@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=19))
def test_each_record_is_taken_or_refused_once_and_rows_stay_together(
    drawn: list[tuple[bytes | None, bool]],
) -> None:
    records = [Entry(offset, value, _key(value, honest)) for offset, (value, honest) in enumerate(drawn)]
    intake = FeatureIntake(FeatureReader(SPEC), Placement(SOURCE.topic, SOURCE.partition, 4), max_event_bytes=120)
    taken = intake.read(batch(SOURCE, records))
    offsets = [record.offset for record in taken.records]
    assert sorted(offsets + [record.offset for record, _ in taken.refused]) == list(range(len(records)))
    assert offsets == sorted(offsets)
    assert taken.matrix.shape == (len(offsets), 2)
    for record, event, row, numbers in zip(taken.records, taken.events, taken.rows, taken.matrix, strict=True):
        assert record.key == event.entity_id.encode()
        assert partitions_of([event.entity_id.encode()], 4)[0] == SOURCE.partition
        assert json.loads(record.value or b"")["event_id"] == event.event_id
        assert len(record.value or b"") <= 120
        np.testing.assert_array_equal(numbers, np.array(row, dtype=np.float32))
        assert not np.isinf(numbers).any()
