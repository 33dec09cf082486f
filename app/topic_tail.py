"""The newest records of any topic of a stream, and those that come after them."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from app.embedded import PARTITIONS
from app.models import log_reader
from app.partitions import partition_count
from schemas.errors import SettingsError
from schemas.streams import StreamSpec
from stream.batches import Record, TopicPartition
from stream.connection import KafkaConnection
from stream.consumers import opened
from stream.tail import end_of, newest
from topics import topics_of


@dataclass(frozen=True, slots=True)
class Placed:
    """A record and the partition that it is in."""

    partition: int
    record: Record

    def value_line(self) -> str:
        """Return its value on one line: as JSON, or as a JSON text where it is something else; null without a value."""
        return _line(_value(self.record.value))

    def line(self) -> str:
        """Return all of it on one line, as JSON; the time is the one that Kafka keeps."""
        record = self.record
        return _line(
            {
                "partition": self.partition,
                "offset": record.offset,
                "time_ms": record.timestamp,
                "key": None if record.key is None else record.key.decode(errors="replace"),
                "value": _value(record.value),
            }
        )


def topic_called(spec: StreamSpec, name: str) -> str:
    """Return the topic of the stream that is called so, with the stream's name before it or without.

    Raises SettingsError, which names the topics, when there is none.
    """
    prefix = f"{spec.name}."
    known = [topic.name for topic in topics_of(spec)]
    topic = name if name.startswith(prefix) else prefix + name
    if topic not in known:
        short = ", ".join(sorted(each.removeprefix(prefix) for each in known))
        raise SettingsError(f"stream {spec.name} has no topic {name!r}; its topics are {short}")
    return topic


async def tail(
    connection: KafkaConnection, topic: str, count: int, follow: Callable[[], bool]
) -> AsyncGenerator[Placed, None]:
    """Yield the newest `count` committed records of a topic in the order of their times, and then all that come for as
    long as `follow` says so; it is asked five times a second.

    Reads about `count` records of each partition. Raises KafkaError, and RetryableError when nothing has come for 30 s.
    """
    partitions = await partition_count(connection, topic) or PARTITIONS  # the embedded broker makes it on first use
    sources = [TopicPartition(topic, partition) for partition in range(partitions)]
    ends = {source: await end_of(lambda: log_reader(connection), source) for source in sources}
    found = [
        Placed(source.partition, record)
        for source, end in ends.items()
        for record in await newest(lambda: log_reader(connection), source, count, end)
    ]
    found.sort(key=lambda placed: placed.record.timestamp)
    for placed in found[max(0, len(found) - count) :]:
        yield placed
    if follow():
        async with aclosing(_following(connection, ends, follow)) as coming:
            async for placed in coming:
                yield placed


async def _following(
    connection: KafkaConnection, ends: Mapping[TopicPartition, int], follow: Callable[[], bool]
) -> AsyncGenerator[Placed, None]:
    """Yield the records from `ends` on, as they come."""
    async with opened(log_reader(connection)) as consumer:
        consumer.assign(list(ends))
        for source, end in ends.items():
            consumer.seek(source, end)
        while follow():
            for source, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    yield Placed(source.partition, record)


def _value(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return value.decode(errors="replace")


def _line(document: Any) -> str:
    """Return JSON in which everything that a terminal would obey is written as an escape: a record may say anything."""
    text = json.dumps(document, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
