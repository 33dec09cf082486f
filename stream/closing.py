"""Steps that may fail beside others: closing what may be broken, and what is done together."""

import asyncio
import logging
from collections.abc import Awaitable

log = logging.getLogger("penstock.closing")


async def quietly(closing: Awaitable[object], timeout_s: float = 5.0) -> None:
    """Await a closing step of a client that may be broken: it is given up in any case, whatever it raises."""
    try:
        async with asyncio.timeout(timeout_s):
            await closing
    except Exception as error:  # noqa: BLE001
        log.debug("closing: %r", error)


async def together(*steps: Awaitable[object]) -> None:
    """Await all steps at once. When one fails, or the caller is cancelled, none goes on alone: all are cancelled."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
