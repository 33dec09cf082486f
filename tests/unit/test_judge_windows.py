"""Which partials are judged together, and when: windows of a count and of event time, sliding, of several baselines."""

import msgspec
import numpy as np
import pytest

from agents.judge import windows
from agents.judge.clock import SILENT_MS
from agents.judge.windows import MAX_IDLE_OFFSETS
from schemas.streams import StreamSpec
from stream.timestamps import SLACK_MS
from tests.judging import (
    BASELINES,
    COUNTERS,
    DAWN,
    MINUTE,
    NEW,
    OLD,
    Bench,
    drift_of,
    events_of,
    judged,
    partial_of,
)


async def test_a_window_is_partials_in_a_row_until_there_are_enough_events() -> None:
    bench = await judged([partial_of(40, 0), partial_of(40, 1)])
    assert bench.reports == []
    await bench.take([partial_of(30, 2), partial_of(100, 3), partial_of(99, 4)])
    assert bench.windows == [(0, 110), (1, 100)]
    first = bench.reports[0]
    assert (first.from_time_ms, first.to_time_ms) == (DAWN, DAWN + 2 * MINUTE)
    assert (first.baseline, first.model_id, first.stream) == (OLD, "m1", "s")
    assert bench.metric("ml_drift_windows_total", outcome="judged") == 2


async def test_what_is_reported_is_the_sum_of_the_partials() -> None:
    events = events_of(200, seed=5) * 2 + 1
    events[3, 0] = np.nan
    bench = await judged([partial_of(events[:70]), partial_of(events[70:150])], window_events=150)
    feature = bench.reports[0].features[0]
    known = events[:150, 0][~np.isnan(events[:150, 0])]
    assert (feature.n, feature.missing_share) == (149, 1 / 150)
    assert feature.mean == pytest.approx(known.mean(), rel=1e-9)
    assert feature.deviation == pytest.approx(known.std(), rel=0.01)


async def test_the_newest_model_of_a_window_gives_it_its_name() -> None:
    bench = await judged([partial_of(50, 1, model_id="m2"), partial_of(50, 0, model_id="m3")])
    assert [report.model_id for report in bench.reports] == ["m3"]


async def test_each_baseline_has_a_window_of_its_own() -> None:
    old, new = partial_of(40), partial_of(60, baseline=NEW)
    bench = await judged([old, new, old, new, old])
    assert [(report.baseline, report.n) for report in bench.reports] == [(NEW, 120), (OLD, 120)]
    assert [report.number for report in bench.reports] == [0, 1]


