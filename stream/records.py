"""Records as aiokafka's C extension reads them, without the object that aiokafka makes of each: a third of the cost."""

from typing import Any

from aiokafka.consumer import fetcher

from stream.batches import Record


def plain(value: bytes | None) -> bytes | None:
    """Return the value. As `value_deserializer` of a consumer it asks for plain records; see `Record`.

    The getmany and getone of such a consumer give records that do not know their topic and partition.
    """
    return value


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types here
    def _consumer_record(self, tp: Any, record: Record) -> Record:
        if self._value_deserializer is plain:
            return record
        given: Record = super()._consumer_record(tp, record)
        return given


fetcher.PartitionRecords = _PartitionRecords
