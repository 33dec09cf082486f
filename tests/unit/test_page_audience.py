"""Who looks at the page: nothing is read for nobody, whoever is slow misses what is old, and Kafka may be away."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError

from app.page.audience import LINGER_S, Audience, Overview, Publish
from app.page.document import Board, StreamBoard
from schemas.errors import RetryableError
from tests.support import leap_through, now
from tests.watching import overview_of


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
                publish(overview_of(self.number, flights="ok"))
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
    return board_of(document).generated_time_ms


def board_of(document: bytes | None) -> Board:
    assert document is not None
    return msgspec.json.decode(document, type=Board)


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
                assert number_of(await second.next()) == 1
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
        assert [number_of(document) for document in documents] == [1, 2, 5, 4]
        assert [b"away" in (document or b"") for document in documents] == [False, False, True, False]

    leaping(test, Follower({3: error}))


def test_a_fault_of_the_page_is_no_wait_without_end_and_the_next_viewer_begins_anew() -> None:
    async def test(audience: Audience, follower: Follower) -> None:
        with pytest.raises(ZeroDivisionError):
            async with audience.watching() as viewer:
                await viewer.next()
                await viewer.next()
        async with audience.watching() as again:
            assert [number_of(await again.next()) for _ in range(2)] == [3, 4]

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


def test_a_problem_is_told_once_while_it_stays_the_same_and_again_after_it_was_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "penstock.page")

    async def test(audience: Audience, follower: Follower) -> None:
        async with audience.watching() as viewer:
            begun_s = now()
            found = [(number_of(await viewer.next()), now() - begun_s) for _ in range(5)]
        assert found == [(1, 0), (5, 1), (5, 5), (5, 7), (7, 11)]

    fails: dict[int, Exception] = {2: OSError("gone"), 3: OSError("gone"), 4: OSError("mad"), 5: OSError("gone")}
    leaping(test, Follower(fails | {6: OSError("gone")}))
    assert [record.message for record in caplog.records] == [
        f"the page waits: {why}" for why in ("gone", "mad", "gone")
    ]


class Many:
    """Publishes streams by their level once a second, and counts the boards that were made."""

    def __init__(self, *levels: dict[str, str]) -> None:
        self.levels = levels
        self.made: list[str] = []

    async def __call__(self, publish: Publish) -> None:
        for number, levels in enumerate(self.levels):
            overview = overview_of(number, **levels)
            publish(replace(overview, board=partial(self._made, overview)))
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    def _made(self, overview: Overview, name: str) -> StreamBoard:
        self.made.append(name)
        return overview.board(name)


def test_of_many_streams_only_those_that_somebody_views_are_put_together_once_for_all() -> None:
    many = Many({f"s{number:03}": "ok" for number in range(200)})

    async def main() -> None:
        audience = Audience(many, lambda: 5)
        async with (
            audience.watching("s007") as first,
            audience.watching("s007") as same,
            audience.watching("s150") as other,
        ):
            boards = [board_of(await viewer.next()) for viewer in (first, same, other)]
        assert [board.stream.name for board in boards if board.stream] == ["s007", "s007", "s150"]
        assert [len(board.streams) for board in boards] == [200] * 3
        assert many.made == ["s007", "s150"]
        await audience.close()

    leap_through(main())


def test_the_event_loop_goes_on_between_the_documents_of_many_viewers() -> None:
    many = Many({f"s{number}": "ok" for number in range(20)})

    async def main() -> None:
        audience = Audience(many, lambda: 5)
        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(audience.watching(f"s{number}")) for number in range(20)]
            looking = asyncio.gather(*[viewer.next() for viewer in viewers])
            most = 0
            while not looking.done():
                before = len(many.made)
                await asyncio.sleep(0)
                most = max(most, len(many.made) - before)
            await looking
        assert (len(many.made), most) == (20, 1)
        await audience.close()

    leap_through(main())


def test_who_names_no_stream_gets_the_first_of_the_worst_level_and_stays_with_it() -> None:
    many = Many(
        {"calm": "ok", "odd": "watch", "bad": "act", "mad": "act"},
        {"calm": "act", "odd": "watch", "bad": "ok", "mad": "act"},
    )

    async def main() -> None:
        audience = Audience(many, lambda: 5)
        async with audience.watching() as viewer:
            for level in ("act", "ok"):
                stream = board_of(await viewer.next()).stream
                assert stream is not None
                assert (stream.name, stream.state.level) == ("bad", level)
        await audience.close()

    leap_through(main())
