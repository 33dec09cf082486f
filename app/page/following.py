"""Reads what the page shows of a cluster's streams, for as long as somebody looks.

One consumer without a group reads the small topics from near their ends and follows them; a second one looks at the
large ones once a second. Both are closed with the last viewer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer

from app.page.board import READ_BACK, StreamFold
from app.page.document import Board
from app.page.looking import Ends
from app.page.tails import Source, Tails
from app.partitions import admin_client
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.delivery import quietly
from topics.specs import topics_of

LOOK_S: Final = 1.0
PATIENCE_S: Final = 10.0
_FETCH_WAIT_MS: Final = 500
_EMBEDDED_FETCH_WAIT_MS: Final = 100  # it answers only when the wait is over
_LOOK_WAIT_MS: Final = 10
_LOOK_BYTES: Final = 128 * 1024  # of each partition in one fetch: a batch, or some hundred predictions

Publish = Callable[[Board], None]
Pending = Callable[[str], int | None]
"""Tells how many predictions of a stream wait for their label, where that is known."""


class Following:
    """Follows streams of one cluster. `clock_ms` is the wall clock."""

    def __init__(
        self, connection: KafkaConnection, streams: Iterable[StreamSpec], clock_ms: Callable[[], int], pending: Pending
    ) -> None:
        self._connection = connection
        self._streams = tuple(streams)
        self._clock_ms = clock_ms
        self._pending = pending

    async def run(self, publish: Publish) -> None:
        """Publish a document once a second, until cancelled.

        Raises PenstockError with a sentence for the viewer, or KafkaError, when the topics cannot be read.
        """
        cluster = await self._connection.reachable()
        folds = {spec.name: StreamFold(spec) for spec in self._streams}
        sources = self._sources()
        if not cluster.embedded:  # that one makes a topic when somebody asks for it
            await self._require_topics()
        isolation = "read_uncommitted" if cluster.embedded else "read_committed"
        wait_ms = _EMBEDDED_FETCH_WAIT_MS if cluster.embedded else _FETCH_WAIT_MS
        async with (
            self._consumer(isolation_level=isolation, fetch_max_wait_ms=wait_ms) as following,
            self._consumer(
                isolation_level=isolation, fetch_max_wait_ms=_LOOK_WAIT_MS, max_partition_fetch_bytes=_LOOK_BYTES
            ) as looking,
        ):
            tails, ends = Tails(following, sources, folds), Ends(looking, self._streams, self._clock_ms)
            await tails.catch_up()
            async with self._in_time():
                await ends.open()
            while True:
                next_s = asyncio.get_running_loop().time() + LOOK_S
                async with self._in_time():
                    await ends.look(folds)
                publish(self._board(folds))
                await tails.follow(next_s)

    def _board(self, folds: Mapping[str, StreamFold]) -> Board:
        """Return the document; about 1 ms for a stream of a hundred features."""
        now_ms = self._clock_ms()
        for name, fold in folds.items():
            fold.pending = self._pending(name)
        return Board(generated_time_ms=now_ms, streams=tuple(fold.board(now_ms) for fold in folds.values()))

    def _sources(self) -> dict[TopicPartition, Source]:
        """Return the partitions of the small topics."""
        return {
            TopicPartition(topic.name, partition): Source(stream.name, topic.value)
            for stream in self._streams
            for topic in topics_of(stream)
            if isinstance(topic.value, type) and topic.value in READ_BACK
            for partition in range(topic.partitions)
        }

    async def _require_topics(self) -> None:
        """Raise SettingsError when topics are missing: a consumer would wait long for them."""
        async with admin_client(self._connection) as client:
            known = {found["topic"] for found in await client.describe_topics()}
        wanted = [topic.name for stream in self._streams for topic in topics_of(stream)]
        if missing := [name for name in wanted if name not in known]:
            more = f" and {len(missing) - 1} more do" if len(missing) > 1 else " does"
            raise SettingsError(f"topic {missing[0]}{more} not exist: run `penstock topics apply`")

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError:
            raise RetryableError(f"Kafka at {self._connection.bootstrap} does not answer any more") from None

    @asynccontextmanager
    async def _consumer(self, **options: str | int) -> AsyncIterator[AIOKafkaConsumer]:
        """Open a consumer without a group."""
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest", enable_auto_commit=False, **options, **self._connection.client_options()
        )
        starting = asyncio.ensure_future(consumer.start())
        try:
            await asyncio.shield(starting)
            await asyncio.sleep(0)  # one whose tasks have not begun cannot be stopped
            yield consumer
        finally:
            await quietly(starting)  # one that is cut off would leave its connection behind
            await _stop(consumer)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer. Where its broker is away, aiokafka cancels whoever closes it, before it has closed all."""
    closing = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({closing})
    if closing.cancelled() or closing.exception() is not None:
        await quietly(consumer._client.close())  # it has no public name
