"""Replay: sends the originals of dead letters again, those that would be accepted now, each of them once.

An original and the record that says it was sent are one transaction. A replay begins by fencing any other one of the
same topic and reads the ledger only then; so two at once, or one after a crash, send nothing twice. Where there
are no transactions, a crash between the two may send some originals again.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced

from app.dead_letters import REPLAY, DeadLetterReader, Lane, Letter, Place, dead_letter_reader
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import Command, DeadLetter
from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outgoing
from stream.connection import KafkaConnection
from stream.intake import FeatureIntake
from stream.partitioner import partitions_of
from stream.placement import Placement

_TRANSACTION_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Original:
    """An original as its stage would read it again."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


@dataclass(slots=True)
class Kept:
    """Letters that were not sent for one reason, with one of them as an example."""

    reason: str
    example: str
    place: Place
    count: int = 0


@dataclass(slots=True)
class Outcome:
    """What a replay did, or would do: how many letters it sent by their reason, and what it kept and why."""

    sent: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)

    def note(self, event: DeadLetter, obstacle: InvalidEvent | None) -> None:
        """Count one letter."""
        if obstacle is None:
            self.sent[event.reason] = self.sent.get(event.reason, 0) + 1
            return
        kept = Kept(obstacle.reason, str(obstacle), (event.partition, event.offset))
        self.kept.setdefault(obstacle.reason, kept).count += 1


class Examiner:
    """Finds out whether an original would be accepted now, by the very check that refused it.

    What only a model can refuse (`no_score`) is not found out.
    """

    def __init__(self, spec: StreamSpec, lane: Lane, partitions: int, max_event_bytes: int) -> None:
        self._lane = lane
        self._partitions = partitions
        self._max_event_bytes = max_event_bytes
        self._reader = FeatureReader(spec)

    def home(self, letter: Letter) -> int:
        """Return the partition that the original belongs on: not always the one that it came from."""
        if self._lane.name == "commands" or letter.key is None:
            return letter.event.partition
        return int(partitions_of([letter.key], self._partitions)[0])

    def obstacle(self, letter: Letter) -> InvalidEvent | None:
        """Return why the original cannot be sent, or would come back at once; None when it would be accepted."""
        if not letter.complete:
            return InvalidEvent(
                "incomplete",
                f"only the first 64 KiB of its {letter.event.size_bytes:,} bytes were kept; "
                "its producer has to send it again",
            )
        if self._lane.name == "features":
            return self._feature_obstacle(letter)
        try:
            decode(Command, letter.original)
        except InvalidEvent as error:
            return error
        return None

    def _feature_obstacle(self, letter: Letter) -> InvalidEvent | None:
        home = self.home(letter)
        placement = Placement(self._lane.topic, home, self._partitions)  # a new one: it judges many records together
        intake = FeatureIntake(self._reader, placement, self._max_event_bytes)
        original = Original(letter.event.offset, letter.event.dead_time_ms, letter.key, letter.original)
        refused = intake.read(Batch(TopicPartition(self._lane.topic, home), [original])).refused
        return refused[0][1] if refused else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay of one lane's dead letters, up to where they end when it starts.

    `reasons` and `places` choose among those that wait; empty means any. `by` is who is said to have sent them.
    Without a `transactional_id` there is no transaction.
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
        """Send what would be accepted; about 2,000 letters per second.

        Raises PenstockError when another replay takes over, KafkaError when the broker fails. What had been sent by
        then stays sent and is known to be.
        """
        async with _producer(self.connection, self.transactional_id) as producer:
            try:
                return await self._carry_out(partial(self._send, producer))
            except ProducerFenced as error:
                raise PenstockError(f"another replay of {self.lane.dead} has begun and took this one over") from error

    async def rehearse(self) -> Outcome:
        """Return what `run` would do; send nothing."""

        async def send_nothing(letters: Sequence[Letter], partitions: int) -> None:
            pass

        return await self._carry_out(send_nothing)

    async def _carry_out(self, send: Callable[[Sequence[Letter], int], Awaitable[None]]) -> Outcome:
        outcome = Outcome()
        async with dead_letter_reader(self.connection, self.lane) as reader:
            examiner = Examiner(self.spec, self.lane, reader.partitions, self.max_event_bytes)
            waiting = (await reader.ledger()).select(self.reasons, self.places)
            async for letters in reader.letters(waiting):
                judged = [(letter, examiner.obstacle(letter)) for letter in letters]
                await send([letter for letter, obstacle in judged if obstacle is None], reader.partitions)
                for letter, obstacle in judged:
                    outcome.note(letter.event, obstacle)
        return outcome

    async def _send(self, producer: AIOKafkaProducer, letters: Sequence[Letter], partitions: int) -> None:
        """Write the originals and, once those are acknowledged, the records that say so."""
        async with producer.transaction() if self.transactional_id else nullcontext():
            for batch in (
                [(self.lane.topic, home(self.lane, letter, partitions), letter.key, letter.original) for letter in letters],
                [(self.lane.dead, letter.event.partition, letter.key, self._receipt(letter)) for letter in letters],
            ):
                await asyncio.gather(
                    *[await producer.send(topic, value, key, partition) for topic, partition, key, value in batch]
                )

    def _receipt(self, letter: Letter) -> bytes:
        message = f"sent again to {self.lane.topic} by {self.by}"
        now_ms = self.clock_ms()
        event = letter.event
        return encode(
            msgspec.structs.replace(
                event, stage=REPLAY, reason="replayed", message=message, dead_time_ms=now_ms, original_base64=""
            )
        )
