"""Reading on while somebody works with what was read before."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def ahead(blocks: AsyncGenerator[T, None], most: int = 4) -> AsyncGenerator[T, None]:
    """Yield the blocks in their order; up to `most` more are read meanwhile. Raises what reading them raises."""
    ready: asyncio.Queue[T] = asyncio.Queue(most)
    reading = asyncio.create_task(_read(blocks, ready))
    try:
        while not (reading.done() and ready.empty()):
            getting = asyncio.ensure_future(ready.get())
            await asyncio.wait({getting, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                await asyncio.wait({getting})
            if not getting.cancelled():
                yield getting.result()
        reading.result()
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(blocks: AsyncGenerator[T, None], ready: "asyncio.Queue[T]") -> None:
    async with aclosing(blocks):
        async for block in blocks:
            await ready.put(block)
