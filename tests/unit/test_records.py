"""Plain records: what the stages read of a record, without what aiokafka would make of it."""

from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.records import plain


def _read(deserializer: Any) -> list[Any]:
    """What a consumer with this value deserializer makes of two records."""
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_000)
    batch.append(0, 1_700_000_000_000, b"key", b"value", [])
    batch.append(1, 1_700_000_000_001, None, None, [])
    records = MemoryRecords(bytes(batch.build()))
    return list(fetcher.PartitionRecords(TopicPartition("t", 0), records, None, 0, None, deserializer, True, 0))


def test_a_plain_record_has_what_a_stage_reads() -> None:
    read = [(record.offset, record.timestamp, record.key, record.value) for record in _read(plain)]
    assert read == [(0, 1_700_000_000_000, b"key", b"value"), (1, 1_700_000_000_001, None, None)]


def test_a_plain_record_is_no_consumer_record() -> None:
    assert not any(isinstance(record, ConsumerRecord) for record in _read(plain)), "the cost is there again"


@pytest.mark.parametrize("deserializer", [None, lambda value: value])
def test_other_consumers_get_what_they_always_got(deserializer: Any) -> None:
    assert [(record.topic, record.value) for record in _read(deserializer)] == [("t", b"value"), ("t", None)]
