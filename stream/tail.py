"""Reading a log from its end: for who wants the newest records, however long the log is."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import AIOKafkaConsumer

from schemas.errors import RetryableError
from stream.batches import Record, TopicPartition
from stream.consumers import opened

FIRST_RECORDS: Final = 16
MOST_RECORDS: Final = 4_096
STALLED_S: Final = 30.0


async def read_back(
    open_consumer: Callable[[], AIOKafkaConsumer], source: TopicPartition, stop: int | None = None
) -> AsyncGenerator[Sequence[Record], None]:
    """Yield what is committed of `source` before offset `stop` (by default: before its end), the newest piece first.

    The records of a piece are in order. At the end there may be only commit markers, and no records: so each piece
    reaches four times as far back as the one before it. `open_consumer` makes a consumer without a group that reads
    what is committed. To be closed by the reader, who may stop anywhere. Raises RetryableError when nothing has come
    for 30 s.
    """
    async with opened(open_consumer()) as consumer:
        consumer.assign([source])
        oldest = (await consumer.beginning_offsets([source]))[source]
        end = (await consumer.end_offsets([source]))[source] if stop is None else stop
        reach = FIRST_RECORDS
        while end > oldest:
            start = max(oldest, end - reach)
            if records := await read_between(consumer, source, start, end):
                yield records
            end, reach = start, min(4 * reach, MOST_RECORDS)


async def newest(
    open_consumer: Callable[[], AIOKafkaConsumer], source: TopicPartition, count: int, stop: int | None = None
) -> list[Record]:
    """Return the last `count` records of what `read_back` reads, in their order; fewer if there are no more."""
    found: list[Record] = []
    async with aclosing(read_back(open_consumer, source, stop)) as pieces:
        async for records in pieces:
            found = [*records, *found]
            if len(found) >= count:
                break
    return found[max(0, len(found) - count) :]


async def end_of(open_consumer: Callable[[], AIOKafkaConsumer], source: TopicPartition) -> int:
    """Return the offset behind the last record of `source` that is committed by now. Raises KafkaError."""
    async with opened(open_consumer()) as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets([source])
    return ends[source]


async def read_between(consumer: AIOKafkaConsumer, source: TopicPartition, start: int, end: int) -> list[Record]:
    """Return the records of [start, end), of a `source` that is assigned and goes on at least to `end`.

    It is the position that tells the end: markers are no records. Raises RetryableError when nothing has come for 30 s.
    """
    consumer.seek(source, start)
    found: list[Record] = []
    position = start
    while position < end:
        before = position
        try:
            async with asyncio.timeout(STALLED_S):
                while position == before:
                    fetched = await consumer.getmany(source, timeout_ms=200)
                    found += [record for record in fetched.get(source, []) if record.offset < end]
                    position = await consumer.position(source)
        except TimeoutError:
            raise RetryableError(
                f"offset {before} of {source.topic} has not come for {STALLED_S:g} s; check that the brokers run"
            ) from None
    return found
