"""The compare stage: which records count for which experiment, when it reports, and what a restart restores."""

import base64
import logging
import threading
from typing import Any

import msgspec
import pytest

from agents.compare.stage import SAVE_LOG_MS
from ml.experiments.monitor import Monitor
from schemas.experiments import ServedCount
from schemas.streams import JoinSpec
from stream.timestamps import SLACK_MS
from tests.comparing import (
    DAWN,
    MINUTE,
    SAMPLES,
    SPEC,
    VARIANTS,
    Bench,
    bench_of,
    counts_of,
    deployment_of,
    experiment_of,
    reshared_to,
    sample_in,
    shadow_of,
)

RUNNING = deployment_of(2, experiment_of())
ENDED = deployment_of(3)


async def test_a_report_comes_with_the_first_commit_and_then_after_a_hundred_mature_samples() -> None:
    running = deployment_of(2, experiment_of(min_samples=1_000))
    bench = await bench_of(running)
    for i in range(250):
        await bench.take(sample_in(i, running))
    said = [(report.number, report.samples, report.ripening) for report in bench.reports]
    assert said == [(0, 0, 1), (1, 109, 1), (2, 209, 1)]  # the newest sample ripens
    last = bench.reports[-1]
    assert (last.experiment_id, last.kind, last.deployment_revision, last.epoch) == ("x", "experiment", 2, 0)
    assert last.to_time_ms == DAWN + 209_000
    assert [(figures.variant, figures.model_id, figures.share) for figures in last.variants] == [
        ("champion", "m1", 0.5),
        ("b", "m2", 0.5),
    ]
    assert sum(figures.samples for figures in last.variants) == 209
    assert (last.plan, last.verdict) == (experiment_of(min_samples=1_000).plan, "too_early")
    assert [(contrast.variant, contrast.metric) for contrast in last.contrasts] == [("b", "accuracy")]


async def test_a_report_comes_after_a_thousand_events_without_any_label() -> None:
    bench = await bench_of(deployment_of(2, experiment_of(max_error_share=0.1)))
    for minute in range(25):
        part = ServedCount(variant="b", model_id="m2", n=50, errors=1, calls=2, call_us=3_000)
        await bench.take(counts_of(2, to_time_ms=DAWN + minute * MINUTE, champion=50, b=part))
    assert [report.number for report in bench.reports] == [0, 1, 2]
    champion, b = bench.reports[-1].variants
    assert (champion.events, b.events, b.errors, b.call_ms) == (1050, 1050, 21, 1.5)
    assert bench.reports[-1].to_time_ms == DAWN + 20 * MINUTE


async def test_what_belongs_to_no_experiment_or_another_one_is_passed_over() -> None:
    before, other = deployment_of(1), deployment_of(0, experiment_of("w"))
    bench = await bench_of(other, before, RUNNING)
    await bench.take(
        *[sample_in(i, deployment) for i, deployment in enumerate([before, other, RUNNING, before, RUNNING])],
        counts_of(1, champion=7),
        counts_of(0, champion=7, b=7),
        counts_of(2, champion=3, b=4),
        sample_in(5, RUNNING, variant="c"),
        sample_in(6, RUNNING, label="owl"),
    )
    [report] = bench.reports
    assert report.samples + report.ripening == 2
    assert [figures.events for figures in report.variants] == [3, 4]


async def test_triggers_and_rubbish_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    bench = await bench_of(RUNNING)
    bench.write([b"{}"], key=b"trigger")
    odd = ServedCount(variant="b", model_id="m2", n=9, scores=(1, 2))
    with caplog.at_level(logging.WARNING):
        await bench.take(sample_in(0, RUNNING), b"rubbish", counts_of(2, b=odd), counts_of(2, b=2))
    [report] = bench.reports
    assert report.samples + report.ripening == 1
    assert [figures.events for figures in report.variants] == [0, 2]
    assert [record.message for record in caplog.records if "2 cells of scores" in record.message]


async def test_a_sample_of_a_multiclass_stream_without_a_score_for_each_class_is_passed_over() -> None:
    spec = msgspec.structs.replace(SPEC, task="multiclass", classes=("0", "1"))
    bench = await bench_of(RUNNING, spec=spec)
    await bench.take(
        *[sample_in(i, RUNNING, label="1", scores=scores) for i, scores in enumerate(([0.4, 0.6], [0.4], None))]
    )
    assert bench.reports[0].samples + bench.reports[0].ripening == 1


