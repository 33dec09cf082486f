"""Where a backtest finds history: in the logs, and in the archive where Kafka has forgotten."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from aiokafka import AIOKafkaConsumer

from agents.replay.logs import Logs
from agents.replay.merging import Chained, Held, Source
from agents.replay.question import Question
from schemas.errors import InvalidEvent
from schemas.wire import decode
from stream.batches import Record, TopicPartition

if TYPE_CHECKING:
    from agents.replay.archived import Kept


class _Scored(msgspec.Struct, frozen=True, gc=False):
    """The one field of a Prediction that tells from when on the log holds them."""

    scored_time_ms: int


class Past:
    """The sources of a history, from the archive and the logs."""

    def __init__(
        self, archive_root: str, question: Question, opened: Logs, open_consumer: Callable[[], AIOKafkaConsumer]
    ) -> None:
        self._root = archive_root
        self._question = question
        self._opened = opened
        self._open_consumer = open_consumer
        self.archived_samples = self.archived_predictions = 0

    @property
    def archived_records(self) -> int:
        """How many records come from the archive."""
        return self.archived_samples + self.archived_predictions

    async def sources(self, parts: Sequence[TopicPartition], samples: TopicPartition) -> list[Source]:
        """Return the sources: the partitions of predictions in their order, then the samples."""
        begun = [(source, list(await source.more())) for source in map(self._opened.of, parts)]
        forgotten, predictions = await self._forgotten(samples, {s.source.partition: r for s, r in begun if r})
        found: list[Source] = [
            Chained(
                [
                    Held(source.source, predictions.get(source.source.partition, [])),
                    Held(source.source, records),
                    source,
                ]
            )
            for source, records in begun
        ]
        return [*found, Chained([Held(samples, forgotten), self._opened.of(samples)])]

    async def _forgotten(
        self, samples: TopicPartition, held: Mapping[int, Sequence[Record]]
    ) -> tuple[Sequence["Kept"], Mapping[int, Sequence["Kept"]]]:
        """Return what is only in the archive: records of samples, and of predictions by partition."""
        spec, oldest = self._question.spec, self._opened.oldest[samples]
        if not oldest or not spec.archive.enabled:
            return [], {}
        from agents.archive.history import SampleHistory  # with Arrow, which only this needs
        from agents.replay.archived import prediction_records, sample_records, samples_of
        from stores.archive import Archive

        history = SampleHistory(spec, Archive(self._root), self._open_consumer)
        span = self._question.span
        table = await history.read(from_ms=span.from_ms, to_ms=span.to_ms, stop_offset=oldest)
        found = await asyncio.to_thread(samples_of, spec, table)
        held_from_ms = {number: _scored_ms(records[0]) for number, records in held.items()}
        predictions = prediction_records(spec, found, held_from_ms)
        self.archived_samples = len(found)
        self.archived_predictions = sum(map(len, predictions.values()))
        return sample_records(spec, found), predictions


def _scored_ms(record: Record) -> int:
    try:
        return decode(_Scored, record.value).scored_time_ms
    except InvalidEvent:
        return record.timestamp
