"""What is drawn of unusual documents: long names, little room, nothing known, more models than lines."""

from typing import Final

import msgspec
import pytest
from playwright.async_api import Page, expect

from app.page.document import Champion, OtherModel, State, WindowFigure
from tests.browser import NARROW, Open, Player, with_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR_MS: Final = 3_600_000
AT: Final = 0.633  # between two lines of the grid
CUT: Final = "node => node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight + 2"
INK: Final = """(share) => {
  const canvas = document.querySelector('#models canvas');
  const [over, wrap] = ['.u-over', '.u-wrap'].map((part) => document.querySelector(`#models ${part}`));
  const x = Math.round((canvas.width * (over.offsetLeft + over.offsetWidth * share)) / wrap.offsetWidth);
  const pixels = canvas.getContext('2d').getImageData(x - 2, 0, 5, canvas.height).data;
  const drawn = (at) => Array.from({ length: canvas.height }, (_, y) => pixels[4 * (5 * y + at) + 3] > 200);
  return Math.max(...[0, 1, 2, 3, 4].map((at) => drawn(at).filter(Boolean).length / canvas.height));
}"""
"""How much of the chart's height is inked at a share of its width."""


async def test_only_what_stays_the_same_is_read_aloud(look: Open, player: Player) -> None:
    seen = await look()
    await seen.page.evaluate(
        "() => { window.spoken = 0; new MutationObserver(() => { window.spoken += 1; })"
        ".observe(document.querySelector('[aria-live]'), { subtree: true, childList: true, characterData: true }); }"
    )
    for rate in (100, 101):
        state = msgspec.structs.replace(player.stream.state, figures=f"{rate} events/s.")
        player.show(with_stream(player.board, state=state))
        await expect(seen.page.locator("#state-figures")).to_have_text(f"{rate} events/s.")
    assert await seen.page.evaluate("window.spoken") == 0
    player.show(with_stream(player.board, state=State(level="ok", sentence="All is well.")))
    await expect(seen.page.locator("#state-word")).to_have_text("Well")
    assert await seen.page.evaluate("window.spoken") > 0


async def test_a_severity_is_never_cut(look: Open, player: Player) -> None:
    alert = msgspec.structs.replace(player.stream.alerts[0], severity="medium", kind="model_unavailable")
    alert = msgspec.structs.replace(alert, subject="flights-20261012T041500-9f86d081")
    player.show(with_stream(player.board, alerts=(alert,)))
    seen = await look(size=NARROW)
    severities = seen.page.locator(".severity .what")
    assert await severities.first.inner_text() == "medium"
    assert [await severity.evaluate(CUT) for severity in await severities.all()].count(True) == 0


async def test_long_headings_wrap(look: Open, player: Player) -> None:
    drift = player.stream.drift
    assert drift
    recommendation = (
        "retrain within 24 h, once somebody has looked at where the distances of the newest events come from"
    )
    reasons = {f"reason_number_{number}": 1000 * number for number in range(1, 7)}
    dead = msgspec.structs.replace(player.stream.dead_letters, at_least=True, reasons=reasons)
    drift = msgspec.structs.replace(drift, recommendation=recommendation)
    player.show(with_stream(player.board, drift=drift, dead_letters=dead))
    seen = await look()
    for note in ("#drift .note", "#dead .note"):
        assert not await seen.page.locator(note).evaluate(CUT), note
    assert (await seen.text("#dead .note")).startswith("at least 37 · reason number 1 1,000")
    player.show(with_stream(player.board, drift=msgspec.structs.replace(drift, over=True)))
    await expect(seen.page.locator("#drift .note")).to_contain_text("not judged since the promotion")


async def test_a_column_without_bins_is_told_without_them(look: Open, player: Player) -> None:
    drift = player.stream.drift
    assert drift
    bare = msgspec.structs.replace(drift.columns[0], bins=(), reference=(), current=())
    player.show(with_stream(player.board, drift=msgspec.structs.replace(drift, columns=(bare,))))
    seen = await look()
    told = await seen.page.locator("#drift .histogram").get_attribute("aria-label")
    assert told == "distance_miles, drift high"
    assert seen.errors == []


