"""The page of the real demo, as a newcomer sees it: it moves, and what is planted is found."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser import Watched

EVENTS: Final = 8_000  # as in test_demo.py: the second half has the fault, and at least one drift window
DEMO_TIMEOUT_S: Final = 150  # 25 s on a machine that does nothing else
FIGURES_TIMEOUT_MS: Final = 60_000
_ADDRESS: Final = re.compile(rb"live page: (http://127\.0\.0\.1:\d+/)")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_of_the_demo_moves_and_shows_the_planted_fault(browser: Browser, tmp_path: Path) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "demo", f"--events={EVENTS}", "--headless"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEMO_TIMEOUT_S):
            address = await _address(demo)
            said = asyncio.create_task(_rest(demo))
            seen = Watched(await browser.new_page())
            await seen.page.goto(address)
            await _it_moves(seen.page)
            await _the_fault_is_found(seen.page)
            assert (seen.errors, seen.foreign) == ([], [])
            await seen.page.close()
            assert await demo.wait() == 0, await said
    finally:
        if demo.returncode is None:
            demo.terminate()
            await demo.wait()


async def _address(demo: asyncio.subprocess.Process) -> str:
    assert demo.stdout
    async for line in demo.stdout:
        if found := _ADDRESS.match(line):
            return found[1].decode()
    raise AssertionError("the demo named no page")


async def _rest(demo: asyncio.subprocess.Process) -> str:
    assert demo.stdout
    return (await demo.stdout.read()).decode()


async def _it_moves(page: Page) -> None:
    """Events come in and are answered, predictions wait for their labels, and how good they were is told."""
    await expect(page.locator("#flow")).to_contain_text(
        re.compile(r"In\s*[1-9][\d,]*\s*/s"), timeout=FIGURES_TIMEOUT_MS
    )
    await expect(page.locator("#flow")).to_contain_text(re.compile(r"Answered\s*[1-9][\d,]*\s*/s"))
    await expect(page.locator("#labels .figure", has_text="Pending").locator(".value")).to_have_text(
        re.compile(r"[1-9]"), timeout=FIGURES_TIMEOUT_MS
    )
    clock = page.locator("#connection")
    before = await clock.inner_text()
    await expect(page.locator("#models .legend")).to_contain_text(
        re.compile(r"champion\s*0\.[5-7]"), timeout=FIGURES_TIMEOUT_MS
    )
    await expect(clock).to_contain_text("Live")
    assert await clock.inner_text() != before


async def _the_fault_is_found(page: Page) -> None:
    """The distances in kilometres lead to an alert, to the worst column, and to another state than that all is well."""
    drifted = page.locator("#alerts .now .alert", has_text="drift").filter(has_text="distance_miles")
    await expect(drifted).to_be_visible(timeout=FIGURES_TIMEOUT_MS)
    assert await page.locator("#state").get_attribute("data-level") in {"watch", "act"}
    await expect(drifted.locator(".do")).not_to_be_empty()
    await expect(page.locator("#drift .column .severity").first).to_have_text(re.compile("medium|high|critical"))
    assert await page.locator("#dead li").count() > 0
