"""What the tests of the page share: a Chromium."""

from collections.abc import AsyncGenerator

import pytest_asyncio
from playwright.async_api import Browser

from tests.browser import chromium_path, open_browser
from tests.conftest import not_here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncGenerator[Browser]:
    """The Chromium that is installed, one for each module."""
    if not chromium_path():
        not_here("there is no Chromium here: apt-get install chromium")
    async with open_browser() as browser:
        yield browser
