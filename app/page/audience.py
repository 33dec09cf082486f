"""Who looks at the page: the topics are read while there is a viewer and half a minute longer, and never else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiokafka.errors import KafkaError

from app.page.document import Board
from schemas.errors import PenstockError
from schemas.wire import encode

log = logging.getLogger("penstock.page")

LINGER_S: Final = 30.0
_RETRY_S: Final = 2.0

Follow = Callable[[Callable[[Board], None]], Awaitable[None]]
"""Gives one document after the other to what it is called with, until it is cancelled or fails."""


class Audience:
    """The viewers of one page. `clock_ms` is the wall clock."""

    def __init__(self, follow: Follow, clock_ms: Callable[[], int], linger_s: float = LINGER_S) -> None:
        self._follow = follow
        self._clock_ms = clock_ms
        self._linger_s = linger_s
        self._viewers = 0
        self._following: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._board: Board | None = None
        self._document: bytes | None = None
        self.closed = False

    @property
    def following(self) -> bool:
        """Whether the topics are being read."""
        return self._following is not None and not self._following.done()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Viewer"]:
        """Be a viewer."""
        self._viewers += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self.following and not self.closed:
            self._following = asyncio.create_task(self._run(), name="page")
            self._following.add_done_callback(lambda _: self._tell())
        try:
            yield Viewer(self)
        finally:
            self._viewers -= 1
            if not self._viewers and not self.closed:
                self._leaving = asyncio.get_running_loop().call_later(self._linger_s, self._forget)

    async def close(self) -> None:
        """Stop reading, and let the viewers go."""
        self.closed = True
        if self._leaving is not None:
            self._leaving.cancel()
        following = self._following
        self._forget()
        self._tell()
        if following is not None:
            await asyncio.wait({following})

    def _forget(self) -> None:
        """Stop reading and keep nothing of what was read."""
        if self._following is not None:
            self._following.cancel()
        self._following = self._leaving = self._board = self._document = None

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(self._publish)
            except (PenstockError, KafkaError, OSError) as error:
                log.info("the page waits: %s", error)
                before = self._board or Board(generated_time_ms=self._clock_ms(), streams=())
                self._publish(msgspec.structs.replace(before, problem=str(error) or type(error).__name__))
            await asyncio.sleep(_RETRY_S)

    def _publish(self, board: Board) -> None:
        self._board, self._document = board, encode(board)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def newer_than(self, document: bytes | None) -> bytes | None:
        """Wait for a document that is another one than this; None when the page closes.

        Raises what has ended the reading, if that was no lack of Kafka.
        """
        while self._document is None or self._document is document:
            if self._following is None:
                return None
            if self._following.done():
                self._following.result()
            await self._news.wait()
        return self._document


class Viewer:
    """One who looks: sees the newest document, and never one twice."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._seen: bytes | None = None

    async def next(self) -> bytes | None:
        """Wait for the next document; None when the page closes. Whoever is slow misses those in between."""
        self._seen = await self._audience.newer_than(self._seen)
        return self._seen
