"""A real Chromium that remembers what it complained of and whom it asked, and the page's server on given documents."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from playwright.async_api import Browser, Page, async_playwright

from app.page.audience import Audience
from app.page.document import Board
from app.page.server import PageServer

RECORDED: Final = Path(__file__).with_name("page_document.json")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_COMPLAINTS: Final = frozenset({"error", "warning"})


def recorded_board() -> Board:
    """Return the recorded document: one stream, with something in every panel."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=Board)


def with_stream(board: Board, **changes: object) -> Board:
    """Return `board` with its first stream changed."""
    stream = msgspec.structs.replace(board.streams[0], **changes)
    return msgspec.structs.replace(board, streams=(stream, *board.streams[1:]))


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
    """The page's own server, with documents given by hand instead of topics."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.address = ""
        self._publish: Callable[[Board], None] | None = None
        self._server: PageServer | None = None

    async def start(self, port: int = 0) -> None:
        """Serve the page on loopback; `port` 0 is any free one."""
        self._server = PageServer(Audience(self._follow, clock_ms=lambda: self.board.generated_time_ms))
        self.address = await self._server.start("127.0.0.1", port)

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()

    def show(self, board: Board) -> None:
        """Send the document to everyone who looks, and to everyone who comes later."""
        self.board = board
        if self._publish:
            self._publish(board)

    async def _follow(self, publish: Callable[[Board], None]) -> None:
        self._publish = publish
        publish(self.board)
        await asyncio.Event().wait()