async def test_records_of_a_deployment_that_is_not_known_yet_wait_for_it() -> None:
    bench = await bench_of(deployment_of(1))
    waited = bench.waited
    bench.coming = [RUNNING]
    await bench.take(*[sample_in(i, RUNNING) for i in range(10)])
    assert bench.waited == waited + 1
    assert bench.reports[0].samples + bench.reports[0].ripening == 10
    bench.deploy(ENDED)
    bench.coming = [deployment_of(4, experiment_of("y"))]
    await bench.take(counts_of(4, champion=5, b=6))
    assert [(report.experiment_id, report.number) for report in bench.reports] == [("x", 0), ("y", 0)]
    assert [figures.events for figures in bench.reports[-1].variants] == [5, 6]


async def test_nothing_waits_for_a_revision_that_can_come_no_more() -> None:
    bench = await bench_of(RUNNING)
    waited = bench.waited
    await bench.take(sample_in(0, deployment_of(1)), counts_of(1, b=1))
    assert bench.waited == waited


async def test_a_change_of_the_shares_is_a_new_epoch_and_reported() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(40)], counts_of(2, champion=10, b=10))
    second = deployment_of(3, reshared_to(experiment_of(), 0.8))
    bench.deploy(second)
    await bench.take(*[sample_in(i, second) for i in range(40, 80)], counts_of(3, champion=10, b=10))
    first, report = bench.reports
    assert (first.epoch, report.epoch, report.deployment_revision) == (0, 1, 3)
    assert [round(figures.share, 4) for figures in report.variants] == [0.2, 0.8]
    assert report.samples + report.ripening == 80  # each in the variant that its epoch gives it
    assert [figures.events for figures in report.variants] == [20, 20]


async def test_another_model_of_a_variant_is_named_from_then_on() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(sample_in(0, RUNNING))
    bench.deploy(deployment_of(3, experiment_of(challengers={"b": "m3"})))
    await bench.take(*[sample_in(i, RUNNING) for i in range(1, 120)])
    assert [report.variants[1].model_id for report in bench.reports] == ["m2", "m3"]
    assert bench.reports[-1].number == 1


async def test_when_an_experiment_ends_there_is_a_last_report_if_it_has_news() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(60)])
    await bench.take(*[sample_in(i, RUNNING) for i in range(60, 90)])
    assert [report.samples for report in bench.reports] == [59]
    bench.deploy(ENDED)
    await bench.take(sample_in(90, RUNNING))
    assert [(report.number, report.samples) for report in bench.reports] == [(0, 59), (1, 89)]
    await bench.take(*[sample_in(i, RUNNING) for i in range(91, 300)])
    assert len(bench.reports) == 2

    quiet = await bench_of(RUNNING)
    await quiet.take(sample_in(0, RUNNING))
    quiet.deploy(ENDED)
    await quiet.take(sample_in(1, ENDED))
    assert [report.number for report in quiet.reports] == [0]


async def test_one_wrong_clock_makes_no_more_than_the_samples_of_a_day_late() -> None:
    bench = await bench_of(RUNNING)
    wrong = sample_in(0, RUNNING, event_time_ms=DAWN * 1_000, label_time_ms=DAWN * 1_000)
    await bench.take(wrong, counts_of(2, b=1, to_time_ms=DAWN * 1_000), timestamp=DAWN)
    assert bench.reports[-1].to_time_ms == DAWN + SLACK_MS
    tomorrow = (SLACK_MS + 20 * MINUTE) // 1_000
    await bench.take(*[sample_in(tomorrow + i, RUNNING) for i in range(120)], timestamp=DAWN + SLACK_MS)
    assert bench.reports[-1].samples == 120  # the wrong one, too
    assert bench.reports[-1].to_time_ms == DAWN + (tomorrow + 119) * 1_000


async def test_a_saved_state_and_the_first_look_at_it_do_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await bench_of(RUNNING)
    await bench.take(sample_in(0, RUNNING))
    threads: dict[str, int] = {}
    for name in ("load", "look"):
        asked = getattr(Monitor, name)

        def noted(self: Monitor, *given: bytes, name: str = name, asked: Any = asked) -> Any:
            threads[name] = threading.get_ident()
            return asked(self, *given)

        monkeypatch.setattr(Monitor, name, noted)
    await bench.open()
    assert threads.keys() == {"load", "look"}
    assert threading.get_ident() not in threads.values()


async def test_a_new_experiment_begins_at_nothing() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(60)])
    other = deployment_of(3, experiment_of("y", {"c": "m3"}))
    bench.deploy(other)
    await bench.take(*[sample_in(i, other) for i in range(60, 70)])
    last = bench.reports[-1]
    assert (last.experiment_id, last.number, last.samples + last.ripening) == ("y", 0, 10)
    assert [figures.variant for figures in last.variants] == ["champion", "c"]


