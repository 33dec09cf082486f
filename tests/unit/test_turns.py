"""Steps of many tasks take turns of the event loop."""

import asyncio

from stream.turns import Turns


async def test_at_most_one_step_begins_per_turn_of_the_loop() -> None:
    turns, loop_turns, begun = Turns(), [0], []

    async def count_loop_turns() -> None:
        while True:
            loop_turns[0] += 1
            await asyncio.sleep(0)

    async def steps() -> None:
        for _ in range(20):
            await turns.take()
            begun.append(loop_turns[0])

    counting = asyncio.create_task(count_loop_turns())
    async with asyncio.timeout(5):
        await asyncio.gather(*(steps() for _ in range(5)))
    counting.cancel()
    assert len(begun) == len(set(begun)) == 100


async def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order = Turns(), []

    async def step(name: int) -> None:
        await turns.take()
        order.append(name)

    async with asyncio.timeout(5):
        await asyncio.gather(*(step(name) for name in range(10)))
    assert order == list(range(10))


async def test_a_turn_is_not_lost_with_a_task_that_is_cancelled_while_it_waits() -> None:
    turns = Turns()
    await turns.take()
    waiting = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[1:])
        await turns.take()


async def test_a_turn_is_not_lost_with_a_task_that_is_cancelled_just_when_it_gets_it() -> None:
    turns = Turns()
    await turns.take()
    first, second = asyncio.create_task(turns.take()), asyncio.create_task(turns.take())
    await asyncio.sleep(0)  # both wait
    await asyncio.sleep(0)  # the first has been given its turn, and has not run yet
    first.cancel()
    async with asyncio.timeout(5):
        await second
