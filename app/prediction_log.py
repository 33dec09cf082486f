"""Predictions that were logged, found again: by their place, by the event and when it was scored, or at random."""

import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer

from app.logs import event_of
from app.models import log_reader
from app.partitions import partition_count
from schemas.errors import PenstockError
from schemas.events import Prediction
from schemas.streams import StreamSpec
from schemas.wire import decode
from stream.batches import Record, TopicPartition
from stream.connection import KafkaConnection
from stream.consumers import opened
from stream.tail import read_between
from topics import StreamTopics

_SLICE: Final = 16_384  # offsets that are read in one go: about 10 MB
_NEAR: Final = 4_096  # offsets: reading on over so many is no slower than asking anew
_FARTHEST: Final = 16_384  # offsets that are looked through for neighbours, to each side

Place = tuple[int, int]  # partition and offset of a record in <s>.predictions


class Logged(NamedTuple):
    """A prediction and where its record is; `logged_time_ms` is the record's timestamp."""

    place: Place
    logged_time_ms: int
    prediction: Prediction


class _Named(msgspec.Struct, frozen=True, gc=False):
    """The one field of a Prediction that a search looks at."""

    event_id: str


_named: Final = msgspec.json.Decoder(_Named)


class PredictionLog:
    """What is committed of a stream's predictions. To be used by one task: it has one consumer."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: int, *, embedded: bool) -> None:
        self._consumer = consumer
        self._topic = topic
        self._sources = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._embedded = embedded

    async def at(self, place: Place) -> Logged:
        """Return the prediction at a place. Raises PenstockError with a sentence when there is none."""
        partition, offset = place
        if partition >= len(self._sources):
            raise PenstockError(f"{self._topic} has no partition {partition}; its last one is {len(self._sources) - 1}")
        source = self._sources[partition]
        start, end = (await self._bounds())[source]
        if not start <= offset < end:
            raise PenstockError(
                f"{self._topic} holds no record at {partition}:{offset}: of partition {partition} there are "
                f"offsets {start} to {end - 1}"
                if start < end
                else f"{self._topic} holds no record at {partition}:{offset}: partition {partition} is empty"
            )
        found = [record async for record in self._records(source, offset, offset + 1)]
        if not found:
            raise PenstockError(
                f"{self._topic} has the end of a transaction at {partition}:{offset}, and no prediction; "
                "predictions are at the offsets beside it"
            )
        return _logged(source, found[0])

    async def of_event(self, event_id: str, from_ms: int, to_ms: int) -> list[Logged]:
        """Return the predictions of an event that were logged between two moments, both inclusive.

        Every record of that time is read, of all partitions, since only its producer knows the event's key; on the
        embedded broker, which cannot search by time, every record. About 2 µs each.
        """
        found = []
        for source, (start, end) in (await self._span(from_ms, to_ms)).items():
            found += [
                _logged(source, record)
                async for record in self._records(source, start, end)
                if from_ms <= record.timestamp <= to_ms and _event_id(record) == event_id
            ]
        return found

    async def sample(
        self, count: int, draws: random.Random, starts: Mapping[TopicPartition, int] | None = None
    ) -> list[Logged]:
        """Return `count` different predictions, each as likely as any other that is held; all if there are fewer.

        `starts` leaves out what is before these offsets. Ends of transactions are drawn in vain, so more is drawn than
        is wanted, and again until there are enough. Reads some thousand records around each draw at most.
        """
        bounds = {
            source: (max(start, (starts or {}).get(source, 0)), end)
            for source, (start, end) in (await self._bounds()).items()
        }
        places = _Places(bounds)
        tried: set[int] = set()
        found: list[Logged] = []
        while len(found) < count and len(tried) < len(places):
            most = min(len(places), len(tried) + 2 * (count - len(found)))
            drawn = [index for index in draws.sample(range(len(places)), most) if index not in tried]
            tried.update(drawn)
            held = await self._held([places[index] for index in drawn])
            found += [held[places[index]] for index in drawn if places[index] in held]
        return found[:count]

    async def around(self, place: Place, count: int, wanted: Callable[[Prediction], bool]) -> list[Prediction]:
        """Return up to `count` predictions of the same partition: the nearest before `place`, then those after it.

        So it is the same ones whenever somebody asks, as long as they are held.
        """
        source, offset = self._sources[place[0]], place[1]
        start, end = (await self._bounds())[source]
        found: list[Prediction] = []
        stop, first = offset, max(start, offset - _FARTHEST)
        while len(found) < count and stop > first:
            piece = max(first, stop - 4 * count)
            found = await self._wanted(source, piece, stop, wanted) + found
            stop = piece
        found = found[-count:]
        stop, last = offset + 1, min(end, offset + 1 + _FARTHEST)
        while len(found) < count and stop < last:
            piece = min(last, stop + 4 * count)
            found += await self._wanted(source, stop, piece, wanted)
            stop = piece
        return found[:count]

    async def _wanted(
        self, source: TopicPartition, start: int, end: int, wanted: Callable[[Prediction], bool]
    ) -> list[Prediction]:
        predictions = [event_of(Prediction, record.value) async for record in self._records(source, start, end)]
        return [prediction for prediction in predictions if prediction is not None and wanted(prediction)]

    async def _held(self, places: Collection[Place]) -> dict[Place, Logged]:
        """Return what is at these places; those that are near each other are read together."""
        held = {}
        for source in self._sources:
            chosen = {offset for partition, offset in places if partition == source.partition}
            for start, end in _runs(sorted(chosen)):
                async for record in self._records(source, start, end):
                    if record.offset in chosen and (prediction := event_of(Prediction, record.value)) is not None:
                        place = (source.partition, record.offset)
                        held[place] = Logged(place, record.timestamp, prediction)
        return held

    async def _bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first offset of each partition, and the one after its last that is committed."""
        starts = await self._consumer.beginning_offsets(self._sources)
        ends = await self._consumer.end_offsets(self._sources)
        return {source: (starts[source], ends[source]) for source in self._sources}

    async def _span(self, from_ms: int, to_ms: int) -> dict[TopicPartition, tuple[int, int]]:
        """Return the offsets between which records were logged at these times."""
        bounds = await self._bounds()
        if self._embedded or not bounds:
            return bounds
        starts = await self._consumer.offsets_for_times(dict.fromkeys(bounds, max(from_ms, 0)))
        ends = await self._consumer.offsets_for_times(dict.fromkeys(bounds, max(to_ms + 1, 0)))

        def offset(found: Mapping[TopicPartition, Place | None], source: TopicPartition) -> int:
            at = found[source]
            return bounds[source][1] if at is None else at[0]  # none: nothing was logged so late

        return {source: (offset(starts, source), offset(ends, source)) for source in bounds}

    async def _records(self, source: TopicPartition, start: int, end: int) -> AsyncIterator[Record]:
        self._consumer.assign([source])
        for first in range(start, end, _SLICE):
            for record in await read_between(self._consumer, source, first, min(first + _SLICE, end)):
                yield record


