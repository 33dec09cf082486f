"""A Faust transport that hands an agent one message per fetched partition batch.

Faust gives the wiring: the app, its agents, the subscription, the consumer group's life. The consumer
here replaces what Faust does per event (one message each, acknowledgements, commits): a message carries a
whole `Batch`, is never acknowledged, and offsets are committed by the partition tasks alone. The
aiokafka consumer lives on the worker's own event loop: no hop between threads per batch, and a worker
whose loop is stuck stops sending heartbeats and loses its partitions, as it should.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import aiokafka
import faust
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.serializers.schemas import Schema
from faust.transport import base
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import Producer as FaustProducer
from faust.types import TP, ConsumerMessage

from schemas.errors import RetryableError
from stream.batches import Batch, TopicPartition
from stream.offsets import committed_offset

POLL_MS = 1_000
POLL_RECORDS = 1_024  # what is unpacked is worked on while it is near: four times as many cost 8% more per event


class PartitionOwner(Protocol):
    """Who is told which partitions this worker owns."""

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Start working on `partitions`, which are all this worker owns. Must not block."""

    async def revoked(self, partitions: set[TopicPartition]) -> None:
        """Finish or abort all work on `partitions`; they belong to nobody once this returns."""

    def out_of_range(self, source: TopicPartition) -> None:
        """Open `source` anew: the broker no longer has the records that come next."""


class BatchApp(faust.App):  # type: ignore[misc]  # faust is untyped here
    """A Faust app whose agents receive batches.

    `owner` is told of assignments; `open_consumer` makes the aiokafka consumer, on the app's loop;
    `on_expired` hears how many records of a partition retention removed unread.
    """

    owner: PartitionOwner
    open_consumer: Callable[[], aiokafka.AIOKafkaConsumer]
    on_expired: Callable[[TopicPartition, int], None]

    class BootStrategy(faust.app.BootStrategy):  # type: ignore[misc]
        """Start no Faust producer: every partition task has its own."""

        enable_kafka_producer = False

    def batch_agent(self, topic: str, deliver: Callable[[Batch], Awaitable[None]]) -> None:
        """Register an agent that passes every batch of `topic` to `deliver`, in order."""

        async def agent(batches: Any) -> None:
            async for batch in batches:
                await deliver(batch)

        self.agent(self.topic(topic, schema=_BatchSchema()), name=f"{topic}-agent")(agent)


class _BatchSchema(Schema):  # type: ignore[misc]
    """Passes a message's batch through as the event's value."""

    def compile(self, app: faust.App, **_: Any) -> Callable[..., Awaitable[Any]]:
        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, {}, message)

        return decode


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: "Consumer") -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._consumer.app.on_rebalance_start()
        await self._consumer.on_partitions_revoked({TP(*tp) for tp in revoked})

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        generation = self._consumer.aiokafka._coordinator.generation
        self._consumer.app.consumer_generation_id = generation
        await self._consumer.on_partitions_assigned({TP(*tp) for tp in assigned}, generation)


