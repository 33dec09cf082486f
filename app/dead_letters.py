"""Dead letters: which of them still wait, and what is in them.

A dead-letter topic is a ledger. A letter *waits* until a later record of its partition says that its original was
sent again; that record is a DeadLetter, too, of the stage REPLAY. So what was replayed is known for as long as the
letters are kept, and nowhere else.
"""

import base64
import binascii
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.models import log_reader
from schemas.errors import InvalidEvent
from schemas.events import DeadLetter
from schemas.wire import decode
from stream import admin
from stream.connection import KafkaConnection
from stream.consumers import opened
from topics import StreamTopics

REPLAY: Final = "replay"
_POLL_MS: Final = 200
_POLL_RECORDS: Final = 500

TopicName = Literal["features", "labels", "commands"]
TOPIC_NAMES: Final[tuple[TopicName, ...]] = ("features", "labels", "commands")
Place = tuple[int, int]  # partition and offset of the original, in the topic where it was refused


@dataclass(frozen=True, slots=True)
class Lane:
    """A topic of the stream and where its dead letters go."""

    name: TopicName
    topic: str
    dead: str

    @classmethod
    def of(cls, stream: str, name: TopicName) -> "Lane":
        """Return the lane called `name` of a stream."""
        topics = StreamTopics(stream)
        topic, dead = {
            "features": (topics.features, topics.features_dead),
            "labels": (topics.labels, topics.labels_dead),
            "commands": (topics.commands, topics.commands_dead),
        }[name]
        return cls(name, topic, dead)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One letter that waits: why, since when, and where it lies in the dead-letter topic. About 300 bytes."""

    reason: str
    dead_time_ms: int
    source: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter in full, with its original's key. It lies on the `partition` number where its original lay."""

    partition: int
    key: bytes | None
    event: DeadLetter

    @property
    def original(self) -> bytes:
        """The original's value, or its first 64 KiB; nothing when no worker wrote this letter."""
        try:
            return base64.b64decode(self.event.original_base64)
        except binascii.Error:
            return b""


@dataclass(slots=True)
class ReasonCount:
    """How many letters of one reason wait and were replayed, and when the waiting ones were written."""

    reason: str
    waiting: int = 0
    replayed: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None

    def add(self, time_ms: int) -> None:
        """Count one that waits since `time_ms`."""
        self.waiting += 1
        self.oldest_ms = time_ms if self.oldest_ms is None else min(self.oldest_ms, time_ms)
        self.newest_ms = time_ms if self.newest_ms is None else max(self.newest_ms, time_ms)


@dataclass(slots=True)
class Ledger:
    """What a dead-letter topic says, folded in the order of each partition."""

    waiting: dict[Place, Waiting] = field(default_factory=dict)
    replayed: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def fold(self, source: TopicPartition, record: Any) -> None:
        """Take one record. A letter written twice, as delivery without transactions may do, waits once."""
        try:
            event = decode(DeadLetter, record.value)
        except InvalidEvent:
            self.unreadable += 1
            return
        place = (event.partition, event.offset)
        if event.stage != REPLAY:
            self.waiting[place] = Waiting(sys.intern(event.reason), event.dead_time_ms, source, record.offset)
        elif (answered := self.waiting.pop(place, None)) is not None:
            self.replayed[answered.reason] += 1

    def select(self, reasons: Collection[str] = (), places: Collection[Place] = ()) -> list[Waiting]:
        """Return what waits with one of `reasons` at one of `places`, newest first; empty means any."""
        chosen = [
            letter
            for place, letter in self.waiting.items()
            if (not reasons or letter.reason in reasons) and (not places or place in places)
        ]
        return sorted(chosen, key=lambda letter: letter.dead_time_ms, reverse=True)

    def counts(self) -> list[ReasonCount]:
        """Return one count per reason, the most frequent first."""
        counts: dict[str, ReasonCount] = {}
        for letter in self.waiting.values():
            counts.setdefault(letter.reason, ReasonCount(letter.reason)).add(letter.dead_time_ms)
        for reason, replayed in self.replayed.items():
            counts.setdefault(reason, ReasonCount(reason)).replayed = replayed
        return sorted(counts.values(), key=lambda count: (-count.waiting, count.reason))


class DeadLetterReader:
    """Reads one dead-letter topic, from its start to where it ends when asked."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    @property
    def partitions(self) -> int:
        """How many partitions the topic has, which is how many the originals' has."""
        return len(self._consumer.assignment())

    async def ledger(self) -> Ledger:
        """Fold the topic. Costs one pass over it and about 300 bytes per letter that waits."""
        ledger = Ledger()
        sources = list(self._consumer.assignment())
        starts = await self._consumer.beginning_offsets(sources)
        ends = await self._consumer.end_offsets(sources)
        async for source, records in self._read(starts, ends):
            for record in records:
                ledger.fold(source, record)
        return ledger

    async def letters(self, chosen: Iterable[Waiting]) -> AsyncIterator[list[Letter]]:
        """Yield the letters in full, at most 1 MB at a time, each partition's in order.

        One that retention has removed since is left out.
        """
        wanted: dict[TopicPartition, set[int]] = {}
        for letter in chosen:
            wanted.setdefault(letter.source, set()).add(letter.offset)
        starts = {source: min(offsets) for source, offsets in wanted.items()}
        ends = {source: max(offsets) + 1 for source, offsets in wanted.items()}
        async for source, records in self._read(starts, ends):
            if found := [record for record in records if record.offset in wanted[source]]:
                yield [Letter(source.partition, record.key, decode(DeadLetter, record.value)) for record in found]

    async def _read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, list[Any]]]:
        """Yield what lies from `starts` to before `ends`, as it is fetched."""
        for source, start in starts.items():
            self._consumer.seek(source, start)
        left = {source for source in starts if starts[source] < ends[source]}
        while left:
            batches = await self._consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
            for source, records in batches.items():
                yield source, [record for record in records if record.offset < ends[source]]
            left = {source for source in left if await self._consumer.position(source) < ends[source]}


@asynccontextmanager
async def dead_letter_reader(connection: KafkaConnection, lane: Lane) -> AsyncIterator[DeadLetterReader]:
    """Open a reader of the lane's committed dead letters. Raises SettingsError when their topic does not exist."""
    partitions = (await admin.require(connection, [lane.dead])).get(lane.dead, 0)
    async with opened(log_reader(connection)) as consumer:
        consumer.assign([TopicPartition(lane.dead, partition) for partition in range(partitions)])
        yield DeadLetterReader(consumer)


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is in a lane: counts by reason, and the newest letters that wait, oldest first."""

    lane: Lane
    counts: list[ReasonCount]
    newest: list[Letter]
    unreadable: int


async def look(
    connection: KafkaConnection,
    lane: Lane,
    reasons: Collection[str] = (),
    places: Collection[Place] = (),
    limit: int = 20,
) -> Overview:
    """Read the lane's dead letters up to their end. `reasons` and `places` choose among `newest` only."""
    async with dead_letter_reader(connection, lane) as reader:
        ledger = await reader.ledger()
        chosen = ledger.select(reasons, places)[:limit]
        newest = [letter async for letters in reader.letters(chosen) for letter in letters]
    newest.sort(key=lambda letter: letter.event.dead_time_ms)
    return Overview(lane, ledger.counts(), newest, ledger.unreadable)