async def test_a_checkpoint_is_written_when_an_experiment_begins_and_when_something_is_said() -> None:
    bench = await bench_of(deployment_of(1))
    await bench.take(sample_in(0, deployment_of(1)))
    assert bench.checkpoints == 1  # that nothing is followed here
    await bench.take(sample_in(1, deployment_of(1)))
    assert bench.checkpoints == 1
    bench.deploy(RUNNING)
    await bench.take(sample_in(2, RUNNING))
    assert bench.checkpoints == 2
    await bench.take(sample_in(3, RUNNING))
    assert bench.checkpoints == 2
    await bench.take(*[sample_in(i, RUNNING) for i in range(4, 120)])
    assert len(bench.reports) == bench.checkpoints - 1 == 2


async def test_after_a_restart_only_what_came_after_the_state_was_saved_is_read_again() -> None:
    bench = await bench_of(deployment_of(1))
    await bench.take(*[sample_in(i, deployment_of(1)) for i in range(10)])
    bench.deploy(RUNNING)
    await bench.take(sample_in(10, RUNNING))
    await bench.take(*[sample_in(i, RUNNING) for i in range(11, 120)], counts_of(2, b=5))
    assert bench.memory.committed is not None
    assert bench.memory.committed.offsets == {"s.samples": 239, "s.variants": 1}
    await bench.open()
    assert bench.reads(SAMPLES) == [(21, 239)]
    assert bench.reads(VARIANTS) == [(0, 1)]
    bench.save_records = 1
    await (await bench.open()).take(sample_in(120, RUNNING))
    await bench.open()
    assert bench.reads(SAMPLES) == bench.reads(VARIANTS) == []
    await bench.take(*[sample_in(i, RUNNING) for i in range(121, 220)])
    assert [report.number for report in bench.reports] == [0, 1, 2]
    assert (bench.reports[-1].samples, bench.reports[-1].variants[1].events) == (209, 5)


async def test_the_state_is_saved_after_many_records_or_an_hour_of_the_log() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(sample_in(0, RUNNING), timestamp=DAWN)
    for i, passed_ms in ((1, 0), (2, SAVE_LOG_MS - 1)):
        await bench.take(sample_in(i, RUNNING), timestamp=DAWN + passed_ms)
        assert bench.checkpoints == 1
    await bench.take(counts_of(2, b=1), timestamp=DAWN + SAVE_LOG_MS)
    assert bench.checkpoints == 2
    await bench.open()
    assert bench.reads(SAMPLES) == bench.reads(VARIANTS) == []


async def test_without_a_checkpoint_a_running_experiment_is_read_from_the_beginning() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(120)], counts_of(2, b=5))
    bench.memory.committed = None
    await bench.open()
    assert bench.reads(SAMPLES) == [(0, 239)]
    assert bench.reads(VARIANTS) == [(0, 1)]
    await bench.take(sample_in(120, RUNNING))
    assert (bench.reports[-1].number, bench.reports[-1].samples) == (0, 120)
    idle = await bench_of(deployment_of(1))
    await idle.take(*[sample_in(i, deployment_of(1)) for i in range(9)])
    idle.memory.committed = None
    await idle.open()
    assert idle.reads(SAMPLES) == idle.reads(VARIANTS) == []


@pytest.mark.parametrize("spoilt", ["blob", "store", "rules"])
async def test_a_state_that_cannot_be_used_is_added_up_anew_and_nothing_is_told_twice(spoilt: str) -> None:
    bench = Bench(RUNNING)
    bench.save_records = 1
    await bench.open()
    for hundred in range(3):
        await bench.take(*[sample_in(i, RUNNING) for i in range(100 * hundred, 100 * hundred + 100)])
    whole = bench.memory.committed
    assert whole is not None
    if spoilt == "blob":
        blob = base64.b64encode(b"rubbish").decode()
        bench.memory.committed = msgspec.structs.replace(whole, blob_base64=blob, blob_sha256="")
    elif spoilt == "store":
        bench.memory.committed = msgspec.structs.replace(whole, blob_sha256="0" * 64)
    spec = (
        msgspec.structs.replace(SPEC, join=JoinSpec(window_minutes=10, lateness_minutes=1))
        if spoilt == "rules"
        else SPEC
    )
    await bench.open(spec)
    assert bench.reads(SAMPLES) == [(0, 599)]
    assert len(bench.reports) == 3
    await bench.take(*[sample_in(i, RUNNING) for i in range(300, 500)])
    assert [report.number for report in bench.reports] == [0, 1, 2, 3]
    last = bench.reports[-1]
    assert last.samples + last.ripening == 500


