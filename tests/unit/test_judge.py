"""The judge: what is told of a window and what is not told twice; records that are none; baselines that are missing."""

import asyncio
import logging
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from ml.drift.counting import Counter
from schemas.drift import PartialHistogram
from schemas.errors import FatalError, PenstockError, RetryableError
from schemas.streams import StreamSpec
from tests.judging import (
    BASELINES,
    COUNTERS,
    DAWN,
    LOST,
    MINUTE,
    NEW,
    OLD,
    SOURCE,
    Bench,
    baseline_of,
    drift_of,
    events_of,
    judged,
    partial_of,
)


def _moved(seed: int, *, a: float = 0.0, b: float = 0.0, score: float = 0.0) -> NDArray[np.float64]:
    """Return events of which the columns are moved by so many deviations."""
    moved: NDArray[np.float64] = events_of(1_000, seed) + np.array([a, b, score])
    return moved


async def _told(*windows: tuple[float, dict[str, float]], **drift: Any) -> Bench:
    """Return a bench after windows of a thousand events, each at a minute and moved by so much."""
    partials = [partial_of(_moved(10 + i, **moves), minute) for i, (minute, moves) in enumerate(windows)]
    return await judged(partials, **{"window_events": 1_000, **drift})


async def test_half_a_deviation_is_told_of_the_first_window_it_is_in() -> None:
    bench = await _told((0, {}), (1, {"a": 0.5}), drifted_share=0.6)
    quiet, moved = bench.reports
    assert (quiet.severity, quiet.drifted_share, quiet.recommendation) == ("none", 0.0, "")
    assert [column.severity != "none" for column in (*moved.features, *moved.predictions)] == [True, False, False]
    assert moved.drifted_share == 0.5
    alert = bench.alerts[0]
    assert len(bench.alerts) == 1
    assert bench.requests == []
    assert (alert.kind, alert.subject, alert.severity) == ("drift", "a", moved.severity)
    assert (alert.value, alert.threshold) == (moved.features[0].psi, 0.1)
    assert alert.raised_time_ms == DAWN + MINUTE
    assert alert.window == "1 (1000 events, 1971-11-26T10:41:00Z to 1971-11-26T10:41:00Z)"
    assert alert.recommendation == moved.recommendation
    assert f"model m1, window {alert.window}: 1 of 3 columns have drifted; now a ({moved.severity}: " in alert.message
    assert moved.features[0].reason in alert.message


async def test_what_was_told_is_told_again_after_the_cool_down_only() -> None:
    much = {"a": 1.0}
    bench = await _told((0, much), (1, much), (59.9, much), (60, much), cooldown_minutes=60, drifted_share=0.6)
    assert len({report.severity for report in bench.reports}) == 1
    assert [alert.window[0] for alert in bench.alerts] == ["0", "3"]


async def test_what_gets_worse_is_told_within_the_cool_down_and_what_gets_better_is_not() -> None:
    mild, bad = {"a": 0.43}, {"a": 1.5}
    bench = await _told((0, mild), (1, bad), (2, mild), (3, bad), drifted_share=0.6)
    assert [report.features[0].severity for report in bench.reports] == ["medium", "high", "medium", "high"]
    assert [(alert.window[0], alert.severity) for alert in bench.alerts] == [("0", "medium"), ("1", "high")]


async def test_another_column_is_told_and_no_other_with_it() -> None:
    bench = await _told((0, {"a": 1.0}), (1, {"a": 1.0, "b": 1.0}), drifted_share=1.0, min_psi=0.2)
    first, second = bench.alerts
    assert (first.subject, second.subject) == ("a", "b")
    assert "a (" not in second.message
    assert second.severity == "critical"
    assert second.threshold == 0.2


async def test_events_of_long_ago_do_not_wait_for_a_cool_down_of_today() -> None:
    bench = await _told((2_000, {"a": 1.0}), (0, {"a": 1.0}), cooldown_minutes=60)
    assert len(bench.alerts) == 2


async def test_a_prediction_that_drifts_far_is_critical_and_asks_for_training() -> None:
    bench = await _told((0, {"score": 1.5}))
    alert, request = bench.alerts[0], bench.requests[0]
    assert (alert.subject, alert.severity, alert.recommendation) == ("prediction score", "critical", "act now")
    assert request.evidence["drifted_features"] == ""
    assert request.evidence["drifted_predictions"] == "score"
    assert request.evidence["severity"] == "critical"


