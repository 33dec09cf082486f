"""Steps that may fail beside others."""

import asyncio

import pytest

from stream.closing import quietly, together
from tests.support import leap_through, now


async def _fails_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError("no")


def test_when_one_of_several_fails_none_goes_on_alone() -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="no"):
            await together(_fails_after(1.0), asyncio.sleep(60.0))
        assert now() == 1.0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    leap_through(scenario())


def test_who_gives_up_waiting_gives_up_all_that_is_done_together() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await together(asyncio.sleep(2.0), asyncio.sleep(60.0))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    leap_through(scenario())


def test_what_is_closed_quietly_neither_raises_nor_takes_for_ever() -> None:
    async def scenario() -> None:
        await quietly(_fails_after(0.5))
        await quietly(asyncio.sleep(60.0), 2.0)
        assert now() == 2.5

    leap_through(scenario())
