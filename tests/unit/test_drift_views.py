"""The stage that keeps the views, before a Redis made of a dictionary: what is written, and that nothing waits."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from agents.views import KEPT_MS, Views
from agents.views.drift import MOST_ALERTS
from schemas.events import Alert
from schemas.wire import decode, encode
from stream.batches import Outbox, Record, TopicPartition
from stream.metric_values import Metrics
from tests.drifting import alert_of, report_of
from tests.support import Entry, batch, leap_through, now
from tests.viewing import ALERTS, DRIFT, NOW_MS, SPEC, MemoryViews, entries, scene

REPORT = "drift:stats:flights"


def report(views: MemoryViews) -> int:
    """The number of the report that is shown."""
    found: int = views.value(REPORT)["number"]
    return found


def alerts(views: MemoryViews) -> list[str]:
    """The ids of the alerts that are shown."""
    return views.ids("drift:alert:flights:")


def through(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    leap_through(main())


def test_what_the_logs_say_is_written_when_the_stage_opens_and_not_what_comes_after() -> None:
    junk = Entry(3, b"junk", timestamp=NOW_MS)
    drift = [*entries(*map(report_of, range(3))), junk, *entries(report_of(4), first=4)]
    other = alert_of("other", kind="accuracy")
    old = entries(alert_of("old"), timestamp=NOW_MS - KEPT_MS - 1)
    told = [*old, *entries(alert_of("a"), other, alert_of("b"), alert_of("later"), first=1)]

    async def main() -> None:
        made = scene({DRIFT: drift, ALERTS: told})
        await made.stage.open({DRIFT: 4, ALERTS: 4})
        await asyncio.sleep(1)
        await made.stage.close()
        assert made.views.entries[REPORT].value == encode(report_of(2))
        assert made.views.value(f"{REPORT}:feature:distance")["psi"] == 0.01
        assert made.views.value(f"{REPORT}:prediction:score")["number"] == 2
        assert alerts(made.views) == ["a", "b"]
        shown = made.views.entries["drift:alert:flights:a"]
        assert (decode(Alert, shown.value), shown.until_ms) == (alert_of("a"), NOW_MS + KEPT_MS)

    through(main)


def test_news_is_written_alone_and_what_comes_at_once_is_written_once() -> None:
    async def main() -> None:
        made = scene()
        await made.stage.open({})
        await asyncio.sleep(1)
        for number in range(50):
            await made.take(DRIFT, entries(report_of(number), first=number))
            await made.take(ALERTS, entries(alert_of(f"a{number}"), first=number))
        await asyncio.sleep(1)
        assert report(made.views) == 49
        assert len(alerts(made.views)) == 50
        assert made.views.calls == [True, False]
        await made.stage.close()

    through(main)


def test_a_flushed_redis_has_everything_again_within_seconds() -> None:
    async def main() -> None:
        made = scene()
        await made.stage.open({})
        await made.take(DRIFT, entries(report_of(1)))
        await made.take(ALERTS, entries(alert_of("a")))
        await asyncio.sleep(1)
        made.views.flush()
        await asyncio.sleep(3)
        assert (report(made.views), alerts(made.views)) == (1, ["a"])
        made.views.flush()
        await made.take(ALERTS, entries(alert_of("b"), first=1))  # news must not hide that the rest is gone
        await asyncio.sleep(3)
        assert (report(made.views), alerts(made.views)) == (1, ["a", "b"])
        await made.stage.close()

    through(main)


def test_nothing_is_written_while_nothing_changes() -> None:
    async def main() -> None:
        made = scene()
        await made.stage.open({})
        await made.take(DRIFT, entries(report_of(1)))
        await asyncio.sleep(3_600)
        assert made.views.calls == [True]
        await made.stage.close()

    through(main)


def test_a_redis_that_is_away_is_counted_said_once_and_caught_up_with(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        made = scene()
        made.views.down = True
        await made.stage.open({})
        for number in range(30):
            await made.take(DRIFT, entries(report_of(number), first=number))
            await asyncio.sleep(1)
        assert made.failures() >= 5
        made.views.down = False
        await asyncio.sleep(5)
        assert report(made.views) == 29
        await made.stage.close()

    through(main)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the views of flights wait: Redis is away"
    ]


def test_a_redis_that_never_answers_holds_up_neither_records_nor_the_end() -> None:
    async def main() -> None:
        made = scene()
        made.views.hung = True
        await made.stage.open({})
        await asyncio.sleep(1)
        before = now()
        for number in range(3 * MOST_ALERTS):
            await made.take(ALERTS, entries(alert_of(f"a{number}"), first=number))
        await made.stage.close()
        assert now() == before

    through(main)


def test_only_the_newest_alerts_are_kept() -> None:
    async def main() -> None:
        made = scene()
        made.views.down = True
        await made.stage.open({})
        await made.take(ALERTS, entries(*[alert_of(f"a{number}") for number in range(MOST_ALERTS + 5)]))
        await asyncio.sleep(1)
        made.views.down = False
        await asyncio.sleep(5)
        assert alerts(made.views) == [f"a{number}" for number in range(5, MOST_ALERTS + 5)]
        await made.stage.close()

    through(main)


def test_alerts_of_other_kinds_do_not_crowd_out_those_of_drift_when_the_stage_opens() -> None:
    others = [alert_of(f"other{number}", kind="accuracy") for number in range(MOST_ALERTS + 5)]

    async def main() -> None:
        made = scene({ALERTS: entries(alert_of("a"), *others)})
        await made.stage.open({ALERTS: len(others) + 1})
        await asyncio.sleep(1)
        assert alerts(made.views) == ["a"]
        await made.stage.close()

    through(main)


def test_records_that_are_neither_reports_nor_alerts_are_passed_over() -> None:
    async def main() -> None:
        made = scene()
        await made.stage.open({})
        await made.take(DRIFT, [*entries(report_of(1)), Entry(1, b"junk"), Entry(2, None)])
        await made.take(ALERTS, [Entry(0, b"{}"), *entries(alert_of("a"), first=1)])
        await asyncio.sleep(1)
        assert (report(made.views), alerts(made.views)) == (1, ["a"])
        await made.stage.close()

    through(main)


def test_without_a_redis_the_stage_takes_records_and_does_nothing() -> None:
    async def main() -> None:
        async def read_back(source: TopicPartition, stop: int | None) -> AsyncGenerator[Sequence[Record], None]:
            raise AssertionError("nobody needs the logs")
            yield []

        stage = Views(SPEC, read_back, None, Metrics(), lambda: NOW_MS)
        await stage.open({DRIFT: 5})
        await stage.process(batch(DRIFT, entries(report_of(1))), Outbox())
        await stage.close()

    through(main)


def test_the_writing_ends_also_where_a_client_swallows_that_it_was_cancelled() -> None:
    async def main() -> None:
        made = scene({})
        made.views.broken = True
        await made.stage.open({})
        await asyncio.sleep(1)
        async with asyncio.timeout(1):
            await made.stage.close()

    through(main)
