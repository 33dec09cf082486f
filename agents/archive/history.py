"""All samples there ever were, as one table: from the archive as far as it is complete, from the log behind that."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaConsumer

from agents.archive import STAGE
from agents.archive.mark import Mark, mark_of, recognised
from agents.archive.rows import conform, schema_of, table_of
from schemas.streams import StreamSpec
from stores.archive import Archive, ArchiveFile
from stores.artifacts import ArtifactCorrupted
from stream.batches import TopicPartition
from stream.consumers import opened
from stream.memory import KafkaMemory, Memory
from stream.timestamps import SLACK_MS
from topics.specs import StreamTopics

NEEDED: Final = ("offset", "event_time")  # to select rows by
EPOCH: Final = date(1970, 1, 1)
DAY_MS: Final = 24 * 60 * 60_000


class SampleHistory:
    """The samples of one stream. `open_consumer` makes a consumer without a group that reads what is committed."""

    def __init__(self, spec: StreamSpec, archive: Archive, open_consumer: Callable[[], AIOKafkaConsumer]) -> None:
        self._spec = spec
        self._archive = archive
        self._open_consumer = open_consumer
        topics = StreamTopics(spec.name)
        self._source = TopicPartition(topics.samples, 0)
        self._memory: Memory = KafkaMemory(topics.checkpoints, STAGE, self._source.partition, open_consumer)

    async def end(self) -> int:
        """Return the offset behind the last committed sample. Raises KafkaError."""
        return (await self._bounds())[1]

    async def read(
        self,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        stop_offset: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return the samples with event times in [from_ms, to_ms) and offsets below `stop_offset`, by offset.

        Each offset is there once, every revision of an event is a row of its own; the columns are `columns` of
        `schema_of`, or all. What a file of an earlier list of features lacks is null. About 1 µs for an archived row,
        10 µs for one of the log. Raises KafkaError, ArtifactUnavailable, and ArtifactCorrupted when a file is damaged.
        """
        select = _Selection(self._spec, from_ms, to_ms, stop_offset, columns)
        async with aclosing(self._pieces(select)) as pieces:
            found = [piece async for piece in pieces]
        return await asyncio.to_thread(select.joined, found)

    async def pieces(self, *, stop_offset: int, columns: Sequence[str]) -> AsyncGenerator[pa.Table, None]:
        """Yield all samples below `stop_offset` as tables of `columns`: one for each file, and then those of the log.

        So one who only counts holds no more than a chunk of them. A chunk's files have one date each, and a row may
        come twice when somebody copied a file: whom that matters to asks for the offset. To be closed by the reader.
        """
        select = _Selection(self._spec, None, None, stop_offset, columns)
        async with aclosing(self._pieces(select)) as pieces:
            async for piece in pieces:
                yield piece

    async def missing(self, *, stop_offset: int, from_ms: int) -> int:
        """Return how many samples below `stop_offset`, of events from `from_ms` on, are lost at most.

        Those are neither archived nor in Kafka, which forgot them before. Offsets are counted, of which some may be
        commit markers. Where Kafka has forgotten more than the archive has by now, no time of an event is known.
        """
        oldest, end = await self._bounds()
        mark = await self._mark(oldest, end)
        holes = [(hole.first, hole.stop) for hole in mark.holes if hole.until_ms + SLACK_MS >= from_ms]
        if mark.offset or self._spec.archive.enabled:
            holes.append((mark.offset, oldest))
        return sum(max(0, min(stop, stop_offset) - first) for first, stop in holes)

    async def _pieces(self, select: "_Selection") -> AsyncGenerator[pa.Table, None]:
        oldest, end = await self._bounds()
        mark = await self._mark(oldest, end)
        for file in await asyncio.to_thread(self._files, mark, select):
            yield await asyncio.to_thread(self._read_file, file, select)
        stop = end if select.stop is None else min(select.stop, end)
        async with aclosing(self._memory.read(self._source, mark.offset, stop)) as batches:
            async for batch in batches:
                yield select.of(await asyncio.to_thread(table_of, self._spec, batch.records))

    async def _bounds(self) -> tuple[int, int]:
        """Return the offset of the oldest sample in the log, and that behind the last committed one."""
        async with opened(self._open_consumer()) as consumer:
            oldest: dict[TopicPartition, int] = await consumer.beginning_offsets([self._source])
            ends: dict[TopicPartition, int] = await consumer.end_offsets([self._source])
        return oldest[self._source], ends[self._source]

    async def _mark(self, oldest: int, end: int) -> Mark:
        """Return how far the archive is complete; the checkpoint may still be of a log that was deleted."""
        mark = mark_of(await self._memory.newest({self._source: end}), self._source.topic)
        if oldest < mark.offset:
            mark, _ = await recognised(mark, self._memory, self._source)
        return mark

    def _files(self, mark: Mark, select: "_Selection") -> list[ArchiveFile]:
        files = self._archive.files(self._spec.name, mark.log) if mark.offset else []
        return [file for file in files if file.stop <= mark.offset and select.touches(file)]

    def _read_file(self, file: ArchiveFile, select: "_Selection") -> pa.Table:
        try:
            return select.of(self._archive.read([file], select.read))
        except pa.ArrowException as error:
            raise ArtifactCorrupted(
                f"{file.name} in the archive does not fit what stream {file.stream} is now ({error}); if its task was "
                "changed, move the files of before out of the archive"
            ) from error


class _Selection:
    """Which rows and columns are wanted."""

    def __init__(
        self, spec: StreamSpec, from_ms: int | None, to_ms: int | None, stop: int | None, columns: Sequence[str] | None
    ) -> None:
        whole = schema_of(spec)
        self._columns = whole.names if columns is None else list(columns)
        self._schema = pa.schema([whole.field(name) for name in dict.fromkeys((*self._columns, *NEEDED))])
        self._from_ms = from_ms
        self._to_ms = to_ms
        self.stop: Final = stop

    @property
    def read(self) -> list[str]:
        """The columns to read: those that are wanted, and those that rows are selected by."""
        names: list[str] = self._schema.names
        return names

    def touches(self, file: ArchiveFile) -> bool:
        """Whether the file may have such rows."""
        begin_ms = (file.date - EPOCH).days * DAY_MS
        early = self._to_ms is not None and begin_ms >= self._to_ms
        late = self._from_ms is not None and begin_ms + DAY_MS <= self._from_ms
        behind = self.stop is not None and file.first >= self.stop
        return not behind and not early and not late

    def of(self, table: pa.Table) -> pa.Table:
        """Return such rows of a table that has the columns to read, or most of them."""
        times_ms = table["event_time"].to_numpy().astype("datetime64[ms]").astype(np.int64)
        chosen = np.ones(len(times_ms), dtype=np.bool_)
        if self.stop is not None:
            chosen &= table["offset"].to_numpy() < self.stop
        if self._from_ms is not None:
            chosen &= times_ms >= self._from_ms
        if self._to_ms is not None:
            chosen &= times_ms < self._to_ms
        return conform(table if chosen.all() else table.filter(pa.array(chosen)), self._schema)

    def joined(self, pieces: Sequence[pa.Table]) -> pa.Table:
        """Return the rows of all pieces in the order of the log: the files of a chunk have one date each."""
        whole = pa.concat_tables([self._schema.empty_table(), *pieces]).combine_chunks()
        offsets = whole["offset"].to_numpy()
        steps = np.diff(offsets)
        if (steps <= 0).any():
            order = np.unique(offsets, return_index=True)[1]  # once each, though somebody copied a file
            whole = whole.take(pa.array(order))
        return whole.select(self._columns)