async def test_the_newest_mature_window_is_told_in_the_legend_and_aloud(look: Open, player: Player) -> None:
    models = player.stream.models
    assert models.windows["champion"][-1].mature is False
    newest = msgspec.structs.replace(models.newest["champion"], value=0.5125)
    models = msgspec.structs.replace(models, newest={"champion": newest})
    player.show(with_stream(player.board, models=models))
    seen = await look()
    assert await seen.page.locator("#models .legend .value").all_inner_texts() == ["0.512", "–", "–"]
    label = await seen.page.locator("#models .plot").get_attribute("aria-label") or ""
    assert label.endswith("in the newest mature window champion 0.512 (0.601 to 0.657)")
    player.show(with_stream(player.board, models=msgspec.structs.replace(models, newest={})))
    await expect(seen.page.locator("#models .plot")).to_have_attribute(
        "aria-label", "ROC AUC over time; no window is mature yet"
    )


async def test_a_window_of_few_events_presses_no_other_flat(look: Open) -> None:
    seen = await look()
    extent = "(data) => import('/charts/intervals.js').then(({ extent }) => extent(data))"
    known, wide, early = [0.6, 0.65, 0.55, None], [0.3, 1, 0, None], [None, None, None, 0.7]
    data = [[1, 2, 3], *(list(column) for column in zip(known, wide, early, strict=True))]
    assert await seen.page.evaluate(extent, data) == [0.55, 0.7]
    assert await seen.page.evaluate(extent, [[1], [0.3], [1], [0], [None]]) is None


async def test_four_models_have_lines_of_their_own_and_a_fifth_has_none(look: Open, player: Player) -> None:
    others = tuple(OtherModel(variant=f"v{number}", model_id=f"m{number}", role="shadow") for number in range(4))
    window = WindowFigure(to_time_ms=1_792_382_400_000, value=0.6, low=0.5, high=0.7, n=1000)
    windows = dict.fromkeys(("champion", *(other.variant for other in others)), (window,))
    models = msgspec.structs.replace(player.stream.models, others=others, windows=windows)
    player.show(with_stream(player.board, models=models))
    seen = await look()
    entries = seen.page.locator("#models .legend li")
    looks = [
        await entry.evaluate(
            "node => getComputedStyle(node).color + getComputedStyle(node.querySelector('.swatch')).borderTop"
        )
        for entry in await entries.all()
    ]
    assert len(set(looks[:4])) == 4
    assert await entries.nth(4).locator(".swatch").is_hidden()


def _serving_since(champion: Champion | None, time_ms: int, before: bool) -> Champion:
    assert champion
    return msgspec.structs.replace(champion, since_time_ms=time_ms, since_before=before)


async def test_a_line_marks_since_when_the_champion_serves(look: Open, player: Player) -> None:
    models, champion = player.stream.models, player.stream.models.champion
    first, last = models.windows["champion"][0].to_time_ms, models.windows["champion"][-1].to_time_ms
    seen = await look()

    async def ink(page: Page) -> float:
        return float(await page.evaluate(INK, AT))

    async def serves_since(time_ms: float, before: bool = False) -> None:
        later = _serving_since(champion, int(time_ms), before)
        player.show(with_stream(player.board, models=msgspec.structs.replace(models, champion=later)))
        word = "since before" if before else "since"
        await expect(seen.page.locator("#models .note")).to_contain_text(f"serves {word}")

    await serves_since(first + (last - first) * AT)
    await seen.page.wait_for_timeout(100)
    assert await ink(seen.page) > 0.6
    await serves_since(first + (last - first) * AT, before=True)
    await seen.page.wait_for_timeout(100)
    assert await ink(seen.page) < 0.4, "nobody knows since when"
    await serves_since(last + 1000 * HOUR_MS)
    await seen.page.wait_for_timeout(100)
    assert await ink(seen.page) < 0.4, "a replay has another clock"
