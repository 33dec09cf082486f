"""Who looks at the page: the topics are read while there is a viewer and half a minute longer, and never else.

Everything about a stream is put together for those who look at that stream, and once for all of them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from aiokafka.errors import KafkaError

from app.page.document import WORST_FIRST, Board, StreamBoard, StreamState
from schemas.errors import PenstockError
from schemas.wire import encode

log = logging.getLogger("penstock.page")

LINGER_S: Final = 30.0
_RETRY_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The states of all streams at one moment. `board` makes everything about one of them, by its name."""

    generated_time_ms: int
    streams: tuple[StreamState, ...]
    board: Callable[[str], StreamBoard]
    problem: str = ""


Publish = Callable[[Overview], None]
Follow = Callable[[Publish], Awaitable[None]]
"""Gives one overview after the other to what it is called with, until it is cancelled or fails."""


class _Edition:
    """What viewers get of one overview."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self._documents: dict[str | None, bytes] = {}

    @property
    def worst(self) -> str | None:
        """The first stream of the worst level."""
        streams = self.overview.streams
        return min(streams, key=lambda one: WORST_FIRST.index(one.state.level)).name if streams else None

    def __contains__(self, name: str | None) -> bool:
        return name in self._documents

    def document(self, name: str | None) -> bytes:
        """Return the document with this stream; made at the first call, in about 3 ms."""
        if name not in self._documents:
            known = any(one.name == name for one in self.overview.streams)
            board = Board(
                generated_time_ms=self.overview.generated_time_ms,
                streams=self.overview.streams,
                stream=self.overview.board(name) if name is not None and known else None,
                problem=self.overview.problem,
            )
            self._documents[name] = encode(board)
        return self._documents[name]


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
        self._edition: _Edition | None = None
        self._making = asyncio.Lock()
        self.closed = False

    @property
    def following(self) -> bool:
        """Whether the topics are being read."""
        return self._following is not None and not self._following.done()

    @asynccontextmanager
    async def watching(self, stream: str | None = None) -> AsyncIterator["Viewer"]:
        """Be a viewer of a stream; without a name, of the first of the worst level when the first document is there."""
        self._viewers += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self.following and not self.closed:
            self._edition = None
            self._following = asyncio.create_task(self._run(), name="page")
            self._following.add_done_callback(lambda _: self._tell())
        try:
            yield Viewer(self, stream)
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
        self._following = self._leaving = self._edition = None

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(self._publish)
            except (PenstockError, KafkaError, OSError) as error:
                self._say(str(error) or type(error).__name__)
            await asyncio.sleep(_RETRY_S)

    def _say(self, problem: str) -> None:
        """Tell the viewers and the log of a problem, once while it stays the same."""
        before = self._edition.overview if self._edition else Overview(generated_time_ms=0, streams=(), board=_none)
        if before.problem != problem:
            log.info("the page waits: %s", problem)
            self._publish(replace(before, generated_time_ms=self._clock_ms(), problem=problem))

    def _publish(self, overview: Overview) -> None:
        self._edition = _Edition(overview)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def newer_than(self, edition: _Edition | None) -> _Edition | None:
        """Wait for an edition that is another one than this; None when the page closes.

        Raises what has ended the reading, if that was no lack of Kafka.
        """
        while self._edition is None or self._edition is edition:
            if self._following is None:
                return None
            if self._following.done():
                self._following.result()
            await self._news.wait()
        return self._edition

    async def document(self, edition: _Edition, stream: str | None) -> bytes:
        """Return a document; others are made one by one, and the event loop goes on between them."""
        async with self._making:
            if stream not in edition:
                await asyncio.sleep(0)
            return edition.document(stream)


class Viewer:
    """One who looks: sees the newest document, and never one twice."""

    def __init__(self, audience: Audience, stream: str | None) -> None:
        self._audience = audience
        self._stream = stream
        self._seen: _Edition | None = None

    async def next(self) -> bytes | None:
        """Wait for the next document; None when the page closes. Whoever is slow misses those in between."""
        self._seen = await self._audience.newer_than(self._seen)
        if self._seen is None:
            return None
        if self._stream is None:
            self._stream = self._seen.worst
        return await self._audience.document(self._seen, self._stream)


def _none(name: str) -> StreamBoard:
    raise KeyError(name)