async def test_enough_drifted_features_ask_for_training_with_their_evidence() -> None:
    bench = await _told((0, {}), (1, {"a": 0.6, "b": 2.0}), (2, {"a": 0.6, "b": 2.0}))
    assert len(bench.alerts) == len(bench.requests) == 1
    report, request = bench.reports[1], bench.requests[0]
    assert (request.stream, request.reason, request.requested_by) == ("s", "drift", "judge")
    assert request.requested_time_ms == bench.alerts[0].raised_time_ms == DAWN + MINUTE
    assert request.evidence == {
        "model_id": "m1",
        "baseline": OLD,
        "window": bench.alerts[0].window,
        "severity": "critical",
        "drifted_share": 1.0,
        "drifted_features": "b,a",
        "drifted_predictions": "",
        "worst_psi": report.features[1].psi,
        "n": 1_000,
        "from_time_ms": DAWN + MINUTE,
        "to_time_ms": DAWN + MINUTE,
    }


async def test_columns_told_one_by_one_are_told_once_more_when_together_they_are_critical() -> None:
    a, b = {"a": 0.6}, {"b": 0.6}
    bench = await _told((0, a), (1, b), (2, a | b), (3, a | b), drifted_share=0.6)
    assert [alert.subject for alert in bench.alerts[:2]] == ["a", "b"]
    assert [(alert.window[0], alert.severity) for alert in bench.alerts[2:]] == [("2", "critical")]
    assert "a (" in bench.alerts[2].message
    assert "b (" in bench.alerts[2].message
    assert len(bench.requests) == 1


async def test_at_most_five_columns_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple("abcdefg")
    spec = StreamSpec(name="s", features=names)
    baseline = baseline_of(1, names)
    bench = await Bench(drift_of(window_events=500), spec, {OLD: baseline}).open()
    monkeypatch.setitem(COUNTERS, OLD, Counter(baseline))
    await bench.take([partial_of(events_of(500, 3, 7) + np.array([2.0] * 7 + [0.0]))])
    assert bench.alerts[0].message.count("high: ") == 5
    assert bench.alerts[0].message.endswith(" and 2 more")


async def test_a_column_that_is_only_counted_raises_no_alert() -> None:
    bench = await _told((0, {"a": 2.0}), only_counted=("a",))
    assert bench.alerts == []
    assert bench.reports[0].features[0].psi is not None
    assert not bench.reports[0].features[0].judged


async def test_a_replay_repeats_every_id_and_no_two_are_the_same() -> None:
    windows = [(i * 100.0, {"a": 1.0, "b": 1.0}) for i in range(4)]
    bench, replayed = await _told(*windows, cooldown_minutes=60), await _told(*windows, cooldown_minutes=60)
    assert (bench.alerts, bench.requests) == (replayed.alerts, replayed.requests)
    assert len({*(alert.id for alert in bench.alerts), *(request.id for request in bench.requests)}) == 8


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"stream": "other"}, "it is of stream 'other'"),
        ({"n": 0}, "do not add up to 0 events"),
        ({"n": 2**40}, "do not add up to 1099511627776 events"),
        ({"partition": 1}, "it is of partition 1, but the stream has 1"),
        ({"n": 49}, "do not add up to 49 events"),
        ({"from_time_ms": -1}, "event times"),
        ({"from_time_ms": DAWN + 1}, "event times"),
        ({"to_time_ms": 10**15}, "event times"),
        ({"columns": ()}, "it has 0 columns, but the stream has 3"),
    ],
)
async def test_a_record_that_is_no_partial_of_the_stream_is_left_out(
    changes: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await judged([partial_of(50), partial_of(50, **changes), partial_of(50)])
    assert bench.windows == [(0, 100)]
    assert "the record at offset 2 of s.histograms is skipped: " in caplog.text
    assert problem in caplog.text
    assert bench.metric("ml_drift_partials_missed_total", reason="unusable") == 1


def _with_column(**changes: Any) -> PartialHistogram:
    partial = partial_of(50)
    return msgspec.structs.replace(
        partial, columns=(msgspec.structs.replace(partial.columns[0], **changes), *partial.columns[1:])
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": (3,), "counts": (49,)},
        {"cells": (3, 4), "counts": (50,)},
        {"cells": (4, 3), "counts": (25, 25)},
        {"cells": (3, 3), "counts": (25, 25)},
        {"cells": (-1,), "counts": (50,)},
        {"cells": (3, 4), "counts": (51, -1)},
        {"cells": (3,), "counts": (51,), "missing": -1},
        {"cells": (2**70,), "counts": (50,)},
    ],
)
async def test_columns_that_cannot_have_been_counted_are_left_out(changes: dict[str, Any]) -> None:
    bench = await judged([_with_column(**changes), partial_of(100)])
    assert bench.windows == [(0, 100)]


