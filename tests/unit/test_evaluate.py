"""The evaluate stage: when windows are reported, what the gates say, and what is passed over."""

import base64
import logging

import msgspec
import pytest

from agents.evaluate import SAVE_LOG_MS, Evaluate
from ml.evaluation import window, windows
from schemas.events import ShadowScore
from schemas.streams import JoinSpec
from schemas.wire import encode
from stream.batches import Batch, Outbox
from stream.metric_values import Metrics
from tests.evaluating import DAWN, MINUTE, SECOND, SOURCE, Bench, bench_of, sample, save, spec_of
from tests.support import Entry, LogMemory, memory_blobs


async def test_a_full_window_is_a_first_look_until_its_labels_have_had_time() -> None:
    bench = await bench_of([sample(i) for i in range(10)])
    assert bench.looks == [(0, False)]
    await bench.take([sample(10, minute=0, label_time_ms=DAWN + 69 * MINUTE - 1)])
    assert bench.looks == [(0, False)]
    await bench.take([sample(11, minute=0, label_time_ms=DAWN + 69 * MINUTE)])
    assert bench.looks == [(0, False), (0, True)]
    first, last = bench.performance
    assert (first.from_time_ms, first.to_time_ms) == (DAWN, DAWN + 9 * MINUTE + 1)
    assert msgspec.structs.replace(first, mature=True) == last


async def test_the_lateness_of_the_join_is_waited_for_as_well() -> None:
    spec = msgspec.structs.replace(spec_of(maturity_minutes=None), join=JoinSpec(window_minutes=30, lateness_minutes=7))
    bench = await Bench(spec).open()
    await bench.take([sample(i) for i in range(10)])
    await bench.take([sample(10, label_time_ms=DAWN + (9 + 37) * MINUTE - 1)])
    assert bench.looks == [(0, False)]
    await bench.take([sample(11, label_time_ms=DAWN + (9 + 37) * MINUTE)])
    assert bench.looks == [(0, False), (0, True)]


async def test_a_time_window_is_closed_by_a_later_event_and_what_comes_when_it_is_mature_is_missed() -> None:
    bench = await bench_of([sample(i) for i in range(5)], window_minutes=10)
    assert bench.looks == []
    await bench.take([sample(10)])
    assert bench.looks == [(100, False)]
    await bench.take([sample(5), sample(80)])
    assert bench.looks == [(100, False), (100, True), (101, True)]
    assert [found.variants[0].n for found in bench.performance] == [5, 6, 1]
    await bench.take([sample(6)])
    assert len(bench.performance) == 3
    assert bench.metric("ml_samples_missed_total", reason="late") == 1


async def test_a_corrected_label_changes_the_mature_report_of_its_own_window_only() -> None:
    bench = await bench_of([sample(i) for i in range(15)])
    await bench.take([sample(3, revision=1, label=0, replaces=1, score=0.9, label_time_ms=DAWN + 10 * MINUTE)])
    await bench.take([sample(15, minute=90)])
    assert bench.looks == [(0, False), (0, True)]
    before, after = (found.variants[0] for found in bench.performance)
    assert (before.accuracy, before.revised) == (1.0, 0)
    assert (after.accuracy, after.revised, after.n) == (0.9, 1, 10)


async def test_a_correction_of_an_event_that_is_not_known_is_counted_and_nothing_else() -> None:
    bench = await bench_of([sample(i) for i in range(5)])
    await bench.take([sample(77, revision=1, label=0, replaces=1, minute=2)])
    await bench.take([sample(i) for i in range(5, 10)])
    assert bench.performance[0].variants[0].n == 10
    assert bench.performance[0].variants[0].revised == 0
    assert bench.metric("ml_samples_missed_total", reason="unknown_event") == 1


async def test_beyond_the_events_that_are_remembered_corrections_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MAX_EVENTS", 10)
    monkeypatch.setattr(windows, "MAX_EVENTS", 10)
    bench = await bench_of([sample(i) for i in range(20)])
    await bench.take([sample(i, revision=1, label=1 - i % 2, replaces=i % 2) for i in (3, 13)])
    await bench.take([sample(20, minute=200)])
    assert [found.variants[0].revised for found in bench.performance if found.mature] == [0, 1]
    assert bench.metric("ml_samples_missed_total", reason="unknown_event") == 1


