"""The logs of a stream as sources of its history: what Kafka holds of them at one moment, and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer

from schemas.errors import RetryableError
from stream.batches import Record, TopicPartition
from stream.consumers import opened
from stream.tail import STALLED_S
from stream.timestamps import SLACK_MS

MOST_RECORDS: Final = 16_384
Bounds = Mapping[TopicPartition, tuple[int, int]]
"""The offsets of each partition that are read: from the first up to, but not including, the second."""


class Logs:
    """Partitions that one consumer reads side by side, up to where they ended when this was opened."""

    def __init__(self, consumer: AIOKafkaConsumer, bounds: Bounds, oldest: Mapping[TopicPartition, int]) -> None:
        """`oldest` are the offsets before which Kafka holds nothing any more."""
        self.bounds = bounds
        self.oldest = oldest
        self._consumer = consumer

    def of(self, source: TopicPartition) -> "LogSource":
        """Return the source of one partition; each is to be asked for once."""
        return LogSource(self._consumer, source, *self.bounds[source])


class LogSource:
    """One partition of the log."""

    def __init__(self, consumer: AIOKafkaConsumer, source: TopicPartition, start: int, stop: int) -> None:
        self.source = source
        self._consumer = consumer
        self._position, self._stop = start, stop
        if start < stop:
            consumer.resume(source)

    async def more(self) -> Sequence[Record]:
        """Return what was fetched next. Raises RetryableError when nothing has come for 30 s.

        It is the position that tells the end: behind the last record there may be commit markers.
        """
        try:
            async with asyncio.timeout(STALLED_S) as patience:
                while self._position < self._stop:
                    before = self._position
                    fetched = await self._consumer.getmany(self.source, timeout_ms=200, max_records=MOST_RECORDS)
                    self._position = await self._consumer.position(self.source)
                    records: list[Record] = fetched.get(self.source, [])
                    if self._position >= self._stop:
                        self._consumer.pause(self.source)  # what is written meanwhile is no part of this history
                        records = [record for record in records if record.offset < self._stop]
                    if records:
                        return records
                    if self._position != before:
                        patience.reschedule(asyncio.get_running_loop().time() + STALLED_S)
        except TimeoutError:
            raise RetryableError(
                f"offset {self._position} of {self.source.topic} has not come for {STALLED_S:g} s; check that the "
                "brokers run"
            ) from None
        return []


@asynccontextmanager
async def logs(
    open_consumer: Callable[[], AIOKafkaConsumer],
    sources: Sequence[TopicPartition],
    from_ms: int | None,
    stops: Mapping[TopicPartition, int] | None = None,
) -> AsyncIterator[Logs]:
    """Open partitions that exist, from the first record on that can be of an event at `from_ms` or later.

    No event is believed to be further ahead of Kafka's clock than a day. Without `from_ms` all is read: the embedded
    broker cannot search by time. Where `stops` says so, a partition is read up to there. `open_consumer` makes a
    consumer without a group, not started, that reads what is committed.
    """
    async with opened(open_consumer()) as consumer:
        consumer.assign(list(sources))
        consumer.pause(*sources)  # until somebody reads one
        oldest = await consumer.beginning_offsets(sources)
        ends = await consumer.end_offsets(sources) | dict(stops or {})
        starts = dict(oldest)
        if from_ms is not None:
            starts |= await _later(consumer, ends, max(from_ms - SLACK_MS, 0))
        starts = {source: min(starts[source], ends[source]) for source in sources}
        for source in sources:
            consumer.seek(source, starts[source])
        yield Logs(consumer, {source: (starts[source], ends[source]) for source in sources}, oldest)


async def _later(
    consumer: AIOKafkaConsumer, stops: Mapping[TopicPartition, int], time_ms: int
) -> dict[TopicPartition, int]:
    """Return where the records from a time on begin."""
    found = await consumer.offsets_for_times(dict.fromkeys(stops, time_ms))
    return {source: stops[source] if at is None else at.offset for source, at in found.items()}
