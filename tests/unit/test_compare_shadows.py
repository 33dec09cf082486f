"""How far shadows agree with what is served: reports without an experiment, and when totals begin anew."""

from agents.compare.history import History
from schemas.events import Deployment
from stream.views import LogView
from tests.comparing import (
    DAWN,
    VARIANTS,
    Bench,
    bench_of,
    counts_of,
    deployment_of,
    experiment_of,
    sample_in,
    shadow_of,
)

SHADOWED = deployment_of(1, shadows=("m9",))


async def test_shadows_are_reported_every_thousand_events() -> None:
    bench = await bench_of(SHADOWED)
    for _ in range(25):
        await bench.take(counts_of(1, [shadow_of(100, disagreements=10)]))
    assert [report.number for report in bench.reports] == [0, 1]
    report = bench.reports[-1]
    assert (report.experiment_id, report.kind, report.plan, report.verdict) == ("", "", None, "none")
    assert (report.deployment_revision, report.to_time_ms) == (1, DAWN)
    [figures] = report.shadows
    assert (figures.variant, figures.model_id, figures.n) == ("nine", "m9", 2_000)
    assert (figures.disagreement, figures.mean_distance) == (0.1, 0.25)
    assert bench.metric("ml_shadow_disagreement_ratio", variant="nine") == 0.1
    assert bench.metric("ml_experiment_active_total") == 0


async def test_another_champion_or_another_version_of_the_shadow_begins_anew() -> None:
    bench = await bench_of(SHADOWED)
    await bench.take(counts_of(1, [shadow_of(900)]))
    bench.deploy(deployment_of(2, champion="m2", shadows=("m9",)))
    await bench.take(counts_of(2, [shadow_of(900)]), counts_of(1, [shadow_of(900)]))
    assert bench.reports == []
    await bench.take(counts_of(2, [shadow_of(200)]))
    assert [report.shadows[0].n for report in bench.reports] == [1_100]
    bench.deploy(deployment_of(3, champion="m2", shadows=("m10", "m8")))
    await bench.take(counts_of(3, [shadow_of(900, model_id="m10"), shadow_of(1_000, 500, "m8", "eight")]))
    eight, ten = bench.reports[-1].shadows
    assert (eight.variant, eight.n, ten.model_id, ten.n) == ("eight", 1_000, "m10", 900)


async def test_a_shadow_that_was_away_begins_anew() -> None:
    bench = await bench_of(SHADOWED)
    await bench.take(counts_of(1, [shadow_of(900)]))
    bench.deploy(deployment_of(2), deployment_of(3, shadows=("m9",)))
    await bench.take(counts_of(1, [shadow_of(900)]), counts_of(3, [shadow_of(1_000)]))
    assert [report.shadows[0].n for report in bench.reports] == [1_000]


async def test_totals_of_shadows_outlive_a_restart_and_numbers_go_on() -> None:
    bench = Bench(SHADOWED)
    bench.save_records = 3
    await bench.open()
    for _ in range(35):
        await bench.take(counts_of(1, [shadow_of(100, disagreements=1)]))
        await bench.open()
    assert len(bench.reads(VARIANTS)) <= 1
    assert [(report.number, report.shadows[0].n) for report in bench.reports] == [(0, 1_000), (1, 2_000), (2, 3_000)]


async def test_without_a_checkpoint_shadows_are_counted_from_the_beginning_of_the_log() -> None:
    bench = await bench_of(SHADOWED)
    await bench.take(*[counts_of(1, [shadow_of(100)]) for _ in range(9)])
    bench.memory.committed = None
    await bench.open()
    await bench.take(counts_of(1, [shadow_of(100)]))
    assert [report.shadows[0].n for report in bench.reports] == [1_000]


async def test_during_an_experiment_its_reports_tell_of_shadows_too() -> None:
    bench = await bench_of(SHADOWED)
    await bench.take(counts_of(1, [shadow_of(500)]))
    running = deployment_of(2, experiment_of(), shadows=("m9",))
    bench.deploy(running)
    await bench.take(sample_in(0, running), counts_of(2, [shadow_of(700)], champion=400, b=300))
    await bench.take(counts_of(2, [shadow_of(900)], champion=600, b=500))
    assert [report.experiment_id for report in bench.reports] == ["x", "x"]
    assert [report.shadows[0].n for report in bench.reports] == [1_200, 2_100]
    bench.deploy(deployment_of(3, shadows=("m9",)))
    await bench.take(counts_of(3, [shadow_of(800)]))
    assert [(report.experiment_id, report.number) for report in bench.reports[2:]] == []
    await bench.take(counts_of(3, [shadow_of(100)]))
    assert [(report.experiment_id, report.number) for report in bench.reports[2:]] == [("", 0)]


def _history(*deployments: Deployment) -> History:
    view: LogView[Deployment] = LogView("s.deployments", Deployment)
    view.events.extend(deployments)
    history = History(view)
    assert history.refresh()
    return history


def test_a_shadow_counts_since_it_has_stood_beside_the_champion_without_a_break() -> None:
    history = _history(
        deployment_of(1, shadows=("a",)),
        deployment_of(2, champion="m2", shadows=("a", "b")),
        deployment_of(3, champion="m2", shadows=("a", "c")),
        deployment_of(5, champion="m2", shadows=("c", "a", "b")),
    )
    assert history.shadows() == {"a": 2, "b": 5, "c": 3}
    assert _history(deployment_of(1)).shadows() == {}


def test_an_epoch_that_no_record_tells_of_has_the_newest_table() -> None:
    first = experiment_of()
    last = experiment_of(share=0.2)
    view_of_last = type(last)(**{name: getattr(last, name) for name in last.__struct_fields__} | {"epoch": 2})
    tables = _history(deployment_of(1, first), deployment_of(4, view_of_last)).tables("x")
    assert [int(table.sum()) for table in tables] == [5_000, 2_000, 2_000]
