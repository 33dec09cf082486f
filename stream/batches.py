"""The unit of work: what one fetch gave of one partition, and what a stage makes of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from aiokafka.structs import TopicPartition as TopicPartition  # the same type everywhere


class Record(Protocol):
    """A consumed Kafka record, as aiokafka gives it; `timestamp` is in milliseconds since the epoch."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition, at least one. Offsets grow but may have gaps (commit markers).

    `epoch` tells which opening of the partition the records were fetched under.
    """

    source: TopicPartition
    records: Sequence[Record]
    epoch: int = 0

    @property
    def next_offset(self) -> int:
        """The offset to commit once every record of the batch is done."""
        return self.records[-1].offset + 1

    def cut(self, records: int) -> Iterator["Batch"]:
        """Yield the batch in pieces of at most so many records."""
        for start in range(0, len(self.records), records):
            yield Batch(self.source, self.records[start : start + records], self.epoch)


class Outgoing(NamedTuple):
    """One record to be written. Where there are many, a plain tuple of the same form costs a tenth."""

    key: bytes | None
    value: bytes


@dataclass(slots=True)
class Outbox:
    """Everything a stage makes of a batch: records by target partition, in order."""

    targets: dict[TopicPartition, list[tuple[bytes | None, bytes]]] = field(default_factory=dict)

    def add(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """Append one record."""
        self.extend(topic, partition, [Outgoing(key, value)])

    def extend(self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes]]) -> None:
        """Append records to one partition. Where there are none, it is no target: a transaction would mark it."""
        if records := list(records):
            self.targets.setdefault(TopicPartition(topic, partition), []).extend(records)
