"""Replay: sends the originals of dead letters again, those that would be accepted now, each of them once.

An original and the record that says it was sent are one transaction. A replay begins by fencing any other one of the
same topic and reads the ledger only then; so two at once, or one after a crash, send nothing twice. Where there
are no transactions, a crash between the two may send some originals again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced

from agents.join.reader import LabelReader, Refused
from app.dead_letters import REPLAY, Lane, Letter, Place, dead_letter_reader
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import Command, DeadLetter
from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch
from stream.connection import KafkaConnection
from stream.intake import FeatureIntake
from stream.partitioner import partitions_of
from stream.placement import Placement

_TRANSACTION_MS: Final = 60_000


@dataclass(slots=True)
class Kept:
    """Letters that were not sent for one reason, with the first of them as an example."""

    reason: str
    example: str
    place: Place
    count: int = 0


@dataclass(slots=True)
class Outcome:
    """What a replay did, or would do: how many letters it sent, by their reason, and which it kept, by why."""

    sent: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Kept] = field(default_factory=dict)

    def keep(self, event: DeadLetter, obstacle: InvalidEvent) -> None:
        """Count a letter that is not sent."""
        first = Kept(obstacle.reason, str(obstacle), (event.partition, event.offset))
        self.kept.setdefault(obstacle.reason, first).count += 1


class Original(NamedTuple):
    """A record as it was refused, but on `partition`, where it belongs: not always where it came from."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


class Examiner:
    """Finds out whether an original would be accepted now, by the very checks that refused it.

    What only a model refuses (`no_score`) passes, and so does a label that only the join refuses, for when it came.
    """

    def __init__(self, spec: StreamSpec, lane: Lane, partitions: int, max_event_bytes: int) -> None:
        self._spec = spec
        self._lane = lane
        self._partitions = partitions
        self._max_event_bytes = max_event_bytes
        self._reader = FeatureReader(spec)

    def original(self, letter: Letter) -> Original:
        """Return the original, to be sent. Raises InvalidEvent with why it cannot be, or would come back at once."""
        event, value = letter.event, letter.original
        if len(value) != event.size_bytes:
            raise InvalidEvent(
                "incomplete",
                f"only the first {len(value):,} of its {event.size_bytes:,} bytes were kept: "
                "its producer has to send it again",
            )
        original = Original(self._home(letter), event.offset, event.dead_time_ms, letter.key, value)
        if self._lane.name == "commands":
            decode(Command, value)
        elif refused := self._refused(Batch(TopicPartition(self._lane.topic, original.partition), [original])):
            raise refused[0][1]
        return original

    def _home(self, letter: Letter) -> int:
        if self._lane.name == "commands" or letter.key is None:
            return letter.partition
        return int(partitions_of([letter.key], self._partitions)[0])

    def _refused(self, batch: Batch) -> Refused:
        """Return what would be refused. The placement is a new one: it judges a producer by all that it has seen."""
        placement = Placement(self._lane.topic, batch.source.partition, self._partitions)
        if self._lane.name == "labels":
            return LabelReader(self._spec, placement, self._max_event_bytes, hash).read(batch)[1]
        return FeatureIntake(self._reader, placement, self._max_event_bytes).read(batch).refused


Send = Callable[[Sequence[tuple[Letter, Original]]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay of one lane's dead letters, up to where they end when it starts.

    `reasons` and `places` choose among the letters that wait; empty means any. `by` says who sends them again.
    Without a `transactional_id`, and on the embedded broker, there is no transaction.
    """

    connection: KafkaConnection
    lane: Lane
    spec: StreamSpec
    max_event_bytes: int
    by: str
    clock_ms: Callable[[], int]
    transactional_id: str | None = None
    reasons: Collection[str] = ()
    places: Collection[Place] = ()

    async def run(self) -> Outcome:
        """Send what would be accepted.

        Raises PenstockError when another replay takes over, KafkaError when the broker fails. What was sent by then
        stays sent, and is known to be.
        """
        cluster = await self.connection.reachable()
        transactional_id = None if cluster.embedded else self.transactional_id
        async with _producer(self.connection, transactional_id) as producer:
            transaction = producer.transaction if transactional_id else nullcontext
            try:
                return await self._carry_out(partial(self._send, producer, transaction))
            except ProducerFenced as error:
                raise PenstockError(f"another replay of {self.lane.dead} has begun and took this one over") from error

    async def rehearse(self) -> Outcome:
        """Return what `run` would do; send nothing."""

        async def send_nothing(_: Sequence[tuple[Letter, Original]]) -> None:
            pass

        return await self._carry_out(send_nothing)

    async def _carry_out(self, send: Send) -> Outcome:
        outcome = Outcome()
        async with dead_letter_reader(self.connection, self.lane) as reader:
            examiner = Examiner(self.spec, self.lane, reader.partitions, self.max_event_bytes)
            waiting = (await reader.ledger()).select(self.reasons, self.places)
            async for letters in reader.letters(waiting):
                accepted, refused = _sort(examiner, letters)
                if accepted:
                    await send(accepted)
                outcome.sent.update(letter.event.reason for letter, _ in accepted)
                for letter, obstacle in refused:
                    outcome.keep(letter.event, obstacle)
        return outcome

    async def _send(
        self,
        producer: AIOKafkaProducer,
        transaction: Callable[[], AbstractAsyncContextManager[Any]],
        accepted: Sequence[tuple[Letter, Original]],
    ) -> None:
        """Write the originals and, once those are acknowledged, the records that say so."""
        async with transaction():
            originals = [
                await producer.send(self.lane.topic, original.value, original.key, original.partition)
                for _, original in accepted
            ]
            await asyncio.gather(*originals)
            receipts = [
                await producer.send(self.lane.dead, self._receipt(letter), letter.key, letter.partition)
                for letter, _ in accepted
            ]
            await asyncio.gather(*receipts)

    def _receipt(self, letter: Letter) -> bytes:
        """Return the value of the record after which the letter waits no more."""
        receipt = msgspec.structs.replace(
            letter.event,
            stage=REPLAY,
            reason="replayed",
            message=f"sent again to {self.lane.topic} by {self.by}",
            dead_time_ms=self.clock_ms(),
            original_base64="",
        )
        return encode(receipt)


def _sort(
    examiner: Examiner, letters: Sequence[Letter]
) -> tuple[list[tuple[Letter, Original]], list[tuple[Letter, InvalidEvent]]]:
    accepted, refused = [], []
    for letter in letters:
        try:
            accepted.append((letter, examiner.original(letter)))
        except InvalidEvent as obstacle:
            refused.append((letter, obstacle))
    return accepted, refused


@asynccontextmanager
async def _producer(connection: KafkaConnection, transactional_id: str | None) -> AsyncIterator[AIOKafkaProducer]:
    transactional = {"transactional_id": transactional_id, "transaction_timeout_ms": _TRANSACTION_MS}
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        **(transactional if transactional_id else {}),
        **connection.client_options(),
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()