@pytest.mark.parametrize("window_minutes", [0, 10])
async def test_a_window_without_room_to_wait_stays_at_its_first_look(
    monkeypatch: pytest.MonkeyPatch, window_minutes: int
) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING", 2)
    bench = await bench_of([sample(i) for i in range(41)], window_minutes=window_minutes)
    await bench.take([sample(41, minute=500), sample(42, minute=501)])
    first = bench.performance[0].number
    assert [number - first for number, mature in bench.looks if not mature][:4] == [0, 1, 2, 3]
    assert [number - first for number, mature in bench.looks if mature][:2] == [0, 1]
    assert {2, 3}.isdisjoint(number - first for number, mature in bench.looks if mature)


async def test_what_comes_late_for_a_window_that_had_no_room_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING", 2)
    bench = await bench_of([sample(i) for i in range(35)], window_minutes=10)
    await bench.take([sample(25), sample(3), sample(22, revision=1, label=1, replaces=0)])
    await bench.take([sample(35, minute=500), sample(36, minute=501)])
    mature = {number: figures[0].n for number, found, figures in bench.reports if found}
    assert mature[100] == 11
    assert 102 not in mature
    assert bench.metric("ml_samples_missed_total", reason="no_room") == 2


async def test_in_time_windows_too_a_correction_begins_no_window() -> None:
    bench = await bench_of([sample(0), sample(12, revision=1, label=1, replaces=0), sample(13)], window_minutes=10)
    await bench.take([sample(20)])
    assert [(found.variants[0].n, found.variants[0].revised) for found in bench.performance] == [(1, 0), (1, 0)]
    assert bench.metric("ml_samples_missed_total", reason="unknown_event") == 1


async def test_a_drop_in_accuracy_is_told_once_per_cool_down_with_its_evidence() -> None:
    good = [sample(i) for i in range(10)]
    bad = [sample(i, right=i % 2 == 0) for i in range(10, 60)]
    bench = await bench_of([*good, *bad, *[sample(60 + i, minute=300 + i) for i in range(3)]], cooldown_minutes=1000)
    alert, request = bench.alerts[0], bench.requests[0]
    assert len(bench.alerts) == len(bench.requests) == 1
    assert (alert.kind, alert.severity, alert.subject, alert.window) == ("accuracy", "high", "m1", "count 1")
    assert (alert.value, alert.threshold) == (0.5, 0.95)
    assert request.reason == "accuracy"
    assert request.evidence == {
        "variant": "champion",
        "model_id": "m1",
        "window": "count 1",
        "value": 0.5,
        "reference": 1.0,
        "threshold": 0.95,
        "n": 10,
        "from_time_ms": DAWN + 10 * MINUTE,
        "to_time_ms": DAWN + 19 * MINUTE + 1,
    }
    assert request.requested_time_ms == alert.raised_time_ms == DAWN + 300 * MINUTE + SECOND


