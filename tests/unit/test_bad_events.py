"""Every kind of bad event that the chaos producer sends is one that the intake refuses, and only for what it is."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.partitioner import murmur2

from benchmarks import bad_events, synthetic
from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from stream.batches import Batch, TopicPartition
from stream.intake import FeatureIntake, Intake
from stream.placement import Placement

SPEC = StreamSpec(name=synthetic.STREAM, features=synthetic.FEATURES, partitions=synthetic.PARTITIONS)
REASONS = {
    "broken_json": "malformed_json",
    "not_utf8": "malformed_json",
    "wrong_type": "invalid_field",
    "missing_feature": "invalid_field",
    "missing_time": "invalid_field",
    "nan": "malformed_json",
    "infinity": "malformed_json",
    "beyond_float32": "out_of_range",
    "empty_value": "empty",
    "null_value": "empty",
    "null_key": "no_key",
    "key_of_another": "wrong_key",
    "wrong_partition": "wrong_partition",
    "huge": "too_large",
}


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = 0


def _take(record: Record, partition: int) -> Intake:
    source = TopicPartition(f"{SPEC.name}.features", partition)
    placement = Placement(source.topic, partition, SPEC.partitions)
    return FeatureIntake(FeatureReader(SPEC), placement, max_event_bytes=1024**2).read(Batch(source, [record]))


def _document() -> tuple[bytes, dict[str, Any], int]:
    ((key, value),) = synthetic.documents(synthetic.draw(1, seed=1))
    return key, json.loads(value), (murmur2(key) & 0x7FFFFFFF) % SPEC.partitions


def test_an_unspoilt_event_is_taken() -> None:
    key, document, home = _document()
    taken = _take(Record(key, json.dumps(document).encode()), home)
    assert [event.event_id for event in taken.events] == ["e00000000"]
    assert not taken.refused


@pytest.mark.parametrize("kind", bad_events.KINDS)
def test_a_spoilt_event_is_refused_for_what_is_wrong_with_it(kind: str) -> None:
    _, document, home = _document()
    bad = bad_events.KINDS[kind](document)
    taken = _take(Record(bad.key, bad.value), (home + bad.detour) % SPEC.partitions)
    assert [error.reason for _, error in taken.refused] == [REASONS[kind]]
    assert not taken.events