class Consumer(FaustConsumer):  # type: ignore[misc]
    """Fetches only the partitions that their tasks have opened; see the module's docstring."""

    app: BatchApp
    consumer_stopped_errors = (ConsumerStoppedError,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: set[TopicPartition] = set()
        self._wake = asyncio.Event()
        self._seeks: dict[TopicPartition, tuple[int, int]] = {}  # (epoch, offset) not yet carried out
        self._epochs: dict[TopicPartition, int] = {}
        self._next_epoch = itertools.count(1)

    async def on_start(self) -> None:
        self.aiokafka = self.app.open_consumer()
        await self.aiokafka.start()

    async def on_stop(self) -> None:
        await self.aiokafka.stop()

    # What the partition tasks use

    def open(self, source: TopicPartition, offset: int) -> int:
        """Fetch `source` from `offset` on; return the epoch that batches from there carry.

        The polling loop itself seeks, between two polls. So a batch of an earlier epoch is one from before
        the seek, however late it arrives, and the task can tell and drop it.
        """
        epoch = next(self._next_epoch)
        self._seeks[source] = (epoch, offset)
        self.resume(source)
        return epoch

    def resume(self, source: TopicPartition) -> None:
        """Go on fetching `source` after `hold`."""
        self._open.add(source)
        self._wake.set()

    def hold(self, source: TopicPartition) -> None:
        """Stop polling `source`; what was fetched already waits in the client. A batch may still be on its way."""
        self._open.discard(source)

    def end(self, source: TopicPartition) -> int:
        """Return the offset up to which records can be read, as the broker last said; 0 before it has."""
        if source not in self.aiokafka.assignment():
            return 0
        stable = self.aiokafka.last_stable_offset(source)  # 0 while the first transaction ever is open
        return (self.aiokafka.highwater(source) or 0) if stable is None or stable < 0 else stable

    def unread(self, source: TopicPartition) -> int:
        """Return how many offsets lie between what was handed out of `source` and its end; 0 when not assigned.

        Not the same as the distance from the last record: behind that there can be commit markers, which have
        offsets too.
        """
        if source not in self.aiokafka.assignment():
            return 0
        position = self.aiokafka._subscription.subscription.assignment.state_value(source)._position
        return max(0, self.end(source) - position) if position is not None else self.end(source)

    async def resume_offset(self, source: TopicPartition) -> int:
        """Return where the group goes on reading `source`: what it committed, or the oldest record.

        Raises RetryableError when what can be read ends before what was committed: a producer's transaction is open,
        or the topic was deleted and made again.
        Records that retention removed before they were read are counted, logged and skipped.
        """
        committed = await committed_offset(self.aiokafka._client, self.app.conf.id, source)
        oldest: int = (await self.aiokafka.beginning_offsets([source]))[source]
        if committed is None:
            return oldest
        newest = (await self.aiokafka.end_offsets([source]))[source]
        if committed > newest:
            raise RetryableError(
                f"{source.topic}/{source.partition} ends at offset {newest}, but group {self.app.conf.id} has read "
                f"up to {committed}: wait for an open transaction to end; if the topic was deleted and made again, "
                "reset the group's offsets."
            )
        if committed < oldest:
            self.app.on_expired(source, oldest - committed)
        return max(committed, oldest)

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the group's offsets, for delivery without transactions. Raises when a rebalance came between."""
        await self.aiokafka.commit(dict(offsets))

    # What Faust calls

    async def subscribe(self, topics: Iterable[str]) -> None:
        self.aiokafka.subscribe(topics=list(topics), listener=_RebalanceListener(self))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._open -= {TopicPartition(*tp) for tp in revoked}
        await self.app.owner.revoked({TopicPartition(*tp) for tp in revoked})
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        self.app.owner.assigned({TopicPartition(*tp) for tp in assigned})

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand every fetched batch to the conductor, until the worker stops."""
        while not (self.should_stop or fetcher.should_stop):
            self._wake.clear()
            self._carry_out_seeks()
            try:
                batches = await self._poll()
            except ConsumerStoppedError:
                return
            except NoOffsetForPartitionError:
                continue  # from before the seek: aiokafka looks for a position of its own first
            except OffsetOutOfRangeError as error:
                for source in error.args[0]:
                    self.hold(source)
                    self.app.owner.out_of_range(source)
                continue
            messages = [self._to_message(TP(*tp), records) for tp, records in batches.items()]
            for message in messages:
                await self.callback(message)

    def _carry_out_seeks(self) -> None:
        for source, (epoch, offset) in self._seeks.items():
            if source in self.aiokafka.assignment():
                self.aiokafka.seek(source, offset)
                self._epochs[source] = epoch
        self._seeks.clear()

    async def _poll(self) -> Mapping[Any, list[Any]]:
        """Return what has been fetched of the open partitions; return early when another one opens."""
        if not self._open:
            await self._wake.wait()
            return {}
        targets = tuple(self._open)
        ready: Mapping[Any, list[Any]] = await self.aiokafka.getmany(*targets, timeout_ms=0, max_records=POLL_RECORDS)
        if ready:
            return ready
        poll = asyncio.ensure_future(self.aiokafka.getmany(*targets, timeout_ms=POLL_MS, max_records=POLL_RECORDS))
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({poll, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Cancelling a poll loses nothing: it takes records only at the moment it returns them.
            poll.cancel()
            wake.cancel()
        await asyncio.wait({poll})
        return {} if poll.cancelled() else poll.result()

    def _to_message(self, tp: TP, records: list[Any]) -> ConsumerMessage:
        first, source = records[0], TopicPartition(*tp)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            first.offset,
            first.timestamp / 1000,
            first.timestamp_type,
            None,
            None,
            Batch(source, records, self._epochs.get(source, 0)),
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def assignment(self) -> set[TP]:
        return {TP(*tp) for tp in self.aiokafka.assignment()}

    def highwater(self, tp: TP) -> int:
        return self.aiokafka.highwater(aiokafka.TopicPartition(*tp)) or 0

    def topic_partitions(self, topic: str) -> int | None:
        return len(self.aiokafka.partitions_for_topic(topic) or ()) or None

    def close(self) -> None:
        """Nothing to do: `on_stop` closes."""

    # What Faust would do with acknowledgements and commits: nothing, the partition tasks do it

    def ack(self, message: ConsumerMessage) -> bool:
        return True

    def track_message(self, message: ConsumerMessage) -> None:
        """Messages are not tracked."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        return False

    async def perform_seek(self) -> None:
        """Positions are set by `open`."""

    async def wait_empty(self) -> None:
        """Nothing is pending here: `revoked` has waited for the tasks."""

    async def verify_all_partitions_active(self) -> None:
        """Liveness is the watchdog's."""

    # Parts of Faust's interface that only its tables, transactions and topic management use

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise NotImplementedError("partition tasks commit")

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        raise NotImplementedError("_drain_messages polls")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        raise NotImplementedError("partition tasks seek")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        raise NotImplementedError("partition tasks seek")

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("partition tasks seek")

    async def position(self, tp: TP) -> int | None:
        raise NotImplementedError("partition tasks know their positions")

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        raise NotImplementedError("there are no tables")

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        raise NotImplementedError("there are no tables")

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("`penstock topics apply` makes topics")

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        raise NotImplementedError("agents name the partition they write to")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


class Transport(base.Transport):  # type: ignore[misc]
    """`penstock://host:port`, by the `faust.transports` entry point."""

    Consumer = Consumer
    Producer = FaustProducer  # never started; Faust's conductor asks for its buffer
    default_port = 9092
    driver_version = f"aiokafka={aiokafka.__version__}"
