"""Opening and closing consumers, whose broker may be away and whose reader may be cut off."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError

from schemas.events import Deployment
from stream.batches import TopicPartition
from stream.consumers import opened
from stream.tail import end_of, newest
from stream.views import LogView, ViewFollower
from tests.command_line import free_port
from tests.support import leap_through, now

LOG = TopicPartition("flights.deployments", 0)


class Part:
    """A client or a fetcher of a consumer; `stuck` is a fetch that comes to its end when it is cancelled."""

    def __init__(self) -> None:
        self.closed = False
        self.stuck = asyncio.ensure_future(asyncio.Event().wait())
        self._fetch_task, self._pending_tasks = self.stuck, set[asyncio.Future[Any]]()

    async def close(self) -> None:
        self.closed = True


class Consumer:
    """A consumer that takes a second to start, and that stops as `ending` does."""

    def __init__(self, ending: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._client, self._fetcher = Part(), Part()
        self._ending = ending
        self.started = self.stopped = False

    async def start(self) -> None:
        await asyncio.sleep(1)
        self.started = True

    async def stop(self) -> None:
        assert self.started
        await self._ending()
        self.stopped = True

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    async def seek_to_beginning(self) -> None: ...

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {LOG: 0}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {LOG: 0}

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(timeout_ms / 1_000)
        return {}

    async def position(self, partition: TopicPartition) -> int:
        return 0


async def well() -> None: ...


async def cancelled() -> None:
    raise asyncio.CancelledError


async def failing() -> None:
    raise KafkaConnectionError("no broker")


async def never() -> None:
    await asyncio.Event().wait()


async def read(consumer: Consumer) -> None:
    async with opened(consumer):
        assert consumer.started


async def look_back(consumer: Consumer) -> None:
    assert await newest(lambda: consumer, LOG, 3) == []


async def look_at_the_end(consumer: Consumer) -> None:
    assert await end_of(lambda: consumer, LOG) == 0


async def follow(consumer: Consumer) -> None:
    views: ViewFollower = ViewFollower(consumer, [LogView(LOG.topic, Deployment)])
    try:
        await views.start()
    finally:
        await views.stop()


READERS = pytest.mark.parametrize("reader", [read, look_back, look_at_the_end, follow])


@READERS
@pytest.mark.parametrize("ending", [cancelled, failing, never])
def test_a_consumer_that_cannot_stop_leaves_nothing_open_and_fails_nobody(
    reader: Callable[[Consumer], Coroutine[Any, Any, None]], ending: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        consumer = Consumer(ending)
        begun_s = now()
        await reader(consumer)
        assert consumer._client.closed
        assert consumer._fetcher.stuck.cancelled()
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
        assert now() - begun_s <= 17

    leap_through(main())


@READERS
def test_a_consumer_whose_reader_is_cut_off_while_it_starts_is_stopped_when_it_has(
    reader: Callable[[Consumer], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        consumer = Consumer(well)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader(consumer)
        assert consumer.stopped

    leap_through(main())


def test_whoever_is_cut_off_while_a_consumer_closes_leaves_nothing_open() -> None:
    async def main() -> None:
        consumer = Consumer(never)
        reading = asyncio.ensure_future(read(consumer))
        await asyncio.sleep(2)  # it has started, and is being closed
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert consumer._client.closed
        assert consumer._fetcher.stuck.cancelled()

    leap_through(main())


def test_a_consumer_whose_reader_fails_is_stopped_and_the_error_goes_on() -> None:
    async def main() -> None:
        consumer = Consumer(well)
        with pytest.raises(ZeroDivisionError):
            async with opened(consumer):
                raise ZeroDivisionError
        assert consumer.stopped

    leap_through(main())


async def test_a_real_consumer_is_closed_where_no_broker_is() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{free_port()}", group_id=None)
    with pytest.raises(KafkaConnectionError):
        async with opened(consumer):
            raise AssertionError("it has not started")
    assert consumer._closed
