"""What the tests of the page share: a Chromium, and the recorded document in it."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from tests.browser import WIDE, Open, Player, Watched, chromium_path, open_browser, recorded_board
from tests.conftest import not_here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncGenerator[Browser]:
    """The Chromium that is installed, one for each module."""
    if not chromium_path():
        not_here("there is no Chromium here: apt-get install chromium")
    async with open_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def player() -> AsyncGenerator[Player]:
    """The page's server, with the recorded document."""
    player = Player(recorded_board())
    await player.start()
    yield player
    await player.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def look(browser: Browser, player: Player) -> AsyncGenerator[Open]:
    """Open the page, and wait until the document is drawn; `clock_ms` gives the browser a clock that tests can turn."""
    opened: list[BrowserContext] = []

    async def look(
        scheme: str = "dark", size: dict[str, int] = WIDE, fragment: str = "", clock_ms: int | None = None
    ) -> Watched:
        context = await browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport=size,  # type: ignore[arg-type]
            timezone_id="UTC",
        )
        opened.append(context)
        watched = Watched(await context.new_page())
        if clock_ms is not None:
            await watched.page.clock.install(time=datetime.fromtimestamp(clock_ms / 1000, UTC))
        await watched.page.goto(player.address + fragment)
        await expect(watched.page.locator("#connection")).to_contain_text("Live")
        return watched

    yield look
    for context in opened:
        await context.close()
