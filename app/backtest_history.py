"""Where a backtest finds history: in the logs, and in the archive where Kafka has forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import msgspec
from aiokafka import AIOKafkaConsumer

from agents.replay.logs import Logs, logs
from agents.replay.merging import Chained, Held, Source
from agents.replay.question import Question
from app.logs import events_of
from app.partitions import partition_count
from schemas.errors import PenstockError
from stream.batches import Record, TopicPartition
from stream.connection import KafkaConnection
from stream.records import plain
from stream.timestamps import SLACK_MS
from topics import StreamTopics

if TYPE_CHECKING:
    from agents.archive.history import SampleHistory
    from agents.replay.archived import Border

_FETCH_BYTES: Final = 4 * 1024 * 1024


class _Scored(msgspec.Struct, frozen=True, gc=False):
    """What of a Prediction tells from where on the log holds them."""

    event_id: str
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
        self._span = question.span
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
        forgotten = await self._forgotten({log.source.partition: records for log, records in begun if records})
        return [
            Chained([*forgotten.get(log.source.partition, []), Held(log.source, records), log])
            for log, records in begun
        ]

    async def labelled(self) -> Source:
        """Return the samples."""
        log = self._opened.of(self._samples)
        if not (self._question.spec.archive.enabled and (oldest := self._opened.oldest[self._samples])):
            return log
        from agents.replay.archived import Rows, sample_records, samples_of  # with Arrow, which only this needs

        spec = self._question.spec
        table = await self._history().read(from_ms=self._span.from_ms, to_ms=self._span.to_ms, stop_offset=oldest)
        self.archived_samples = table.num_rows
        rows = Rows(self._samples, table, lambda piece: sample_records(spec, samples_of(spec, piece)))
        return Chained([rows, log])

    async def _forgotten(self, held: Mapping[int, Sequence[Record]]) -> Mapping[int, Sequence[Source]]:
        """Return the predictions that Kafka does not have any more, and the archive has the samples of, by partition.

        `held` are the first that it still has. Samples are kept as long as predictions are, and come later: so some
        whose predictions are gone may still be in the log, and those are looked for, too.
        """
        if not self._question.spec.archive.enabled or not any(map(self._forgot, self._parts)):
            return {}
        from agents.replay.archived import WHOLE, Rows, forgotten_of, prediction_records, samples_of

        spec, to_ms = self._question.spec, self._span.to_ms
        borders = {number: _border(records) for number, records in held.items()}
        borders |= {part.partition: WHOLE for part in self._parts if not self._forgot(part)}
        if len(borders) == len(self._parts):
            last_ms = max(border.scored_ms for border in borders.values()) + SLACK_MS + 1
            to_ms = last_ms if to_ms is None else min(last_ms, to_ms)
        table = await self._history().read(from_ms=self._span.from_ms, to_ms=to_ms)
        tables = await asyncio.to_thread(forgotten_of, spec, table, borders)
        self.archived_predictions = sum(found.num_rows for found in tables.values())

        def rows(number: int) -> Source:
            return Rows(
                TopicPartition(StreamTopics(spec.name).predictions, number),
                tables[number],
                lambda piece: prediction_records(samples_of(spec, piece), number),
            )

        return {number: [rows(number)] for number in tables}

    def _forgot(self, part: TopicPartition) -> bool:
        """Whether Kafka may have forgotten records of the partition that would be replayed."""
        oldest = self._opened.oldest[part]
        return 0 < oldest == self._opened.bounds[part][0]

    def _history(self) -> "SampleHistory":
        from agents.archive.history import SampleHistory
        from stores.archive import Archive

        return SampleHistory(self._question.spec, Archive(self._root), self._open_consumer)


@asynccontextmanager
async def past(
    connection: KafkaConnection, question: Question, archive_root: str, samples_stop: int | None = None
) -> AsyncIterator[Past]:
    """Open the history of a stream, or with `samples_stop` only the samples of it, up to that offset.

    Raises PenstockError when it has no topics.
    """

    def open_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=_FETCH_BYTES,
            value_deserializer=plain,
            **connection.client_options(),
        )

    embedded = (await connection.reachable()).embedded
    topics = StreamTopics(question.spec.name)
    count = await partition_count(connection, topics.predictions)
    if not count:
        raise PenstockError(f"stream {question.spec.name} has no topics yet, so nothing was served; start a worker")
    sources, stops = [TopicPartition(topics.samples, 0)], {}
    if samples_stop is None:
        sources += [TopicPartition(topics.predictions, number) for number in range(count)]
    else:
        stops = {sources[0]: samples_stop}
    async with logs(open_consumer, sources, None if embedded else question.span.from_ms, stops) as opened:
        yield Past(question, archive_root, opened, open_consumer)


def _border(records: Sequence[Record]) -> "Border":
    """Return where the log begins, of its first records: those of one batch were scored at one time."""
    from agents.replay.archived import Border

    first, *others = events_of(_Scored, records) or [_Scored("", records[0].timestamp)]
    same = takewhile(lambda scored: scored.scored_time_ms == first.scored_time_ms, others)
    return Border(first.scored_time_ms, frozenset(scored.event_id for scored in (first, *same)))
