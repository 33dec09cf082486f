"""A real Chromium that remembers what it complained of and whom it asked, and the page's server on given documents."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from playwright.async_api import Browser, Page, async_playwright

from app.page.audience import Audience, Overview, Publish
from app.page.document import Board, Level, State, StreamBoard, StreamState
from app.page.server import PageServer

RECORDED: Final = Path(__file__).with_name("page_document.json")
PULSE_S: Final = 1.0
WIDE: Final = {"width": 1440, "height": 900}
NARROW: Final = {"width": 390, "height": 844}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_COMPLAINTS: Final = frozenset({"error", "warning"})


def recorded_board() -> Board:
    """Return the recorded document: one stream, with something in every panel."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=Board)


def with_stream(board: Board, **changes: object) -> Board:
    """Return `board` with its stream changed."""
    assert board.stream
    stream = msgspec.structs.replace(board.stream, **changes)
    named = StreamState(name=stream.name, state=stream.state)
    return msgspec.structs.replace(board, streams=(named, *board.streams[1:]), stream=stream)


def with_streams(board: Board, levels: Mapping[str, Level]) -> Board:
    """Return `board` with streams of these names and levels, all otherwise as its one."""
    sentences = {"ok": "All is well.", "watch": "Drift is medium.", "act": "No model serves."}
    streams = tuple(
        StreamState(name=name, state=State(level=level, sentence=sentences[level])) for name, level in levels.items()
    )
    return msgspec.structs.replace(board, streams=streams)


@dataclass(slots=True)
class Watched:
    """A page of the browser; `errors` is what it complained of, `foreign` whom it asked that is not on loopback."""

    page: Page
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type in _COMPLAINTS else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"data", "blob"} and parts.hostname not in _LOOPBACK:
            self.foreign.append(url)

    async def text(self, selector: str) -> str:
        return await self.page.locator(selector).inner_text()


Open = Callable[..., Awaitable[Watched]]
"""What the fixture `look` gives: opens the page."""


def chromium_path() -> str | None:
    """Return where Chromium is installed, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@asynccontextmanager
async def open_browser() -> AsyncGenerator[Browser]:
    """Run the Chromium that is installed; as root it has no sandbox, as CI runs it."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium_path(), args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Player:
    """The page's own server, with a document given by hand instead of topics: it comes once a second, as theirs do."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.hung = False
        self.address = ""
        self._news = asyncio.Event()
        self._server: PageServer | None = None

    @property
    def stream(self) -> StreamBoard:
        """What the document says of its stream."""
        assert self.board.stream
        return self.board.stream

    async def start(self, port: int = 0) -> None:
        """Serve the page on loopback; `port` 0 is any free one."""
        audience = Audience(self._follow, clock_ms=lambda: self.board.generated_time_ms)
        self._server = PageServer(audience, [named.name for named in self.board.streams])
        self.address = await self._server.start("127.0.0.1", port)

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()

    def show(self, board: Board) -> None:
        """Send the document to everyone who looks, and to everyone who comes later."""
        self.board = board
        self._news.set()

    def show_problem(self, problem: str) -> None:
        """Send the same document with a problem."""
        self.show(msgspec.structs.replace(self.board, problem=problem))

    def hang(self, hung: bool = True) -> None:
        """Go on listening without sending anything, as a worker that is stuck; or send again."""
        self.hung = hung

    async def _follow(self, publish: Publish) -> None:
        while True:
            if not self.hung:
                publish(_overview(self.board))
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE_S):
                    await self._news.wait()


def _overview(board: Board) -> Overview:
    """Return what the server is told: each stream is as the document's one, but for its name and its state."""
    states = {named.name: named.state for named in board.streams}

    def one(name: str) -> StreamBoard:
        assert board.stream, name
        return msgspec.structs.replace(board.stream, name=name, state=states[name])

    return Overview(generated_time_ms=board.generated_time_ms, streams=board.streams, board=one, problem=board.problem)
