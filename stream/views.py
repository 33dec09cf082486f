"""Log views: small topics that are the truth, folded in memory and followed.

One consumer without a group reads every view of the process from the start. `caught_up` is when everything
that was in the logs at the call has been folded, so a stage can wait for it before its first batch.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import InvalidEvent, RetryableError
from schemas.wire import decode
from stream.consumers import close_consumer, start_consumer

log = logging.getLogger("penstock.views")

E = TypeVar("E", bound=msgspec.Struct)


class LogView(Generic[E]):
    """Every event of one single-partition topic, in order, oldest first. `changed` is called after news."""

    def __init__(self, topic: str, event_type: type[E]) -> None:
        self.topic = topic
        self.events: list[E] = []
        self._event_type = event_type
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each batch of new events."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more; it may not have been called at all."""
        self._listeners = [other for other in self._listeners if other != listener]

    def fold(self, values: Iterable[bytes | None]) -> None:
        """Append events; what cannot be read is logged and skipped, as every follower must do alike."""
        for value in values:
            try:
                self.events.append(decode(self._event_type, value))
            except InvalidEvent as error:
                log.warning("a record of %s is skipped: %s", self.topic, error)
        for listener in self._listeners:
            listener()


class ViewFollower:
    """Feeds the views from Kafka, in the background."""

    def __init__(self, consumer: AIOKafkaConsumer, views: Iterable[LogView[msgspec.Struct]]) -> None:
        self._consumer = consumer
        self._views = {TopicPartition(view.topic, 0): view for view in views}
        self._positions = dict.fromkeys(self._views, 0)
        self._moved = asyncio.Condition()
        self._ended = False
        self._runner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow; returns when everything that is in the logs now has been folded."""
        await start_consumer(self._consumer)
        self._consumer.assign(list(self._views))
        await self._consumer.seek_to_beginning()
        self._runner = asyncio.create_task(self._follow(), name="views")
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until all that is in the logs at this moment has been folded."""
        ends = await self._consumer.end_offsets(list(self._views))
        async with self._moved:
            await self._moved.wait_for(
                lambda: self._ended or all(self._positions[tp] >= end for tp, end in ends.items())
            )
        if self._ended:
            raise RetryableError("the views have stopped following their logs")

    async def followed(self) -> None:
        """Wait for ever; raises when following fails."""
        assert self._runner is not None
        await asyncio.shield(self._runner)

    async def stop(self) -> None:
        """Stop following."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})
        await close_consumer(self._consumer)

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    await self._fold_next()
                except KafkaError as error:
                    log.warning("the views wait for the broker: %s", error)
                    await asyncio.sleep(1)
        finally:
            self._ended = True
            async with self._moved:
                self._moved.notify_all()

    async def _fold_next(self) -> None:
        batches = await self._consumer.getmany(timeout_ms=200)
        for tp, records in batches.items():
            self._views[tp].fold(record.value for record in records)
        async with self._moved:
            for tp in self._views:
                # Past the last record there may be commit markers, so the position is asked for.
                self._positions[tp] = await self._consumer.position(tp)
            self._moved.notify_all()
