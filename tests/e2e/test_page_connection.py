"""The page when documents stop coming: a person never takes an old sentence for a live one."""

import asyncio
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Request, Route, expect

from app.page.document import State
from tests.browser import Open, Player, with_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDE: Final = """hidden => Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
  && document.dispatchEvent(new Event('visibilitychange'))"""
WELL: Final = State(level="ok", sentence="All is well.")
RECORDED_MS: Final = 1_792_382_400_000
DAY_S: Final = 86_400


async def _stands(page: Page, level: str, sentence: str) -> None:
    await expect(page.locator("#state")).to_have_attribute("data-level", level)
    await expect(page.locator("#state-sentence")).to_contain_text(sentence)


async def test_a_server_that_falls_silent_is_told_after_five_seconds(look: Open, player: Player) -> None:
    seen = await look()
    await asyncio.sleep(3)
    await _stands(seen.page, "act", "The newest 1,000 events have drifted")
    player.hang()
    await asyncio.sleep(3.5)
    await _stands(seen.page, "act", "The newest 1,000 events have drifted")
    await expect(seen.page.locator("#state")).to_have_attribute("data-level", "unknown", timeout=4000)
    await _stands(seen.page, "unknown", "Nothing new since")
    assert "Nothing new since" in await seen.text("#connection")
    assert await seen.page.title() == "Unknown · flights"
    player.hang(False)
    await _stands(seen.page, "act", "The newest 1,000 events have drifted")


async def test_a_problem_is_told_rather_than_the_silence_that_follows_it(look: Open, player: Player) -> None:
    seen = await look()
    player.show_problem("Kafka at localhost:9092 does not answer.")
    await _stands(seen.page, "unknown", "Kafka at localhost:9092 does not answer.")
    player.hang()
    await expect(seen.page.locator("#connection")).to_contain_text("Nothing new since", timeout=8000)
    await _stands(seen.page, "unknown", "Kafka at localhost:9092 does not answer.")


async def test_a_lost_connection_is_told_and_taken_up_again(look: Open, player: Player) -> None:
    seen = await look()
    await player.stop()
    await _stands(seen.page, "unknown", "The connection is lost")
    await player.start(port=urlsplit(player.address).port or 0)
    await expect(seen.page.locator("#state-word")).to_have_text("Act", timeout=10_000)


async def test_a_server_that_is_gone_is_asked_less_and_less(look: Open, player: Player) -> None:
    seen = await look(clock_ms=RECORDED_MS)
    asked: list[Request] = []
    seen.page.on("request", lambda request: asked.append(request))
    await player.stop()
    await _stands(seen.page, "unknown", "The connection is lost")
    for wait_s in (2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        before = len(asked)
        await seen.page.clock.run_for(int(1000 * (wait_s - 1.5)))
        await asyncio.sleep(0.2)
        assert len(asked) == before, f"not before {wait_s} s have passed"
        await seen.page.clock.run_for(1700)
        await asyncio.sleep(0.2)
        assert len(asked) == before + 1, f"after {wait_s} s"


async def test_a_hidden_page_does_not_listen_and_is_unknown_until_it_has_heard(look: Open, player: Player) -> None:
    seen = await look()
    await seen.page.evaluate(HIDE, True)
    assert await seen.page.title() == "Paused · flights"
    player.show(with_stream(player.board, state=WELL))
    await asyncio.sleep(0.2)
    assert await seen.page.locator("#state-word").inner_text() == "Act"
    held: list[Route] = []
    await seen.page.route("**/live*", lambda route: held.append(route))
    await seen.page.evaluate(HIDE, False)
    await _stands(seen.page, "unknown", "This is how it was at")
    await held[0].continue_()
    await expect(seen.page.locator("#state-word")).to_have_text("Well")


async def test_what_was_told_today_names_its_day_tomorrow(look: Open) -> None:
    seen = await look(clock_ms=RECORDED_MS)
    told = seen.page.locator("#alerts .now time").first
    assert "," not in await told.inner_text()
    await seen.page.clock.fast_forward(1000 * DAY_S)
    await expect(told).to_contain_text(", ")