async def test_a_baseline_that_is_out_of_use_gives_its_window_up() -> None:
    bench = await judged([partial_of(99)])
    new = partial_of(1, baseline=NEW)
    await bench.take([new] * (MAX_IDLE_OFFSETS // 2))
    assert bench.metric("ml_drift_windows_total", outcome="given_up") is None
    await bench.take([new, partial_of(99)])
    assert bench.metric("ml_drift_windows_total", outcome="given_up") == 1
    assert {report.baseline for report in bench.reports} == {NEW}


async def test_of_many_baselines_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_BASELINES", 2)
    names = [character * 64 for character in "abc"]
    bench = await Bench(drift_of(), baselines=BASELINES | dict.fromkeys(names, BASELINES[OLD])).open()
    await bench.take([partial_of(60, baseline=name) for name in names])
    assert bench.metric("ml_drift_windows_total", outcome="given_up") == 1
    await bench.take([partial_of(60, baseline=name) for name in names[::-1]])
    assert [report.baseline[0] for report in bench.reports] == ["c", "b"]


async def test_a_span_of_event_time_is_judged_when_later_events_have_passed_its_end_by_the_lateness() -> None:
    bench = await judged([partial_of(10, 0), partial_of(20, 12), partial_of(30, 9)], window_minutes=10)
    await bench.take([partial_of(1, 14.99)])
    assert bench.reports == []
    await bench.take([partial_of(1, 15)])
    assert bench.windows == [(0, 40)]
    assert (bench.reports[0].from_time_ms, bench.reports[0].to_time_ms) == (DAWN, DAWN + 9 * MINUTE)
    await bench.take([partial_of(1, 25)])
    assert bench.windows == [(0, 40), (1, 22)]


async def test_what_comes_for_a_span_that_is_judged_is_late(caplog: pytest.LogCaptureFixture) -> None:
    bench = await judged([partial_of(10, 0), partial_of(10, 20), partial_of(10, 9)], window_minutes=10)
    await bench.take([partial_of(10, 35)])
    assert [report.n for report in bench.reports] == [10, 10]
    assert bench.metric("ml_drift_partials_missed_total", reason="late") == 1
    assert "1 partial histograms are in no drift window: late" in caplog.text


async def test_a_span_has_a_window_of_each_baseline() -> None:
    bench = await judged([partial_of(10, 1, baseline=NEW), partial_of(5, 2), partial_of(1, 30)], window_minutes=10)
    assert [(report.baseline, report.n) for report in bench.reports] == [(NEW, 10), (OLD, 5)]


async def test_more_spans_than_there_is_room_for_are_judged_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_OPEN", 3)
    partials = [partial_of(10 + minute, minute) for minute in range(5)]
    bench = await judged(partials, window_minutes=1, lateness_minutes=1000)
    assert bench.windows == [(0, 10), (1, 11)]


async def _of_partitions(partitions: int, **drift: int) -> Bench:
    spec = StreamSpec(name="s", features=("a", "b"), partitions=partitions)
    return await Bench(drift_of(window_minutes=10, **drift), spec).open()


async def test_a_partition_that_is_behind_in_catching_up_loses_nothing() -> None:
    bench = await _of_partitions(2)
    await bench.take([partial_of(10, minute, partition=0) for minute in range(0, 100, 10)])
    assert bench.reports == []
    await bench.take([partial_of(20, minute, partition=1) for minute in range(0, 100, 10)])
    assert bench.windows == [(number, 30) for number in range(8)]
    assert bench.metric("ml_drift_partials_missed_total", reason="late") is None


async def test_a_partition_of_which_no_open_window_knows_is_still_waited_for_after_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "MAX_OPEN", 2)
    bench = await _of_partitions(2)
    await bench.take([partial_of(10, 0)], timestamp=DAWN)
    later = DAWN + 2 * SILENT_MS
    await bench.take([partial_of(10, 1, partition=1), partial_of(10, 15), partial_of(10, 25)], later)
    assert bench.windows == [(0, 20)]
    await bench.open()
    await bench.take([partial_of(10, 26)], later)
    assert bench.windows == [(0, 20)]


async def test_a_partition_that_was_never_heard_is_not_waited_for_again_after_a_crash() -> None:
    bench = await _of_partitions(2)
    await bench.take([partial_of(10, 0)], timestamp=DAWN)
    await bench.take([partial_of(10, 15)], timestamp=DAWN + SILENT_MS)
    await bench.open()
    await bench.take([partial_of(10, 25)], timestamp=DAWN + SILENT_MS)
    assert bench.windows == [(0, 10), (1, 10)]


async def test_a_partition_that_says_nothing_is_waited_for_so_long_by_kafkas_time() -> None:
    bench = await _of_partitions(2)
    await bench.take([partial_of(10, 0), partial_of(10, 30)], timestamp=DAWN)
    await bench.take([partial_of(10, 31)], timestamp=DAWN + SILENT_MS - 1)
    assert bench.reports == []
    await bench.take([partial_of(10, 32)], timestamp=DAWN + SILENT_MS)
    assert bench.windows == [(0, 10)]


async def test_a_partition_that_speaks_again_is_waited_for_again() -> None:
    bench = await _of_partitions(2)
    await bench.take([partial_of(10, 0), partial_of(10, 0, partition=1), partial_of(10, 15)], timestamp=DAWN)
    assert bench.reports == []
    await bench.take([partial_of(10, 16)], timestamp=DAWN + SILENT_MS)
    assert bench.windows == [(0, 20)]
    await bench.take([partial_of(10, 4, partition=1), partial_of(10, 90)], timestamp=DAWN + SILENT_MS)
    assert bench.windows == [(0, 20)]
    await bench.take([partial_of(10, 26, partition=1)], timestamp=DAWN + SILENT_MS)
    assert bench.windows == [(0, 20), (1, 20)]
    assert bench.metric("ml_drift_partials_missed_total", reason="late") == 1


async def test_a_clock_that_is_wrong_closes_no_window() -> None:
    bench = await judged([partial_of(10, 0)], window_minutes=10)
    await bench.take([partial_of(1, 10**6)], timestamp=DAWN)
    assert bench.reports == []
    assert bench.metric("ml_drift_partials_missed_total", reason="future") == 1
    await bench.take([partial_of(2, 5), partial_of(1, SLACK_MS // MINUTE)], timestamp=DAWN)
    assert bench.windows == [(0, 12)]


async def test_a_sliding_window_is_judged_when_it_is_full_and_then_by_event_time() -> None:
    bench = await judged([partial_of(50, 0), partial_of(50, 0.1)], sliding=True, check_seconds=60)
    assert bench.windows == [(0, 100)]
    await bench.take([partial_of(30, 0.5), partial_of(30, 1.05)])
    assert bench.windows == [(0, 100)]
    await bench.take([partial_of(30, 1.1)])
    assert bench.windows == [(0, 100), (1, 140)]
    assert bench.reports[1].from_time_ms == DAWN + MINUTE // 10


async def test_a_sliding_window_goes_on_when_older_events_are_sent_once_more() -> None:
    bench = await judged([partial_of(100, 60)], sliding=True)
    await bench.take([partial_of(100, 0), partial_of(100, 0.5), partial_of(100, 1)])
    assert [report.to_time_ms - DAWN for report in bench.reports] == [60 * MINUTE, 0, MINUTE]


async def test_a_sliding_window_of_many_small_partials_is_never_shorter_than_declared() -> None:
    bench = await judged([partial_of(1, i / 100) for i in range(400)], sliding=True, window_events=128)
    assert len(bench.reports) == 3
    assert all(128 <= report.n <= 128 + 2 for report in bench.reports)


async def test_a_sliding_span_holds_the_newest_events_by_their_time() -> None:
    partials = [partial_of(10, minute) for minute in range(64)]
    bench = await judged(partials, sliding=True, window_minutes=64, check_seconds=120)
    assert bench.reports == []
    await bench.take([partial_of(10, 64)])
    assert bench.windows == [(0, 640)]
    await bench.take([partial_of(7, 30), partial_of(7, 0), partial_of(10, 65)])
    assert bench.windows == [(0, 640)]
    await bench.take([partial_of(10, 66)])
    assert bench.windows == [(0, 640), (1, 647)]
    assert bench.metric("ml_drift_partials_missed_total", reason="late") == 1
    assert bench.reports[1].from_time_ms == DAWN + 3 * MINUTE


async def test_sliding_windows_are_given_up_as_well() -> None:
    bench = await judged([partial_of(100)], sliding=True)
    await bench.take([partial_of(1, baseline=NEW)] * (MAX_IDLE_OFFSETS // 2 + 1))
    assert bench.metric("ml_drift_windows_total", outcome="given_up") == 1


@pytest.mark.parametrize(
    ("drift", "reported"),
    [
        ({}, [50, 120]),
        ({"window_minutes": 1}, [50, 60]),
        ({"sliding": True}, [50, 110, 120]),
        ({"sliding": True, "window_minutes": 1}, [60, 60]),
    ],
)
async def test_a_partial_with_other_cells_is_in_no_figure_but_fills_its_place(
    drift: dict[str, int], reported: list[int]
) -> None:
    whole = partial_of(60)
    cells = len(COUNTERS[OLD].count(events_of(1, 1)[:, :-1], [np.zeros(1)]).column_cells(1))
    columns = list(whole.columns)
    columns[1] = msgspec.structs.replace(columns[1], cells=(*columns[1].cells[:-1], cells))
    misfit = msgspec.structs.replace(whole, columns=tuple(columns))
    bench = await judged([misfit, partial_of(50, 0.1), partial_of(60, 1.2), partial_of(60, 9)], **drift)
    assert [report.n for report in bench.reports] == reported
    assert [report.features[0].n for report in bench.reports] == reported
    assert bench.metric("ml_drift_partials_missed_total", reason="misfit") == 1


async def test_a_window_of_nothing_that_fits_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    whole = partial_of(100)
    columns = tuple(
        msgspec.structs.replace(column, cells=tuple(cell + 10**6 for cell in column.cells)) for column in whole.columns
    )
    bench = await judged([msgspec.structs.replace(whole, columns=columns), partial_of(100)])
    assert bench.windows == [(0, 100)]
    assert bench.metric("ml_drift_windows_total", outcome="misfit") == 1
    assert "is not judged: its cells are not the baseline's" in caplog.text
