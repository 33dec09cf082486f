"""Where a backtest finds history: in the logs, and in the archive where Kafka has forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
from aiokafka import AIOKafkaConsumer

from agents.replay.logs import Logs, logs
from agents.replay.merging import Chained, Held, Source
from agents.replay.question import Question
from app.partitions import partition_count
from schemas.errors import InvalidEvent
from schemas.wire import decode
from stream.batches import Record, TopicPartition
from stream.connection import KafkaConnection
from topics import StreamTopics

if TYPE_CHECKING:
    from agents.replay.archived import Archived

_FETCH_BYTES: Final = 4 * 1024 * 1024


class _Scored(msgspec.Struct, frozen=True, gc=False):
    """The one field of a Prediction that tells from when on the log holds them."""

    scored_time_ms: int


class Past:
    """The history of one stream as it was when this was opened. Each source is to be asked for once."""

    def __init__(
        self, question: Question, archive_root: str, opened: Logs, open_consumer: Callable[[], AIOKafkaConsumer]
    ) -> None:
        topics = StreamTopics(question.spec.name)
        self._question = question
        self._root = archive_root
        self._opened = opened
        self._open_consumer = open_consumer
        self._samples = TopicPartition(topics.samples, 0)
        self._parts = sorted(source for source in opened.bounds if source.topic == topics.predictions)
        self._archived: Sequence[Archived] | None = None
        self.archived_samples = self.archived_predictions = 0

    @property
    def predictions(self) -> dict[int, tuple[int, int]]:
        """The offsets that are read of each partition of predictions: from the first to before the second."""
        return {part.partition: self._opened.bounds[part] for part in self._parts}

    @property
    def samples(self) -> tuple[int, int]:
        """The offsets that are read of the samples."""
        return self._opened.bounds[self._samples]

    async def served(self) -> list[Source]:
        """Return the predictions, by partition."""
        begun = [(log, list(await log.more())) for log in map(self._opened.of, self._parts)]
        held_from_ms = {log.source.partition: _scored_ms(records[0]) for log, records in begun if records}
        forgotten = await self._forgotten_predictions(held_from_ms)
        self.archived_predictions = sum(map(len, forgotten.values()))
        return [
            Chained([Held(log.source, forgotten.get(log.source.partition, [])), Held(log.source, records), log])
            for log, records in begun
        ]

    async def labelled(self) -> Source:
        """Return the samples."""
        forgotten: Sequence[Record] = []
        if found := await self._archive():
            from agents.replay.archived import sample_records

            forgotten = await asyncio.to_thread(sample_records, self._question.spec, found)
        self.archived_samples = len(forgotten)
        return Chained([Held(self._samples, forgotten), self._opened.of(self._samples)])

    async def _forgotten_predictions(self, held_from_ms: Mapping[int, int]) -> Mapping[int, Sequence[Record]]:
        """Return what is only in the archive, by partition."""
        if not (found := await self._archive()):
            return {}
        from agents.replay.archived import prediction_records

        return await asyncio.to_thread(prediction_records, self._question.spec, found, held_from_ms)

    async def _archive(self) -> "Sequence[Archived]":
        """Return the samples that Kafka has forgotten and the archive has."""
        oldest, spec = self._opened.oldest[self._samples], self._question.spec
        if self._archived is None:
            self._archived = await self._read_archive(oldest) if oldest and spec.archive.enabled else []
        return self._archived

    async def _read_archive(self, stop_offset: int) -> "Sequence[Archived]":
        from agents.archive.history import SampleHistory  # with Arrow, which only this needs
        from agents.replay.archived import samples_of
        from stores.archive import Archive

        span = self._question.span
        history = SampleHistory(self._question.spec, Archive(self._root), self._open_consumer)
        table = await history.read(from_ms=span.from_ms, to_ms=span.to_ms, stop_offset=stop_offset)
        return await asyncio.to_thread(samples_of, self._question.spec, table)


@asynccontextmanager
async def past(connection: KafkaConnection, question: Question, archive_root: str) -> AsyncIterator[Past]:
    """Open the history of a stream whose topics exist."""

    def open_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=_FETCH_BYTES,
            **connection.client_options(),
        )

    embedded = (await connection.reachable()).embedded
    topics = StreamTopics(question.spec.name)
    numbers = range(await partition_count(connection, topics.predictions))
    sources = [TopicPartition(topics.samples, 0), *(TopicPartition(topics.predictions, number) for number in numbers)]
    async with logs(open_consumer, sources, None if embedded else question.span.from_ms) as opened:
        yield Past(question, archive_root, opened, open_consumer)


def _scored_ms(record: Record) -> int:
    try:
        return decode(_Scored, record.value).scored_time_ms
    except InvalidEvent:
        return record.timestamp