class _Places:
    """All places within the bounds of some partitions, without a list of them: there may be a billion."""

    def __init__(self, bounds: Mapping[TopicPartition, tuple[int, int]]) -> None:
        self._ranges = [(source.partition, range(start, max(start, end))) for source, (start, end) in bounds.items()]

    def __len__(self) -> int:
        return sum(len(offsets) for _, offsets in self._ranges)

    def __getitem__(self, index: int) -> Place:
        for partition, offsets in self._ranges:
            if index < len(offsets):
                return partition, offsets[index]
            index -= len(offsets)
        raise IndexError(index)


@asynccontextmanager
async def prediction_log(connection: KafkaConnection, spec: StreamSpec) -> AsyncIterator[PredictionLog]:
    """Open the log of a stream whose topics exist."""
    topic = StreamTopics(spec.name).predictions
    cluster = await connection.reachable()
    partitions = await partition_count(connection, topic)
    async with opened(log_reader(connection)) as consumer:
        yield PredictionLog(consumer, topic, partitions, embedded=cluster.embedded)


def _logged(source: TopicPartition, record: Record) -> Logged:
    """Raise InvalidEvent when the record is no prediction."""
    return Logged((source.partition, record.offset), record.timestamp, decode(Prediction, record.value))


def _event_id(record: Record) -> str:
    try:
        return _named.decode(record.value or b"").event_id
    except msgspec.DecodeError:
        return ""


def _runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Return spans [start, end) that hold all of these offsets, which are sorted."""
    runs: list[tuple[int, int]] = []
    for offset in offsets:
        if runs and offset - runs[-1][1] < _NEAR:
            runs[-1] = (runs[-1][0], offset + 1)
        else:
            runs.append((offset, offset + 1))
    return runs