async def test_columns_that_add_up_only_together_are_left_out() -> None:
    partial = partial_of(50)
    first, second, *rest = partial.columns
    more = msgspec.structs.replace(first, missing=second.counts[-1])
    less = msgspec.structs.replace(second, cells=second.cells[:-1], counts=second.counts[:-1])
    bench = await judged([msgspec.structs.replace(partial, columns=(more, less, *rest)), partial_of(100)])
    assert bench.windows == [(0, 100)]


async def test_others_get_a_turn_while_many_partials_are_read() -> None:
    bench = await Bench(drift_of(window_events=10_000)).open()
    bench.write([partial_of(10)] * 100)
    step = asyncio.create_task(bench.step(100))
    turns = 0
    while not step.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 25


async def test_rubbish_is_left_out() -> None:
    rubbish = [b"", b"{}", b"rubbish", b"[" * 10_000, b'{"stream":"s","n":NaN}', b"\xff"]
    bench = await judged([partial_of(50), *rubbish, partial_of(50)])
    assert bench.windows == [(0, 100)]
    assert bench.metric("ml_drift_partials_missed_total", reason="unusable") == 6


async def test_a_window_without_its_baseline_is_not_judged_and_the_next_one_asks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await judged([partial_of(60, baseline=LOST), partial_of(60), partial_of(60, baseline=LOST), partial_of(60)])
    assert [report.baseline for report in bench.reports] == [OLD]
    assert bench.opened.count(LOST) == 1
    assert "the baseline ffffffffffff cannot be used: there is no ffff" in caplog.text
    assert "the window of 120 events against the baseline ffffffffffff is not judged" in caplog.text
    assert bench.metric("ml_drift_windows_total", outcome="no_baseline") == 1
    bench.baselines[LOST] = BASELINES[OLD]
    await bench.take([partial_of(120, baseline=LOST)])
    assert bench.reports[-1].baseline == LOST
    assert [report.number for report in bench.reports] == [0, 1]


async def test_a_baseline_of_other_features_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    bench = await Bench(drift_of(), baselines={OLD: baseline_of(1, ("a", "c"))}).open()
    await bench.take([partial_of(100)])
    assert bench.reports == []
    assert "is not judged: " in caplog.text
    assert "a, c" in caplog.text


@pytest.mark.parametrize("error", [RetryableError("the store does not answer"), FatalError("no store")])
async def test_a_store_that_does_not_answer_is_asked_again_and_nothing_is_lost(error: PenstockError) -> None:
    bench = await Bench(drift_of(), baselines={OLD: error}).open()
    bench.write([partial_of(100)])
    with pytest.raises(type(error)):
        await bench.step(1)
    bench.baselines = dict(BASELINES)
    await bench.open()
    await bench.step(1)
    await bench.commit()
    assert bench.windows == [(0, 100)]


async def test_the_newest_window_is_shown_as_metrics_until_the_judge_leaves() -> None:
    bench = await _told((0, {}), (1, {"a": 1.0, "score": 1.5}))
    report = bench.reports[1]
    assert bench.metric("ml_feature_drift_score", feature="a", type="psi") == report.features[0].psi
    assert bench.metric("ml_feature_drift_score", feature="a", type="ks") == report.features[0].ks
    assert bench.metric("ml_prediction_drift_score", prediction="score", type="psi") == report.predictions[0].psi
    assert bench.metric("ml_drifted_features_ratio") == 0.5
    assert bench.metric("ml_drift_alerts_total", severity="critical") == 1
    await bench.judge.close()
    assert bench.metric("ml_feature_drift_score", feature="a", type="psi") is None
    assert bench.metric("ml_prediction_drift_score", prediction="score", type="psi") is None
    assert bench.metric("ml_drifted_features_ratio") is None


async def test_a_figure_that_there_is_not_is_shown_as_no_number() -> None:
    events = events_of(100, 1)
    events[:, 0] = np.nan
    bench = await judged([partial_of(events)])
    shown = bench.metric("ml_feature_drift_score", feature="a", type="ks")
    assert shown is not None
    assert np.isnan(shown)
    assert bench.metric("ml_feature_drift_score", feature="a", type="missing_share") == 1.0