async def test_a_checkpoint_of_another_format_is_ignored() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(sample_in(0, RUNNING))
    assert bench.memory.committed is not None
    bench.memory.committed = msgspec.structs.replace(bench.memory.committed, format=99)
    await (await bench.open()).take(sample_in(1, RUNNING))
    assert [report.number for report in bench.reports] == [0, 0]


async def test_an_experiment_that_ended_while_nobody_looked_still_has_its_last_report() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(60)])
    await bench.take(*[sample_in(i, RUNNING) for i in range(60, 90)])
    other = deployment_of(4, experiment_of("y"))
    bench.deploy(ENDED, other)
    await bench.open()
    await bench.take(sample_in(91, other))
    said = [(report.experiment_id, report.number, report.samples) for report in bench.reports]
    assert said == [("x", 0, 59), ("x", 1, 89), ("y", 0, 0)]
    assert bench.reports[-1].ripening == 1


async def test_a_restart_is_no_reason_to_look() -> None:
    running = deployment_of(2, experiment_of(min_samples=1_000))
    bench = await bench_of(running)
    for start, stop in ((0, 9), (9, 105), (105, 109), (109, 110)):
        await bench.open()
        await bench.take(*[sample_in(i, running) for i in range(start, stop)])
    assert [report.samples for report in bench.reports] == [8, 109]


async def test_an_epoch_that_began_while_nobody_looked_is_reported() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(10)])
    second = deployment_of(3, reshared_to(experiment_of(), 0.8))
    bench.deploy(second)
    await bench.open()
    await bench.take(sample_in(10, second))
    assert [(report.number, report.epoch) for report in bench.reports] == [(0, 0), (1, 1)]


async def test_samples_that_are_not_counted_are_counted_as_missed() -> None:
    bench = await bench_of(RUNNING)
    await bench.take(*[sample_in(i, RUNNING) for i in range(10)], sample_in(10, RUNNING, variant="champion"))
    await bench.take(*[sample_in(i, RUNNING, variant="b") for i in range(11, 31)])
    misplaced = bench.metric("ml_experiment_samples_missed_total", reason="misplaced")
    assert misplaced is not None
    assert 3 <= misplaced <= 20
    await bench.open()
    assert bench.metric("ml_experiment_samples_missed_total", reason="misplaced") == misplaced


async def test_the_newest_report_is_shown_as_metrics_until_the_experiment_ends() -> None:
    bench = await bench_of(RUNNING)
    part = ServedCount(variant="b", model_id="m2", n=200, errors=2)
    shadows = [shadow_of(100, disagreements=25)]
    bench.deploy(deployment_of(3, experiment_of(), shadows=("m9",)))
    await bench.take(*[sample_in(i, RUNNING) for i in range(150)], counts_of(3, champion=100, b=part, shadows=shadows))
    labels = {"experiment": "x", "variant": "b"}
    for _ in range(2):
        assert bench.metric("ml_experiment_active_total") == 1
        assert bench.metric("ml_experiment_traffic", **labels) == 0.5
        assert bench.metric("ml_experiment_metric", metric="accuracy", **labels) == 1.0
        assert bench.metric("ml_experiment_metric", metric="accuracy_difference", **labels) == 0.0
        assert bench.metric("ml_experiment_metric", metric="errors", **labels) == 2
        assert bench.metric("ml_shadow_disagreement_ratio", variant="nine") == 0.25
        psi = bench.metric("ml_experiment_metric", metric="score_psi", **labels)
        assert psi is not None
        assert psi != psi  # nothing is known of scores
        await bench.stage.close()
        assert bench.metric("ml_experiment_active_total") is None
        assert bench.metric("ml_experiment_traffic", **labels) is None
        assert bench.metric("ml_shadow_disagreement_ratio", variant="nine") is None
        await bench.open()  # shows what is known at once
    bench.deploy(deployment_of(4))
    await bench.take(sample_in(150, RUNNING))
    assert bench.metric("ml_experiment_active_total") == 0
    assert bench.metric("ml_experiment_traffic", **labels) is None
    assert bench.metric("ml_experiment_metric", metric="errors", **labels) is None


async def test_a_log_far_behind_reads_the_epochs_that_it_names() -> None:
    third = reshared_to(reshared_to(experiment_of(), 0.8), 0.9)
    history = [RUNNING, deployment_of(3, reshared_to(experiment_of(), 0.8)), deployment_of(4, third)]
    bench = await bench_of(*history)
    await bench.take(*[sample_in(i, deployment) for i, deployment in enumerate(history * 20)])
    assert bench.reports[0].samples + bench.reports[0].ripening == 60
    assert bench.metric("ml_experiment_samples_missed_total", reason="misplaced") is None