async def test_after_the_cool_down_it_is_told_again_and_a_replay_repeats_the_ids() -> None:
    good = [sample(i) for i in range(10)]
    bad = [sample(i, right=i % 2 == 0, minute=200 * (i // 10)) for i in range(10, 60)]
    bench = await bench_of([*good, *bad], cooldown_minutes=300)
    assert [alert.window for alert in bench.alerts] == ["count 1", "count 3"]
    replayed = await Bench(bench.spec).open()
    for given in [*good, *bad]:
        await replayed.take([given])
    assert replayed.alerts == bench.alerts
    assert replayed.requests == bench.requests
    assert len({found.id for found in [*bench.alerts, *bench.requests]}) == 4


async def test_an_accuracy_within_the_margin_says_nothing() -> None:
    samples = [sample(i, right=i != 25) for i in range(40)]
    bench = await bench_of([*samples, sample(40, minute=300)], accuracy_drop=0.1)
    assert (1, True) in bench.looks
    assert bench.alerts == []


async def test_no_gate_uses_a_window_that_is_immature_or_small() -> None:
    bad = [sample(i, right=False) for i in range(20)]
    immature = await bench_of(bad, reference_accuracy=0.9)
    assert immature.looks == [(0, False), (1, False)]
    assert immature.alerts == []
    small = await bench_of([*bad, sample(20, minute=300)], reference_accuracy=0.9, min_samples=11)
    assert (1, True) in small.looks
    assert small.alerts == []
    judged = await bench_of([*bad, sample(20, minute=300)], reference_accuracy=0.9)
    assert [alert.kind for alert in judged.alerts] == ["accuracy"]


async def test_a_shadow_is_measured_but_not_judged() -> None:
    shadows = (ShadowScore(variant="online", model_id="o1", score=0.5),)
    samples = [sample(i, shadows=shadows) for i in range(20)]
    bench = await bench_of([*samples, sample(20, minute=300)], reference_accuracy=0.9, max_false_positive_rate=0.3)
    champion, shadow = bench.performance[-1].variants
    assert (champion.variant, champion.accuracy, champion.latency_p50_ms) == ("champion", 1.0, pytest.approx(20, 0.01))
    assert (shadow.variant, shadow.model_id, shadow.latency_p50_ms) == ("online", "o1", None)
    assert (shadow.accuracy, shadow.false_positive_rate, shadow.roc_auc) == (0.5, 1.0, 0.5)
    assert bench.alerts == []


@pytest.mark.parametrize("cut", [1, 3, 10])
async def test_a_variant_is_told_by_its_own_model_where_the_champion_stood_in_last(cut: int) -> None:
    def model_of(i: int) -> str:
        return "m1" if i % 2 == 0 or i in (3, 7, 9) else "v1" if i < 4 else "v2"

    bench = await Bench(spec_of()).open()
    samples = [sample(i, variant="b" if i % 2 else "champion", model_id=model_of(i)) for i in range(10)]
    for start in range(0, 10, cut):
        await bench.take(samples[start : start + cut])
    assert [(v.variant, v.model_id) for v in bench.performance[-1].variants] == [("champion", "m1"), ("b", "v2")]


async def test_each_variant_is_measured_by_its_own_samples_and_only_the_champion_judged() -> None:
    samples = [sample(i, right=i % 2 == 0, variant="b" if i % 2 else "champion") for i in range(20)]
    bench = await bench_of([*samples, sample(20, minute=300)], reference_accuracy=0.9)
    champion, other = bench.performance[-1].variants
    assert [(v.variant, v.n, v.accuracy) for v in (champion, other)] == [("champion", 5, 1.0), ("b", 5, 0.0)]
    assert bench.looks[:2] == [(0, False), (1, False)]  # windows of ten samples, whoever served them
    assert bench.alerts == []


async def test_a_window_may_be_without_the_champion() -> None:
    samples = [sample(i, variant="b", model_id="m2") for i in range(10)]
    bench = await bench_of([*samples, sample(10, minute=300)], reference_accuracy=0.9)
    assert [[(v.variant, v.model_id, v.n) for v in found.variants] for found in bench.performance] == [
        [("b", "m2", 10)],
        [("b", "m2", 10)],
    ]


async def test_limits_on_false_positives_and_latency_are_gates_of_their_own() -> None:
    samples = [sample(i, right=i % 10 != 0, latency_ms=80) for i in range(10)]
    bench = await bench_of([*samples, sample(10, minute=300)], max_false_positive_rate=0.15, max_latency_ms=75)
    assert [(alert.kind, alert.threshold) for alert in bench.alerts] == [("false_positive_rate", 0.15), ("latency", 75)]
    bench = await bench_of([*samples, sample(10, minute=300)], max_false_positive_rate=0.2, max_latency_ms=85)
    assert bench.alerts == []


async def test_a_rise_of_the_error_is_told_without_a_window() -> None:
    samples = [sample(i, right=i % 10 != 0 if i < 1000 else i % 3 != 0, minute=0) for i in range(2000)]
    bench = await bench_of(samples, window_samples=10**6)
    assert bench.performance == []
    assert [(alert.kind, request.reason) for alert, request in zip(bench.alerts, bench.requests, strict=True)] == [
        ("error_drift", "error_drift")
    ]
    assert 1000 < int(bench.alerts[0].window.removeprefix("offset ")) < 1500
    assert 0.1 <= bench.requests[0].evidence["reference"] < bench.requests[0].evidence["value"]  # type: ignore[operator]


async def test_the_error_so_far_survives_a_checkpoint() -> None:
    samples = [sample(i, right=i % 10 != 0 if i < 1000 else i % 3 != 0, minute=0) for i in range(2000)]
    whole = await bench_of(samples, window_samples=10**6)
    memory, alerts = LogMemory({}), []
    for start in range(0, 2000, 90):
        bench = Bench(whole.spec, memory)
        bench.stage = Evaluate(whole.spec, memory, memory_blobs(), bench.metrics, save_samples=1)
        bench.offset = start
        await (await bench.open(start)).take(samples[start : start + 90])
        await save(bench.stage, memory)
        alerts += bench.alerts
    assert len(alerts) == 1
    assert alerts == whole.alerts


async def test_triggers_and_rubbish_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    bench = await Bench(spec_of()).open()
    with caplog.at_level(logging.WARNING):
        await bench.take([sample(i) for i in range(5)])
        await bench.take([b"{}"], key=b"trigger")
        assert caplog.messages == []
        await bench.take(
            [
                sample(5),
                b"rubbish",
                sample(6, label="owl"),
                sample(7),
                sample(8),
                sample(9),
            ]
        )
        assert bench.looks == []
        await bench.take([sample(10)])
    assert bench.looks == [(0, False)]
    assert bench.performance[0].variants[0].n == 10
    assert len(caplog.messages) == 2
    assert "offset 7" in caplog.messages[0]
    assert bench.metric("ml_samples_missed_total", reason="unusable") == 2


async def test_the_newest_mature_window_is_shown_as_metrics() -> None:
    bench = await bench_of([*[sample(i, label=0) for i in range(10)], sample(10, minute=300)])
    assert bench.metric("ml_performance", variant="champion", figure="accuracy") == 1.0
    recall = bench.metric("ml_performance", variant="champion", figure="recall")
    assert recall is not None
    assert recall != recall  # no positives: there is none
    assert bench.metric("ml_samples_evaluated_total") == 11


async def test_a_checkpoint_is_written_after_enough_samples_or_an_hour_of_the_log() -> None:
    memory = LogMemory({})
    bench = await Bench(spec_of(), memory).open()
    await bench.take([sample(0)], timestamp=DAWN)
    await bench.take([sample(1)], timestamp=DAWN + SAVE_LOG_MS - 1)
    await save(bench.stage, memory)
    assert memory.committed is None
    await bench.take([sample(2)], timestamp=DAWN + SAVE_LOG_MS)
    await save(bench.stage, memory)
    assert memory.committed is not None
    assert memory.committed.offsets == {"s.samples": 3}
    few = Evaluate(spec_of(), memory, memory_blobs(), Metrics(), save_samples=2)
    await few.open({SOURCE: 3})
    memory.committed = None
    await few.process(Batch(SOURCE, [Entry(i, encode(sample(i)), b"s") for i in (3, 4)]), Outbox())
    await save(few, memory)
    assert memory.committed is not None


async def _checkpointed() -> LogMemory:
    memory = LogMemory({})
    stage = Evaluate(spec_of(), memory, memory_blobs(), Metrics(), save_samples=1)
    await stage.open({SOURCE: 0})
    await stage.process(Batch(SOURCE, [Entry(i, encode(sample(i)), b"s") for i in range(7)]), Outbox())
    await save(stage, memory)
    return memory


async def test_a_checkpoint_is_where_the_fold_goes_on() -> None:
    memory = await _checkpointed()
    bench = await Bench(spec_of(), memory).open(7)
    assert memory.reads == [(SOURCE, 0, 0), (SOURCE, 7, 7)]
    bench.offset = 7
    await bench.take([sample(i) for i in range(7, 10)])
    assert [found.variants[0].n for found in bench.performance] == [10]


async def test_a_checkpoint_of_other_rules_or_another_log_or_a_broken_one_is_ignored() -> None:
    memory = await _checkpointed()
    whole = memory.committed
    assert whole is not None
    await Bench(spec_of(window_samples=20), memory).open(7)
    await Bench(spec_of(), memory).open(6)
    for changes in (
        {"format": 99},
        {"blob_base64": base64.b64encode(base64.b64decode(whole.blob_base64)[:-9]).decode()},
    ):
        memory.committed = msgspec.structs.replace(whole, **changes)  # type: ignore[arg-type]
        await Bench(spec_of(), memory).open(7)
    assert [start for _, start, _ in memory.reads] == [0, 0, 0, 0, 0]
