"""How a partition task writes what it made and says how far it got: exactly once, or at least once.

Both keep one order per task: `send` any number of times, then `commit`, which returns when the broker has
everything. A delivery that failed is of no further use; the task opens a new one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation

from stream.batches import Outbox, TopicPartition

log = logging.getLogger("penstock.delivery")

Offsets = Mapping[TopicPartition, int]

# Records per request are bounded by bytes: below the 1 MB that a topic takes by default.
BATCH_BYTES = 768 * 1024
REQUEST_BYTES = 8 * 1024 * 1024


class Delivery(Protocol):
    """One task's way out. `hides_until_commit`: readers wait for the commit, so it should come early."""

    hides_until_commit: bool

    async def start(self) -> None:
        """Take over from whoever had the task before. Only after this are committed offsets final."""

    async def send(self, outbox: Outbox) -> None:
        """Hand everything in `outbox` to the client; acknowledgements are awaited by `commit`."""

    async def commit(self, offsets: Offsets) -> None:
        """Make all that was sent, and `offsets` (the next to read, if there is news of them), durable and visible."""

    async def stop(self) -> None:
        """Give up what was not committed and close. Never raises."""


class ExactlyOnce:
    """Records and offsets in one Kafka transaction; a reader with `read_committed` sees all or nothing.

    The `transactional_id` is the task's name: starting a second producer with it fences the first.
    """

    hides_until_commit = True

    def __init__(self, producer: AIOKafkaProducer, group: str) -> None:
        self._producer = producer
        self._group = group
        self._unacknowledged: list[asyncio.Future[object]] = []
        self._in_transaction = False

    async def start(self) -> None:
        await self._producer.start()

    async def send(self, outbox: Outbox) -> None:
        with self._saying_why():
            await self._begin()
            self._unacknowledged += await send_outbox(self._producer, outbox)

    async def commit(self, offsets: Offsets) -> None:
        with self._saying_why():
            await self._begin()
            # aiokafka would commit a transaction although a batch of it failed: so every batch is awaited first.
            read = [self._producer.send_offsets_to_transaction(dict(offsets), self._group)] if offsets else []
            await asyncio.gather(*read, *self._unacknowledged)
            self._unacknowledged = []
            await self._producer.commit_transaction()
            self._in_transaction = False

    async def stop(self) -> None:
        if self._in_transaction:
            await quietly(self._producer.abort_transaction())
        await close_producer(self._producer)
        for future in self._unacknowledged:
            future.cancel()  # not before: aiokafka trips over a batch that it wants to send again

    @contextlib.contextmanager
    def _saying_why(self) -> Iterator[None]:
        """Raise what ended the producer, where aiokafka only says that nothing can be done with it any more."""
        try:
            yield
        except (IllegalOperation, AssertionError) as error:
            died_of = [
                future.exception() for future in self._unacknowledged if future.done() and not future.cancelled()
            ]
            sender = self._producer._sender.sender_task
            if sender is not None and sender.done() and not sender.cancelled():
                died_of.append(sender.exception())
            raise next(filter(None, died_of), error) from error

    async def _begin(self) -> None:
        if not self._in_transaction:
            await self._producer.begin_transaction()
            self._in_transaction = True


class AtLeastOnce:
    """An idempotent producer: await every acknowledgement, then commit the group's offsets."""

    hides_until_commit = False

    def __init__(self, producer: AIOKafkaProducer, commit_offsets: Callable[[Offsets], Awaitable[None]]) -> None:
        self._producer = producer
        self._commit_offsets = commit_offsets
        self._unacknowledged: list[asyncio.Future[object]] = []

    async def start(self) -> None:
        await self._producer.start()

    async def send(self, outbox: Outbox) -> None:
        self._unacknowledged += await send_outbox(self._producer, outbox)

    async def commit(self, offsets: Offsets) -> None:
        pending, self._unacknowledged = self._unacknowledged, []
        await asyncio.gather(*pending)
        if offsets:
            await self._commit_offsets(offsets)

    async def stop(self) -> None:
        for future in self._unacknowledged:
            future.cancel()
        await close_producer(self._producer)


async def send_outbox(producer: AIOKafkaProducer, outbox: Outbox) -> list[asyncio.Future[object]]:
    """Send every record of `outbox` to the partition it names; return one future per batch of records."""
    futures: list[asyncio.Future[object]] = []
    for target, records in outbox.targets.items():
        start = 0
        while start < len(records):
            builder = producer.create_batch()
            start += _fill(builder, records, start)
            builder.close()
            futures.append(await producer.send_batch(builder, target.topic, partition=target.partition))
    return futures


def _fill(builder: object, records: list[tuple[bytes | None, bytes]], start: int) -> int:
    """Append records from `start` until the batch is full; return how many. The first always fits."""
    append = builder.append  # type: ignore[attr-defined]
    for count, (key, value) in enumerate(records[start:] if start else records):
        if append(key=key, value=value, timestamp=None) is None:
            return count
    return len(records) - start


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close a producer for good, though it may be broken: nothing goes out once this returns."""
    await quietly(producer.stop())
    # A stop that took too long was cancelled before it got to these; closing twice does nothing.
    await quietly(producer._sender.close())
    await quietly(producer.client.close())


async def quietly(closing: Awaitable[object], timeout_s: float = 5.0) -> None:
    """Await a closing step of a client that may be broken: it is given up in any case, whatever it raises."""
    try:
        async with asyncio.timeout(timeout_s):
            await closing
    except Exception as error:  # noqa: BLE001
        log.debug("closing a producer: %r", error)
