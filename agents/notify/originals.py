"""The records of the alerts that wait: kept in memory as they come, up to a limit, and else read from the log."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from agents.notify.queue import Waiting
from stream.batches import Record, TopicPartition

KEPT_BYTES: Final = 4 * 1024 * 1024

History = Callable[[TopicPartition], AsyncGenerator[Sequence[Record], None]]
"""Gives the committed records of a log in pieces, the newest piece first: see `stream.tail.read_back`."""


class Original(NamedTuple):
    """A record as it is kept; a `value` of None stands for one that is gone from the log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Originals:
    """The records of one log that `wanted` says are waited for, by their offsets."""

    def __init__(self, source: TopicPartition, history: History, wanted: Callable[[], Collection[int]]) -> None:
        self._source = source
        self._history = history
        self._wanted = wanted
        self._kept: dict[int, Original] = {}
        self._kept_bytes = 0
        self._reading = asyncio.Lock()

    def keep(self, record: Record) -> None:
        """Keep a record, if there is room."""
        size = len(record.value or b"")
        if self._kept_bytes + size <= KEPT_BYTES and record.offset not in self._kept:
            self._kept[record.offset] = Original(record.offset, record.timestamp, record.key, record.value)
            self._kept_bytes += size

    def forget(self, offset: int) -> None:
        """Let a record go that nobody waits for any more."""
        if (gone := self._kept.pop(offset, None)) is not None:
            self._kept_bytes -= len(gone.value or b"")

    async def find(self, waiting: Waiting) -> Original:
        """Return the record of what waits; one without a value, if it is not in the log any more.

        What is not in memory is read, together with all else that is waited for and has room: after a restart that
        costs one reading of the log, as far back as something waits. Raises KafkaError and RetryableError.
        """
        found = self._kept.get(waiting.offset)
        if found is None:
            async with self._reading:
                found = self._kept.get(waiting.offset) or await self._read(waiting.offset)
        if found is None or found.timestamp != waiting.time_ms:  # another log of the same name has it
            return Original(waiting.offset, waiting.time_ms, None, None)
        return found

    async def _read(self, offset: int) -> Original | None:
        wanted, found = {*self._wanted(), offset}, None
        oldest = min(wanted)
        async with aclosing(self._history(self._source)) as pieces:
            async for records in pieces:
                for record in records:
                    if record.offset == offset:
                        found = Original(record.offset, record.timestamp, record.key, record.value)
                    if record.offset in wanted:
                        self.keep(record)
                if records[0].offset <= oldest:
                    break
        return found
