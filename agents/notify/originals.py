"""The records of the alerts that wait: kept in memory, up to a limit, and else read from the log.

Where there is no room for all, the newest make room for the one that comes: of a long queue the oldest are needed
first, and what has just come may be for a sink that takes it at once.
"""

import asyncio
from bisect import bisect_left, insort
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
        self._kept_offsets: list[int] = []  # in order
        self._kept_bytes = 0
        self._gone: set[int] = set()
        self._reading = asyncio.Lock()

    def keep(self, record: Record) -> None:
        """Keep a record; the newest of the others make room for it."""
        if record.offset in self._kept:
            return
        while self._kept and not self._has_room(record):
            self._drop(self._kept_offsets[-1])
        self._kept[record.offset] = Original(record.offset, record.timestamp, record.key, record.value)
        insort(self._kept_offsets, record.offset)
        self._kept_bytes += len(record.value or b"")

    def forget(self, offset: int) -> None:
        """Let a record go that nobody waits for any more."""
        self._gone.discard(offset)
        if offset in self._kept:
            self._drop(offset)

    async def find(self, waiting: Waiting) -> Original:
        """Return the record of what waits; one without a value, if it is not in the log any more.

        What is not in memory is read, and with it what else is waited for: further back than this record only while
        there is room. After a restart that costs one reading of the log, as far back as something waits. Raises
        KafkaError and RetryableError.
        """
        found = self._kept.get(waiting.offset)
        if found is None and waiting.offset not in self._gone:
            async with self._reading:
                found = self._kept.get(waiting.offset)
                if found is None and waiting.offset not in self._gone:
                    found = await self._read(waiting.offset)
        if found is None or found.timestamp != waiting.time_ms:  # another log of the same name has it
            return Original(waiting.offset, waiting.time_ms, None, None)
        return found

    async def _read(self, offset: int) -> Original | None:
        """Return the record at `offset`; keep it, and others. Those that are not met on the way there are gone."""
        missed, found = {*self._wanted(), offset}, None
        until = min(missed)
        async with aclosing(self._history(self._source)) as pieces:
            async for records in pieces:
                for record in reversed(records):
                    if record.offset not in missed:
                        continue
                    if record.offset < offset and not self._has_room(record):
                        until = offset
                        break
                    missed.remove(record.offset)
                    self.keep(record)
                    found = self._kept[offset] if record.offset == offset else found
                if records[0].offset <= until:
                    break
            else:
                until = 0
        self._gone.update(each for each in missed if each >= until)
        self._tidy({*self._wanted(), offset})
        return found

    def _tidy(self, wanted: Collection[int]) -> None:
        """Let go what nobody waits for any more since the reading began."""
        for each in self._kept.keys() - wanted:
            self._drop(each)
        self._gone.intersection_update(wanted)

    def _has_room(self, record: Record) -> bool:
        return self._kept_bytes + len(record.value or b"") <= KEPT_BYTES

    def _drop(self, offset: int) -> None:
        del self._kept_offsets[bisect_left(self._kept_offsets, offset)]
        self._kept_bytes -= len(self._kept.pop(offset).value or b"")
