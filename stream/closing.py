"""Closing what may be broken."""

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
