"""Reading a log from its end, when the broker goes away in the middle of it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing

import pytest

from schemas.errors import RetryableError
from stream.batches import Record, TopicPartition
from stream.tail import FIRST_RECORDS, STALLED_S, newest, read_back
from tests.support import Entry, leap_through, now

LOG = TopicPartition("flights.drift", 0)


class Consumer:
    """Reads a log of 100 records, one every 20 s; from offset `stalls_at` on none comes."""

    def __init__(self, stalls_at: int) -> None:
        self.stalls_at, self.at, self.stopped = stalls_at, 0, False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {LOG: 0}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {LOG: 100}

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.at, self.due = offset, now() + 20

    async def getmany(self, source: TopicPartition, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        await asyncio.sleep(timeout_ms / 1000)
        if self.at >= self.stalls_at or now() < self.due:
            return {}
        self.at, self.due = self.at + 1, self.due + 20
        return {LOG: [Entry(self.at - 1)]}

    async def position(self, source: TopicPartition) -> int:
        return self.at


async def first_piece(consumer: Consumer) -> list[int]:
    async with aclosing(read_back(lambda: consumer, LOG)) as pieces:  # type: ignore[arg-type, return-value]
        async for records in pieces:
            return [record.offset for record in records]
    return []


def test_a_log_that_no_longer_comes_is_given_up_in_time() -> None:
    async def main() -> None:
        consumer = Consumer(stalls_at=90)
        with pytest.raises(RetryableError, match=r"offset 90 of flights\.drift has not come for 30 s"):
            await first_piece(consumer)
        assert consumer.stopped
        assert now() < (90 - (100 - FIRST_RECORDS)) * 20 + STALLED_S + 1

    leap_through(main())


def test_a_log_that_comes_slowly_is_waited_for() -> None:
    assert leap_through(first_piece(Consumer(stalls_at=100))) == [*range(100 - FIRST_RECORDS, 100)]


@pytest.mark.parametrize(
    ("count", "stop", "offsets"),
    [(3, None, [97, 98, 99]), (30, 50, [*range(20, 50)]), (300, 90, [*range(90)]), (0, None, [])],
)
def test_the_newest_records_are_told_in_their_order(count: int, stop: int | None, offsets: list[int]) -> None:
    async def main() -> list[int]:
        records = await newest(lambda: Consumer(stalls_at=100), LOG, count, stop)  # type: ignore[arg-type, return-value]
        return [record.offset for record in records]

    assert leap_through(main()) == offsets
