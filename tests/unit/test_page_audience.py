"""Who looks at the page: nothing is read for nobody, whoever is slow misses what is old, and Kafka may be away."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiokafka.errors import KafkaConnectionError

from app.page.audience import LINGER_S, Audience
from app.page.document import Board
from schemas.errors import RetryableError
from tests.support import leap_through, now

Publish = Callable[[Board], None]


class Follower:
    """Publishes one board a second, numbered by its time; `running` tells how many of it there are."""

    def __init__(self, fails: dict[int, Exception] | None = None) -> None:
        self.running = self.begun = self.number = 0
        self.fails = fails or {}

    async def __call__(self, publish: Publish) -> None:
        self.running += 1
        self.begun += 1
        try:
            while True:
                self.number += 1
                if self.number in self.fails:
                    raise self.fails[self.number]
                publish(Board(generated_time_ms=self.number, streams=()))
                await asyncio.sleep(1)
        finally:
            self.running -= 1


def leaping(test: Callable[[Audience, Follower], Awaitable[None]], follower: Follower | None = None) -> None:
    """Run a test on a loop whose time leaps; the audience is closed at its end."""
    follower = follower or Follower()

    async def main() -> None:
        audience = Audience(follower, lambda: 5)
        try:
            await test(audience, follower)
        finally:
            await audience.close()
        assert not follower.running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    leap_through(main())


def number_of(document: bytes | None) -> int:
    assert document is not None
    return int(document.split(b":")[1].split(b",")[0])


def test_nothing_is_read_before_somebody_looks() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        await asyncio.sleep(3_600)
        assert not audience.following
        assert (follower.begun, len(asyncio.all_tasks())) == (0, 1)

    leaping(test)


def test_reading_ends_half_a_minute_after_the_last_viewer_and_nothing_is_kept() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        async with audience.watching() as first:
            await first.next()
            async with audience.watching() as second:
                assert await second.next() is await asyncio.wait_for(audience.newer_than(None), 1)
            await asyncio.sleep(2 * LINGER_S)
            assert follower.running
        await asyncio.sleep(LINGER_S - 1)
        assert audience.following
        async with audience.watching():
            await asyncio.sleep(LINGER_S)
        await asyncio.sleep(LINGER_S - 1)
        assert (follower.running, follower.begun) == (1, 1)
        await asyncio.sleep(2)
        assert (follower.running, audience.following) == (0, False)
        seen = follower.number
        async with audience.watching() as again:
            assert number_of(await again.next()) == seen + 1  # and not what was there before

    leaping(test)


def test_a_viewer_sees_each_document_once_and_a_slow_one_only_the_newest() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        async with audience.watching() as quick, audience.watching() as slow:
            assert [number_of(await quick.next()) for _ in range(3)] == [1, 2, 3]
            assert number_of(await slow.next()) == 3
            begun_s = now()
            assert number_of(await slow.next()) == 4
            assert now() - begun_s == pytest.approx(1)

    leaping(test)


@pytest.mark.parametrize("error", [RetryableError("Kafka is away"), KafkaConnectionError("away"), OSError("away")])
def test_while_the_topics_cannot_be_read_the_viewer_is_told_why_and_it_goes_on_by_itself(error: Exception) -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        async with audience.watching() as viewer:
            documents = [await viewer.next() for _ in range(4)]
        assert [number_of(document) for document in documents] == [1, 2, 2, 4]
        assert [b"away" in (document or b"") for document in documents] == [False, False, True, False]

    leaping(test, Follower({3: error}))


def test_a_fault_of_the_page_is_no_wait_without_end_and_the_next_viewer_begins_anew() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        with pytest.raises(ZeroDivisionError):
            async with audience.watching() as viewer:
                await viewer.next()
                await viewer.next()
        async with audience.watching() as again:
            assert number_of(await again.next()) == 1
            assert number_of(await again.next()) == 3

    leaping(test, Follower({2: ZeroDivisionError()}))


def test_viewers_go_when_the_page_closes() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        async with audience.watching() as viewer:
            await viewer.next()
            waiting = asyncio.ensure_future(viewer.next())
            await asyncio.sleep(0)
            await audience.close()
            assert await waiting is None
        async with audience.watching() as late:
            assert await late.next() is None

    leaping(test)
