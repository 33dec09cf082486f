"""The page in a real Chromium, on a recorded document: what a person sees, hears and can reach."""

import re
from typing import Final

import msgspec
import pytest
from playwright.async_api import expect

from app.page.document import Board, State
from tests.browser import NARROW, WIDE, Open, Player, with_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPAQUE_CONTRASTS: Final = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [red, green, blue] = channels(colour).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] === 255) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest('script, .unseen, noscript')) continue;
    const [one, other] = [luminance(getComputedStyle(node).color), luminance(ground(node))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), texts.currentNode.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


async def test_the_first_sentence_says_how_the_models_are_and_what_to_do(look: Open, player: Player) -> None:
    seen = await look()
    band = seen.page.locator("#state")
    assert await band.get_attribute("data-level") == "act"
    assert (await band.inner_text()).startswith("Act The newest 1,000 events have drifted: distance_miles")
    assert await seen.page.locator("#state [aria-live=polite]").count() == 1
    assert await seen.page.locator("[aria-live]").count() == 1, "only the sentence speaks up"
    assert await seen.page.title() == "Act · flights"
    player.show(with_stream(player.board, state=State(level="ok", sentence="All is well.")))
    await expect(seen.page.locator("#state-word")).to_have_text("Well")
    await expect(seen.page.locator("#state")).to_have_attribute("data-level", "ok")
    assert (seen.errors, seen.foreign) == ([], [])


async def test_every_panel_shows_what_the_document_says(look: Open) -> None:
    seen = await look()
    assert re.search(r"binary classification\s+In\s+1,000\s*/s", await seen.text("#flow"))
    assert "2.8h" in (await seen.text("#labels")).replace(" ", "").replace("\n", "")
    assert "xgboost 1.2.0 serves since" in await seen.text("#models .note")
    assert "flights-20261002T081500-a3b1c2d4" in await seen.text("#models .legend")
    assert "challenger 0.1580 brier, +0.0040 (−0.0060 to +0.0140)" in await seen.text("#models .under")
    assert await seen.page.locator("#alerts .now li").count() == 2
    assert "What to do Look at where distance_miles comes from" in await seen.text("#alerts .now")
    assert await seen.page.locator("#drift .what").first.inner_text() == "distance_miles"
    assert await seen.page.locator("#timeline li").count() == 10
    assert "37 · schema mismatch 24" in await seen.text("#dead .note")


async def test_foreign_text_is_text(look: Open) -> None:
    seen = await look()
    await seen.page.locator("#dead summary").first.click()
    assert "<script>" in await seen.text("#alerts .now")
    assert "<script>" in await seen.text("#dead pre >> nth=0")
    assert await seen.page.title() == "Act · flights"
    assert await seen.page.locator("main script").count() == 0


async def test_what_moves_in_the_document_moves_on_the_page(look: Open, player: Player) -> None:
    seen = await look()
    await seen.page.locator("#dead summary").first.click()
    flow = msgspec.structs.replace(player.stream.flow, lag=1_234_567)
    dead = msgspec.structs.replace(player.stream.dead_letters, count=38)
    player.show(with_stream(player.board, flow=flow, dead_letters=dead))
    await expect(seen.page.locator("#flow")).to_contain_text("1,234,567")
    await expect(seen.page.locator("#dead .note")).to_contain_text("38")
    assert await seen.page.locator("#dead details[open]").count() == 1, "what was opened stays open"


async def test_a_chart_is_a_sentence_and_a_table_for_the_keyboard(look: Open) -> None:
    seen = await look()
    label = await seen.page.locator("#models .plot").get_attribute("aria-label") or ""
    assert label.startswith(
        "ROC AUC over time; in the newest mature window champion 0.629 (0.601 to 0.657), challenger"
    )
    await seen.page.locator("#drift .column button").first.focus()
    await seen.page.keyboard.press("Enter")
    dialog = seen.page.locator("dialog")
    await expect(dialog).to_be_visible()
    assert "moved 0.625 deviations" in await dialog.inner_text()
    assert await dialog.locator("tbody tr").count() == 9
    await seen.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    assert await seen.page.evaluate("document.activeElement.textContent.startsWith('distance_miles')")
    await seen.page.get_by_role("button", name="Show as table").click()
    assert await dialog.locator("tbody tr").count() == 24 + 21 + 10
    assert await dialog.locator("tbody tr", has_text="still coming").count() == 3


async def test_a_new_document_leaves_the_focus_where_it_is(look: Open, player: Player) -> None:
    seen = await look()
    await seen.page.locator("#drift .column button").nth(1).focus()
    drift = player.stream.drift
    assert drift
    worst, second, *rest = drift.columns
    changed = msgspec.structs.replace(second, severity="critical")
    player.show(with_stream(player.board, drift=msgspec.structs.replace(drift, columns=(changed, worst, *rest))))
    await expect(seen.page.locator("#drift .what").first).to_have_text("scheduled_hour")
    assert await seen.page.evaluate("document.activeElement.textContent.startsWith('scheduled_hour')")


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_every_text_has_the_contrast_of_wcag_aa(look: Open, scheme: str) -> None:
    seen = await look(scheme)
    for details in await seen.page.locator("details").all():
        await details.evaluate("node => { node.open = true; }")
    contrasts = await seen.page.evaluate(OPAQUE_CONTRASTS)
    assert len(contrasts) > 100
    assert [found for found in contrasts if found[0] < 4.5] == []


async def test_one_screen_holds_a_stream_and_a_phone_scrolls_one_way(look: Open) -> None:
    measure = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    wide, narrow = await look(), await look(size=NARROW)
    assert await wide.page.evaluate(measure) == [WIDE["width"], WIDE["height"]]
    assert (await narrow.page.evaluate(measure))[0] == NARROW["width"]


async def test_the_theme_is_the_systems_until_the_reader_chooses(look: Open) -> None:
    seen = await look("light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await seen.page.evaluate(ground)
    await seen.page.get_by_role("button", name="Switch to the dark theme").click()
    dark = await seen.page.evaluate(ground)
    assert light != dark
    await seen.page.reload()
    await expect(seen.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await seen.page.evaluate(ground) == dark


async def test_a_stream_of_which_nothing_is_known_yet_is_drawn(look: Open, player: Player) -> None:
    state = {"level": "watch", "sentence": "No model serves yet."}
    empty = {"name": "flights", "task": "binary", "state": state}
    parts: dict[str, object] = {
        "flow": {},
        "models": {},
        "labels": {},
        "dead_letters": {},
        "alerts": [],
        "timeline": [],
    }
    nothing = dict.fromkeys(("drift", "experiment", "training"))
    named = {"name": "flights", "state": state}
    document = {"generated_time_ms": 1, "streams": [named], "stream": empty | parts | nothing}
    player.show(msgspec.convert(document, Board))
    seen = await look()
    assert "Watch No model serves yet." in await seen.text("#state")
    assert seen.errors == []