async def test_a_checkpoint_goes_with_a_judgement_and_says_where_the_open_windows_begin() -> None:
    bench = await judged([partial_of(60), partial_of(30, baseline=NEW)])
    first = bench.memory.committed
    await bench.take([partial_of(60), partial_of(30, baseline=NEW), partial_of(50)])
    assert bench.memory.committed is not None
    assert bench.memory.committed is not first
    assert len(bench.memory.committed.state) < 1_000
    saved = bench.memory.committed
    await bench.take([partial_of(1)])
    assert bench.memory.committed is saved
    await bench.open()
    assert bench.memory.reads[-1] == (SOURCE, 2, bench.committed)
    await bench.take([partial_of(49), partial_of(40, baseline=NEW)])
    assert bench.windows == [(0, 120), (1, 100), (2, 100)]


async def test_windows_of_another_kind_begin_where_the_others_ended_and_the_cool_down_goes_on() -> None:
    loud = partial_of(_moved(1, a=1.0))
    bench = await judged([loud, loud], window_events=1_500)
    assert len(bench.alerts) == len(bench.reports) == 1
    await bench.take([loud])
    bench.drift = drift_of(window_events=2_000)
    await bench.open()
    assert bench.memory.reads[-1] == (SOURCE, 5, 5)
    await bench.take([loud])
    await bench.open()
    await bench.take([loud])
    assert bench.windows == [(0, 2_000), (1, 2_000)]
    assert len(bench.alerts) == 1


async def test_windows_made_smaller_before_any_was_judged_begin_here_and_tell_of_drift() -> None:
    loud = partial_of(_moved(1, a=1.0))
    bench = await judged([loud, loud], window_events=5_000)
    bench.drift = drift_of(window_events=1_000)
    await bench.open()
    await bench.take([loud])
    assert bench.windows == [(0, 1_000)]
    assert len(bench.alerts) == 1


async def test_what_nobody_knows_to_have_been_told_is_told_again() -> None:
    loud = partial_of(_moved(1, a=1.0))
    bench = await judged([loud], window_events=1_000)
    assert len(bench.alerts) == 1
    bench.memory.committed = None
    await bench.open()
    await bench.take([loud])
    assert bench.windows == [(0, 1_000), (1, 1_000)]
    assert [alert.window[0] for alert in bench.alerts] == ["0", "1"]


async def test_predictions_are_not_judged_by_the_baseline_of_another_model() -> None:
    moved = _moved(1, score=1.5)
    bench = await judged([partial_of(moved, model_id="m2")], window_events=1_000)
    report = bench.reports[0]
    score = report.predictions[0]
    assert (report.severity, report.model_id, bench.alerts) == ("none", "m2", [])
    assert (score.judged, score.reason) == (False, "the baseline is of another model's predictions")
    assert score.psi is not None
    assert score.psi > 1
    await bench.take(
        [partial_of(moved[:500] + np.array([1.0, 0, 0]), model_id="m2"), partial_of(moved[500:], model_id="m1")]
    )
    assert [column.judged for column in (*bench.reports[1].features, *bench.reports[1].predictions)] == [1, 1, 0]
    assert bench.reports[1].features[0].severity != "none"
    await bench.take([partial_of(moved, model_id="m1")])
    assert bench.reports[2].predictions[0].severity == "high"


async def test_a_sliding_window_judges_predictions_once_no_other_model_is_in_it() -> None:
    partials = [partial_of(50, minute, model_id="m2" if minute < 2 else "m1") for minute in range(5)]
    bench = await judged(partials, sliding=True, check_seconds=60)
    assert [report.predictions[0].judged for report in bench.reports] == [False, False, True, True]


@pytest.mark.parametrize("changes", [{"format": 99}, {"state": msgspec.Raw(b'{"number":1}')}])
async def test_a_checkpoint_that_cannot_be_read_costs_reading_the_log_again(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    bench = await judged([partial_of(100), partial_of(100), partial_of(60)])
    assert bench.memory.committed is not None
    bench.memory.committed = msgspec.structs.replace(bench.memory.committed, **changes)
    with caplog.at_level(logging.WARNING):
        await bench.open()
    assert "is judged anew" in caplog.text
    assert bench.memory.reads[-1] == (SOURCE, 0, bench.committed)
    await bench.take([partial_of(40)])
    assert bench.windows == [(0, 100), (1, 100), (2, 100)]
