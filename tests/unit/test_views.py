"""Views of small logs: what they hold, and when they are known to be complete."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from aiokafka.errors import KafkaConnectionError

from schemas.errors import RetryableError
from schemas.events import Deployment
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.batches import TopicPartition
from stream.views import LogView, ViewFollower
from tests.support import Entry, deployment_of, leap_through, now

SPEC = StreamSpec(name="flights", features=("a",))
LOG = TopicPartition("flights.deployments", 0)


def _value(revision: int) -> bytes:
    return encode(deployment_of(SPEC, f"m{revision}", revision))


class Consumer:
    """Reads one log in memory; a fetch takes `fetch_s`."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []  # one per offset; None is a commit marker
        self.at = 0
        self.fetch_s = 0.05
        self.errors: list[Exception] = []
        self.stopped = False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert partitions == [LOG]

    async def seek_to_beginning(self) -> None:
        self.at = 0

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {LOG: len(self.values)}

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Entry]]:
        await asyncio.sleep(self.fetch_s)
        if self.errors:
            raise self.errors.pop(0)
        found = [Entry(i, value) for i, value in enumerate(self.values) if i >= self.at and value is not None][:2]
        done = not found or all(value is None for value in self.values[found[-1].offset + 1 :])
        self.at = len(self.values) if done else found[-1].offset + 1
        return {LOG: found} if found else {}

    async def position(self, partition: TopicPartition) -> int:
        return self.at


class Bench:
    def __init__(self) -> None:
        self.consumer = Consumer()
        self.view: LogView[Deployment] = LogView(LOG.topic, Deployment)
        self.follower: ViewFollower = ViewFollower(self.consumer, [self.view])  # type: ignore[list-item]

    @property
    def revisions(self) -> list[int]:
        return [event.revision for event in self.view.events]


def following(scenario: Callable[[Bench], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run a scenario in leaping time; the views are stopped at the end."""

    async def run() -> None:
        bench = Bench()
        try:
            async with asyncio.timeout(3600.0):
                await scenario(bench)
        finally:
            await bench.follower.stop()
            assert bench.consumer.stopped

    return lambda: leap_through(run())


def test_a_view_holds_every_event_in_order_and_tells_its_listeners() -> None:
    view: LogView[Deployment] = LogView(LOG.topic, Deployment)
    heard: list[int] = []
    view.listen(lambda: heard.append(len(view.events)))
    view.fold([_value(1), _value(2)])
    view.fold([_value(3)])
    assert [event.revision for event in view.events] == [1, 2, 3]
    assert heard == [2, 3]


def test_what_cannot_be_read_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    view: LogView[Deployment] = LogView(LOG.topic, Deployment)
    view.fold([_value(1), b"{broken", None, _value(2)])
    assert [event.revision for event in view.events] == [1, 2]
    assert "flights.deployments" in caplog.text


@following
async def test_it_has_started_when_all_that_was_there_is_folded(bench: Bench) -> None:
    bench.consumer.values = [_value(1), None, _value(2), None, _value(3), None, None]
    await bench.follower.start()
    assert bench.revisions == [1, 2, 3]


@following
async def test_an_empty_log_is_complete(bench: Bench) -> None:
    await bench.follower.start()
    assert bench.revisions == []


@following
async def test_caught_up_waits_for_what_was_written_before_it_was_asked(bench: Bench) -> None:
    await bench.follower.start()
    bench.consumer.fetch_s = 20.0
    await asyncio.sleep(1.0)
    bench.consumer.values = [_value(1), None, _value(2), None, _value(3), None]
    await bench.follower.caught_up()
    assert bench.revisions == [1, 2, 3]


@following
async def test_a_broker_that_is_away_is_waited_for(bench: Bench) -> None:
    await bench.follower.start()
    bench.consumer.errors = [KafkaConnectionError(), KafkaConnectionError()]
    bench.consumer.values = [_value(1)]
    await bench.follower.caught_up()
    assert bench.revisions == [1]
    assert now() >= 2.0


@following
async def test_following_that_fails_is_told_to_all_who_wait(bench: Bench) -> None:
    await bench.follower.start()
    followed = asyncio.create_task(bench.follower.followed())
    bench.consumer.values = [_value(1)]
    bench.consumer.errors = [ValueError("a bug")]
    with pytest.raises(RetryableError):
        await bench.follower.caught_up()
    with pytest.raises(ValueError, match="a bug"):
        await followed
    with pytest.raises(RetryableError):
        await bench.follower.caught_up()
