"""Looks at the large topics without reading them: at their ends, and at the newest predictions.

A Prediction names the event that it answers, and so does a dead letter; both follow the order of the events. So what
was answered, and what waits, is known from the last of them in each partition.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer

from app.page.board import StreamFold
from app.page.flow import Look
from schemas.streams import StreamSpec
from schemas.wire import DECODE_ERRORS
from stream.batches import Record, TopicPartition
from topics.specs import StreamTopics

NEWEST: Final = 200  # predictions of one partition
MOST_NEWEST: Final = 2_000  # of all partitions of a stream
_FIRST_REACHES: Final = (16, 256, 4_096)
_POLL_MS: Final = 200

Span = tuple[int, int]


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Prediction that a look needs."""

    offset: int
    latency_ms: int = 0


_ANSWERS: Final = msgspec.json.Decoder(_Answer)


class Ends:
    """Looks at the large topics of some streams. `consumer` has no group; it is started and has no assignment yet."""

    def __init__(self, consumer: AIOKafkaConsumer, streams: Iterable[StreamSpec], clock_ms: Callable[[], int]) -> None:
        self._consumer = consumer
        self._streams = [_Partitions(spec) for spec in streams]
        self._clock_ms = clock_ms

    async def open(self) -> None:
        """Find out what was answered last. To be called once, before the first look."""
        predictions = [place for stream in self._streams for place in stream.predictions]
        features = [place for stream in self._streams for place in stream.features]
        self._consumer.assign(predictions)
        self._consumer.pause(*predictions)
        firsts = await self._consumer.beginning_offsets([*predictions, *features])
        ends = await self._consumer.end_offsets([*predictions, *features])
        for stream in self._streams:
            stream.begin(firsts, ends)
        for reach in _FIRST_REACHES:
            unknown = [(stream, place) for stream in self._streams for place in stream.unknown]
            spans = {place: (max(firsts[place], ends[place] - reach), ends[place]) for _, place in unknown}
            found = await self._read(spans)
            for stream, place in unknown:
                stream.take(place, found[place])

    async def look(self, folds: Mapping[str, StreamFold]) -> None:
        """Give each fold a look at its stream."""
        large = [place for stream in self._streams for place in (*stream.features, *stream.predictions)]
        ends = await self._consumer.end_offsets(large)
        now_ms = self._clock_ms()
        found = await self._read({place: span for stream in self._streams for place, span in stream.news(ends)})
        for stream in self._streams:
            latencies = [
                latency
                for place in stream.predictions
                if place in found
                for latency in stream.take(place, found[place])
            ]
            folds[stream.name].look(stream.look(now_ms, ends, latencies))
            await asyncio.sleep(0)  # there may be hundreds of streams

    async def _read(self, spans: Mapping[TopicPartition, Span]) -> dict[TopicPartition, list[Record]]:
        """Return the records of these spans of offsets, each of which ends where its partition did, or before."""
        found: dict[TopicPartition, list[Record]] = {place: [] for place in spans}
        left = {place: end for place, (start, end) in spans.items() if start < end}
        for place in left:
            self._consumer.seek(place, spans[place][0])
        self._consumer.resume(*left)
        while left:
            fetched = await self._consumer.getmany(*left, timeout_ms=_POLL_MS)
            for place, records in fetched.items():
                found[place] += [record for record in records if record.offset < left[place]]
            done = [place for place, end in left.items() if await self._consumer.position(place) >= end]
            self._consumer.pause(*done)
            left = {place: end for place, end in left.items() if place not in done}
        return found


class _Partitions:
    """Where one stream's features and predictions are, and how far its predictions have been read."""

    def __init__(self, spec: StreamSpec) -> None:
        topics = StreamTopics(spec.name)
        self.name = spec.name
        self.features = [TopicPartition(topics.features, partition) for partition in range(spec.partitions)]
        self.predictions = [TopicPartition(topics.predictions, partition) for partition in range(spec.partitions)]
        self._most = max(min(NEWEST, MOST_NEWEST // spec.partitions), 1)
        self._read_to: dict[TopicPartition, int] = {}
        self._answered: dict[int, int] = {}

    def begin(self, firsts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Take what is there for seen. Where there are no predictions at all, all events wait."""
        self._read_to = {place: ends[place] for place in self.predictions}
        empty = [place.partition for place in self.predictions if firsts[place] == ends[place]]
        self._answered = {place.partition: firsts[place] for place in self.features if place.partition in empty}

    @property
    def unknown(self) -> list[TopicPartition]:
        """The partitions of which no prediction has been found yet."""
        return [place for place in self.predictions if place.partition not in self._answered]

    def news(self, ends: Mapping[TopicPartition, int]) -> list[tuple[TopicPartition, Span]]:
        """Return what is to be read of each partition that has news: its newest offsets."""
        spans = [
            (place, (max(self._read_to[place], ends[place] - self._most), ends[place])) for place in self.predictions
        ]
        self._read_to |= {place: end for place, (_, end) in spans}
        return [(place, span) for place, span in spans if span[0] < span[1]]

    def take(self, place: TopicPartition, records: Sequence[Record]) -> list[int]:
        """Note what these predictions answer; return their latencies in milliseconds."""
        found = []
        for record in records:
            try:
                found.append(_ANSWERS.decode(record.value or b""))
            except DECODE_ERRORS:
                continue
        if found:
            answered = max(answer.offset for answer in found) + 1
            self._answered[place.partition] = max(self._answered.get(place.partition, 0), answered)
        return [answer.latency_ms for answer in found]

    def look(self, time_ms: int, ends: Mapping[TopicPartition, int], latencies_ms: Sequence[int]) -> Look:
        """Return a look. Where no prediction was found though there were some, nothing is taken to wait."""
        return Look(
            time_ms=time_ms,
            ends={place.partition: ends[place] for place in self.features},
            answered={
                place.partition: min(self._answered.get(place.partition, ends[place]), ends[place])
                for place in self.features
            },
            latencies_ms=latencies_ms,
        )
