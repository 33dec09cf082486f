"""Opening and closing a consumer so that nothing of it stays behind: its reader may be cut off at any moment.

aiokafka cannot stop a consumer whose tasks have not begun yet. Where a broker is away, it may cancel whoever stops one,
before its connections are closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer

from stream.closing import quietly

_CLOSING_S: Final = 5.0


@asynccontextmanager
async def opened(consumer: AIOKafkaConsumer) -> AsyncIterator[AIOKafkaConsumer]:
    """Start a consumer that has not been started, and close it in the end. Raises KafkaError when nobody answers."""
    try:
        await start_consumer(consumer)
        yield consumer
    finally:
        await close_consumer(consumer)


async def start_consumer(consumer: AIOKafkaConsumer) -> None:
    """Start a consumer such that it can be closed afterwards, whatever comes of it. Raises KafkaError."""
    starting = asyncio.ensure_future(consumer.start())
    try:
        await asyncio.shield(starting)
        await asyncio.sleep(0)  # its tasks begin
    finally:
        await quietly(starting)  # one that is cut off would leave its connection behind


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer for good, started or not, though its broker may be away; takes 15 s at most."""
    closing = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({closing}, timeout=_CLOSING_S)
    finally:
        if not closing.done() or closing.cancelled() or closing.exception() is not None:
            closing.cancel()
            await _abandon(consumer)


async def _abandon(consumer: AIOKafkaConsumer) -> None:
    """Close what `stop` has not come to; it does nothing when it is called again, and the parts have no public name."""
    if consumer._fetcher is not None:
        left = {consumer._fetcher._fetch_task, *consumer._fetcher._pending_tasks}
        for task in left:
            task.cancel()
        await quietly(asyncio.gather(*left, return_exceptions=True))
    await quietly(consumer._client.close())
