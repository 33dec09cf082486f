"""Several streams on one page: which one is shown, and that one screen holds their names."""

from typing import Final

import msgspec
import pytest
from playwright.async_api import Route, expect

from app.page.document import Level
from tests.browser import NARROW, WIDE, Open, Player, with_streams

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEVELS: Final[tuple[Level, ...]] = ("ok", "watch", "act")


async def _serve(player: Player, levels: dict[str, Level]) -> None:
    """Serve these streams instead."""
    await player.stop()
    player.board = with_streams(player.board, levels)
    await player.start()


async def test_a_few_streams_are_links_that_tell_how_each_is_the_worst_first(look: Open, player: Player) -> None:
    await _serve(player, {"flights": "ok", "fraud": "watch", "models": "act"})
    seen = await look(fragment="#stream=flights")
    assert "Well All is well." in await seen.text("#state")
    links = seen.page.locator("#streams a")
    assert await links.all_inner_texts() == ["models\n: act", "fraud\n: watch", "flights\n: ok"]
    await links.first.press("Enter")
    await expect(seen.page.locator("#state-word")).to_have_text("Act")
    await expect(links.first).to_have_attribute("aria-current", "page")
    assert seen.page.url.endswith("#stream=models"), "a stream may have the name of a part of the page"
    assert seen.errors == []


async def test_many_streams_are_a_list_to_choose_from(look: Open, player: Player) -> None:
    await _serve(player, {f"s{number:03d}": LEVELS[number % 3] for number in range(200)})
    seen = await look()
    choice = seen.page.get_by_label("Stream", exact=True).and_(seen.page.locator("select"))
    await expect(choice).to_have_value("s002")
    assert await seen.text("#streams .counts") == "66 act · 67 watch · 67 ok"
    assert (await choice.locator("option").all_inner_texts())[:2] == ["⬣ s002: act", "⬣ s005: act"]
    await choice.select_option("s198")
    await expect(seen.page.locator("#state-word")).to_have_text("Well")
    assert seen.page.url.endswith("#stream=s198")
    await seen.page.reload()
    await expect(choice).to_have_value("s198")


@pytest.mark.parametrize("count", [2, 5, 8, 10, 200])
async def test_any_number_of_streams_fits_the_screen(look: Open, player: Player, count: int) -> None:
    await _serve(player, {f"a-stream-of-many-words-{number}": LEVELS[number % 3] for number in range(count)})
    wide, narrow = await look(), await look(size=NARROW)
    measure = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    assert await wide.page.evaluate(measure) == [WIDE["width"], WIDE["height"]]
    assert (await narrow.page.evaluate(measure))[0] == NARROW["width"]
    for seen in (wide, narrow):
        below = await seen.page.evaluate(
            "document.getElementById('state').getBoundingClientRect().top"
            " - document.querySelector('header').getBoundingClientRect().bottom"
        )
        inside = await seen.page.evaluate(
            "[...document.querySelectorAll('header > *')].every(node => node.matches('.unseen')"
            " || node.getBoundingClientRect().right <= innerWidth)"
        )
        assert (below >= 0, inside) == (True, True), "the names stay in the first line"


@pytest.mark.parametrize("fragment", ["#models", "#%", "#stream=%", "#stream=", "#stream=nobody"])
async def test_an_address_that_names_no_stream_shows_the_worst(look: Open, player: Player, fragment: str) -> None:
    await _serve(player, {"fraud": "ok", "flights": "act"})
    seen = await look(fragment=fragment)
    await expect(seen.page.locator("#streams [aria-current]")).to_contain_text("flights")
    refused = [said for said in seen.errors if "404" in said]
    assert seen.errors == refused


async def test_a_stream_that_was_refused_once_is_asked_for_again(look: Open, player: Player) -> None:
    await _serve(player, {"fraud": "ok", "flights": "act"})
    seen = await look()
    refused: list[str] = []

    async def refuse(route: Route) -> None:
        refused.append(route.request.url)
        await route.fulfill(status=503)

    await seen.page.route("**/live?stream=fraud", refuse, times=1)
    await seen.page.get_by_role("link", name="fraud").click()
    await expect(seen.page.locator("#streams [aria-current]")).to_contain_text("fraud")
    assert len(refused) == 1


async def test_the_skip_link_and_other_fragments_leave_the_stream(look: Open, player: Player) -> None:
    await _serve(player, {"board": "ok", "flights": "act"})
    seen = await look(fragment="#stream=flights")
    await seen.page.locator(".skip").press("Enter")
    assert await seen.page.evaluate("document.activeElement.id") == "board"
    assert seen.page.url.endswith("#stream=flights"), "the bookmark stays"
    await seen.page.evaluate("location.hash = '#board'")
    player.show(msgspec.structs.replace(player.board, generated_time_ms=player.board.generated_time_ms + 61_000))
    await expect(seen.page.locator("#connection")).to_contain_text(":01:01")
    await expect(seen.page.locator("#streams [aria-current]")).to_contain_text("flights")
    assert seen.errors == []
