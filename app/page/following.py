"""Reads what the page shows of a cluster's streams, for as long as somebody looks.

One consumer without a group reads the small topics from near their ends and follows them; a second one looks at the
large ones once a second. Both are closed with the last viewer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer

from app.page.audience import Overview, Publish
from app.page.board import READ_BACK, StreamFold
from app.page.document import StreamBoard, StreamState
from app.page.ends import Ends
from app.page.tails import Source, Tails
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from stream import admin
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.consumers import opened
from topics.specs import topics_of

LOOK_S: Final = 1.0
PATIENCE_S: Final = 10.0
_FETCH_WAIT_MS: Final = 500
_EMBEDDED_FETCH_WAIT_MS: Final = 100  # it answers only when the wait is over
_LOOK_WAIT_MS: Final = 10
_LOOK_BYTES: Final = 128 * 1024  # of each partition in one fetch: a batch, or some hundred predictions
_BACKOFF_MS: Final = 500  # each try to reach a broker that has gone is a line in the log

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
        """Publish an overview once a second, until cancelled.

        Raises PenstockError with a sentence for the viewer, or KafkaError, when the topics cannot be read.
        """
        cluster = await self._connection.reachable()
        folds = {spec.name: StreamFold(spec) for spec in self._streams}
        if not cluster.embedded:  # that one makes a topic when somebody asks for it
            async with self._in_time():
                await self._require_topics()
        isolation = "read_uncommitted" if cluster.embedded else "read_committed"
        wait_ms = _EMBEDDED_FETCH_WAIT_MS if cluster.embedded else _FETCH_WAIT_MS
        async with (
            opened(self._consumer(isolation_level=isolation, fetch_max_wait_ms=wait_ms)) as following,
            opened(
                self._consumer(
                    isolation_level=isolation, fetch_max_wait_ms=_LOOK_WAIT_MS, max_partition_fetch_bytes=_LOOK_BYTES
                )
            ) as looking,
        ):
            tails, ends = Tails(following, self._sources(), folds), Ends(looking, self._streams, self._clock_ms)
            async with self._in_time():
                await tails.open()
            await tails.catch_up()
            async with self._in_time():
                await ends.open()
            while True:
                next_s = asyncio.get_running_loop().time() + LOOK_S
                async with self._in_time():
                    await ends.look(folds)
                publish(await overview_of(folds, self._clock_ms(), self._pending))
                await tails.follow(next_s)

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
        """Raise SettingsError unless all topics are there with their partitions: a consumer would wait for them."""
        wanted = {topic.name: topic.partitions for stream in self._streams for topic in topics_of(stream)}
        known = await admin.require(self._connection, list(wanted))
        for name, partitions in wanted.items():
            if known[name] != partitions:
                raise SettingsError(
                    f"topic {name} has {known[name]} partition(s) in Kafka, and {partitions} are declared: "
                    "`penstock topics check` says what to do"
                )

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError:
            raise RetryableError(f"Kafka at {self._connection.bootstrap} does not answer any more") from None

    def _consumer(self, **options: str | int) -> AIOKafkaConsumer:
        """Make a consumer without a group."""
        return AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            retry_backoff_ms=_BACKOFF_MS,
            **options,
            **self._connection.client_options(),
        )


async def overview_of(folds: Mapping[str, StreamFold], now_ms: int, pending: Pending) -> Overview:
    """Return the states of all streams; the event loop goes on between one stream and the next."""
    states = []
    for name, fold in folds.items():
        states.append(StreamState(name=name, state=fold.state(now_ms)))
        await asyncio.sleep(0)

    def board(name: str) -> StreamBoard:
        return folds[name].board(now_ms, pending(name))

    return Overview(generated_time_ms=now_ms, streams=tuple(states), board=board)
