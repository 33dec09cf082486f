"""All samples there ever were, as one table: from the archive as far as it is complete, from the log behind that."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaConsumer

from agents.archive import STAGE
from agents.archive.mark import Mark, mark_of
from agents.archive.rows import conform, schema_of, table_of
from schemas.streams import StreamSpec
from stores.archive import Archive, ArchiveFile
from stores.artifacts import ArtifactCorrupted
from stream.batches import TopicPartition
from stream.delivery import quietly
from stream.memory import KafkaMemory
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
        self._memory = KafkaMemory(topics.checkpoints, STAGE, self._source.partition, open_consumer)

    async def end(self) -> int:
        """Return the offset behind the last committed sample. Raises KafkaError."""
        async with self._consumer() as consumer:
            ends: dict[TopicPartition, int] = await consumer.end_offsets([self._source])
        return ends[self._source]

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
        end = await self.end()
        stop = end if stop_offset is None else min(stop_offset, end)
        select = _Selection(self._spec, from_ms, to_ms, stop, columns)
        mark = mark_of(await self._memory.newest({self._source: end}), self._source.topic)
        pieces = await asyncio.to_thread(self._read_archive, mark, select)
        async with aclosing(self._memory.read(self._source, mark.offset, stop)) as batches:
            async for batch in batches:
                pieces.append(select.of(await asyncio.to_thread(table_of, self._spec, batch.records)))
        return await asyncio.to_thread(select.joined, pieces)

    def _read_archive(self, mark: Mark, select: "_Selection") -> list[pa.Table]:
        files = self._archive.files(self._spec.name, mark.log) if mark.offset else []
        return [self._read_file(file, select) for file in files if file.stop <= mark.offset and select.touches(file)]

    def _read_file(self, file: ArchiveFile, select: "_Selection") -> pa.Table:
        try:
            return select.of(self._archive.read([file], select.read))
        except pa.ArrowException as error:
            raise ArtifactCorrupted(
                f"{file.name} in the archive does not fit what stream {file.stream} is now ({error}); if its task was "
                "changed, move the files of before out of the archive"
            ) from error

    @asynccontextmanager
    async def _consumer(self) -> AsyncGenerator[AIOKafkaConsumer, None]:
        consumer = self._open_consumer()
        starting = asyncio.ensure_future(consumer.start())
        try:
            await asyncio.shield(starting)
            yield consumer
        finally:
            await quietly(starting)  # one that is cut off would leave its connection behind
            await consumer.stop()


class _Selection:
    """Which rows and columns are wanted."""

    def __init__(
        self, spec: StreamSpec, from_ms: int | None, to_ms: int | None, stop: int, columns: Sequence[str] | None
    ) -> None:
        whole = schema_of(spec)
        self._columns = whole.names if columns is None else list(columns)
        self._schema = pa.schema([whole.field(name) for name in dict.fromkeys((*self._columns, *NEEDED))])
        self._from_ms = from_ms
        self._to_ms = to_ms
        self._stop = stop

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
        return file.first < self._stop and not early and not late

    def of(self, table: pa.Table) -> pa.Table:
        """Return such rows of a table that has the columns to read, or most of them."""
        times_ms = table["event_time"].to_numpy().astype("datetime64[ms]").astype(np.int64)
        chosen = table["offset"].to_numpy() < self._stop
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
