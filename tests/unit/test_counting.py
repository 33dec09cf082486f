"""Counting adds up: however events are cut into batches, commits and partials, the sum is what numpy counts."""

import asyncio
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.baselines import Yardstick
from agents.counting import HELD_ROWS, PARTIALS_AT_ONCE, Counting, span_ms
from agents.serving import Served
from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter
from schemas.drift import PartialHistogram
from schemas.streams import DriftSpec, StreamSpec
from schemas.wire import decode
from stream.batches import Outbox
from stream.intake import Intake
from stream.metric_values import Metrics
from tests.support import Entry, Model, deployment_of, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
BIRDS = StreamSpec(name="birds", features=("a", "b"), task="multiclass", classes=("owl", "tit", "jay"))
MINUTE_MS = 60_000
Matrix = NDArray[np.float32]


def draw(rows: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Return features, of which some are missing and b has few values, and scores."""
    random = np.random.default_rng(seed)
    matrix = np.stack([random.normal(size=rows), random.integers(0, 4, rows)], axis=1).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix, random.random(rows).astype(np.float32)


def baseline_of(seed: int = 7) -> Baseline:
    matrix, scores = draw(1000, seed)
    return make_baseline(matrix, SPEC.features, {"score": scores})


def served_by(model_id: str = "m1", baseline: Baseline | None = None, sha256: str = "1" * 64) -> Served:
    yardstick = None if baseline is None else Yardstick(sha256, baseline, Counter(baseline))
    return Served(Model(), version_of(SPEC, model_id), deployment_of(SPEC, model_id, 1), (), yardstick)


class Bench:
    """Counting of partition 3. Event number i has offset 2 i, as if each had a transaction of its own."""

    def __init__(self, spec: StreamSpec = SPEC, **drift: Any) -> None:
        self.metrics = Metrics()
        self.spec = spec
        self.counting = Counting(spec, DriftSpec(**({"window_events": 100} | drift)), 3, self.metrics)

    def take(
        self, matrix: Matrix, scores: Matrix, served: Served, first: int = 0, times_ms: Sequence[int] | None = None
    ) -> None:
        times = range(first, first + len(matrix)) if times_ms is None else times_ms
        asyncio.run(self.counting.take(self.intake(matrix, first, times), scores, served))

    def intake(self, matrix: Matrix, first: int, times_ms: Iterable[int]) -> Intake:
        return Intake(
            records=[Entry(2 * (first + i)) for i in range(len(matrix))],
            events=[SimpleNamespace(event_time_ms=time) for time in times_ms],  # type: ignore[misc]
            rows=[()] * len(matrix),
            matrix=matrix,
            refused=(),
        )

    def save(self) -> list[PartialHistogram]:
        outbox = Outbox()
        self.counting.save(outbox)
        assert all((place.topic, place.partition) == (f"{self.spec.name}.histograms", 0) for place in outbox.targets)
        return [decode(PartialHistogram, value) for written in outbox.targets.values() for _, value in written]


def expected(values: Matrix, edges: Sequence[float]) -> list[int]:
    """Return what numpy counts, with an edge beyond either end."""
    known = values[~np.isnan(values)].astype(np.float64)
    return [int(count) for count in np.histogram(known, [-np.inf, *edges, np.inf])[0]]


def dense(partials: Iterable[PartialHistogram], column: int, cells: int) -> list[int]:
    total = [0] * cells
    for partial in partials:
        counted = partial.columns[column]
        for cell, count in zip(counted.cells or range(len(counted.counts)), counted.counts, strict=True):
            total[cell] += count
    return total


@pytest.mark.parametrize("window", [1, 7, 100, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_however_events_are_cut_the_partials_add_up_to_one_histogram(seed: int, window: int) -> None:
    random = np.random.default_rng(seed)
    rows = 600 if window == 1 else 2 * HELD_ROWS + 77
    matrix, scores = draw(rows, seed)
    baseline = baseline_of()
    bench, served = Bench(window_events=window), served_by(baseline=baseline)
    partials, start = [], 0
    while start < rows:
        stop = min(rows, start + int(random.integers(1, rows // 3)))
        bench.take(matrix[start:stop], scores[start:stop], served, start)
        partials += bench.save() if random.random() < 0.5 else []
        start = stop
    partials += bench.save()
    columns = [*matrix.T, scores]
    for i, (values, column) in enumerate(zip(columns, baseline.columns, strict=True)):
        assert dense(partials, i, len(column.edges) + 1) == expected(values, column.edges)
        assert sum(partial.columns[i].missing for partial in partials) == np.isnan(values).sum()
        z = (values[~np.isnan(values)].astype(np.float64) - column.mean) / column.deviation
        for power in range(4):
            assert sum(p.columns[i].sums[power] for p in partials) == pytest.approx((z ** (power + 1)).sum())
    assert sum(partial.n for partial in partials) == rows
    assert max(partial.n for partial in partials) <= window
    assert [p.from_offset for p in partials[1:]] == [p.to_offset + 1 for p in partials[:-1]]
    assert (partials[0].from_offset, partials[-1].to_offset) == (0, 2 * rows - 1)
    counted = bench.metrics.registry.get_sample_value("ml_drift_events_counted_total", {"stream": "flights"})
    assert counted == rows


def test_a_partial_says_where_its_events_stand_and_when_they_were() -> None:
    matrix, scores = draw(5)
    bench = Bench()
    bench.take(matrix[:3], scores[:3], served_by(baseline=baseline_of()), 10, times_ms=[50, 20, 40])
    bench.take(matrix[3:], scores[3:], served_by(baseline=baseline_of()), 13, times_ms=[60, 30])
    [partial] = bench.save()
    assert (partial.stream, partial.baseline, partial.model_id) == ("flights", "1" * 64, "m1")
    assert (partial.partition, partial.from_offset, partial.to_offset) == (3, 20, 29)
    assert (partial.n, partial.from_time_ms, partial.to_time_ms) == (5, 20, 60)


def test_cells_without_values_are_left_out() -> None:
    bench, baseline = Bench(), baseline_of()
    bench.take(np.array([[0.0, np.nan]], np.float32), np.array([0.5], np.float32), served_by(baseline=baseline))
    [partial] = bench.save()
    assert [(len(column.cells), column.counts, column.missing) for column in partial.columns] == [
        (1, (1,), 0),
        (0, (), 1),
        (1, (1,), 0),
    ]


def test_another_baseline_or_another_model_begins_another_partial() -> None:
    matrix, scores = draw(4)
    bench, baseline = Bench(), baseline_of()
    answers = [
        served_by("m1", baseline),
        served_by("m1", baseline_of(8), "2" * 64),
        served_by("m2", baseline_of(8), "2" * 64),
        served_by("m1", baseline),
    ]
    for i, served in enumerate(answers):
        bench.take(matrix[i : i + 1], scores[i : i + 1], served, i)
    partials = bench.save()
    assert [(p.model_id, p.baseline[0], p.n, p.from_offset) for p in partials] == [
        ("m1", "1", 1, 0),
        ("m1", "2", 1, 2),
        ("m2", "2", 1, 4),
        ("m1", "1", 1, 6),
    ]


def test_without_a_baseline_nothing_is_counted_and_nothing_is_written() -> None:
    matrix, scores = draw(6)
    bench = Bench()
    bench.take(matrix[:2], scores[:2], served_by(baseline=baseline_of()))
    bench.take(matrix[2:4], scores[2:4], served_by(), 2)
    assert [(p.n, p.to_offset) for p in bench.save()] == [(2, 3)]
    bench.take(matrix[4:], scores[4:], served_by(), 4)
    assert bench.save() == []


def test_what_was_forgotten_is_not_written() -> None:
    matrix, scores = draw(250)
    bench, served = Bench(), served_by(baseline=baseline_of())
    bench.take(matrix, scores, served)
    bench.counting.forget()
    assert bench.save() == []
    bench.take(matrix[:10], scores[:10], served)
    assert [p.n for p in bench.save()] == [10]


def test_a_partial_is_of_one_span_and_spans_that_take_turns_do_not_cut_it() -> None:
    matrix, scores = draw(40)
    bench, served = Bench(window_minutes=1, window_events=15), served_by(baseline=baseline_of())
    times = [MINUTE_MS - 1 if i % 2 else MINUTE_MS for i in range(40)]
    bench.take(matrix, scores, served, times_ms=times)
    partials = bench.save()
    assert [(p.from_time_ms // MINUTE_MS, p.to_time_ms // MINUTE_MS, p.n) for p in partials] == [
        (0, 0, 15),
        (0, 0, 5),
        (1, 1, 15),
        (1, 1, 5),
    ]
    assert [(p.from_offset, p.to_offset) for p in partials] == [(2, 59), (62, 79), (0, 57), (60, 77)]
    baseline = baseline_of()
    for i, values in enumerate([*matrix[1::2].T, scores[1::2]]):
        edges = baseline.columns[i].edges
        assert dense(partials[:2], i, len(edges) + 1) == expected(values, edges)


async def test_many_small_partials_leave_the_loop_its_turn_and_take_little_memory() -> None:
    rows = 1000
    matrix, scores = draw(rows)
    bench, served = Bench(window_minutes=1), served_by(baseline=baseline_of())
    intake = bench.intake(matrix, 0, range(0, rows * MINUTE_MS, MINUTE_MS))  # a partial of every event
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    tracemalloc.start()
    await bench.counting.take(intake, scores, served)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    beside.cancel()
    assert turns >= rows // PARTIALS_AT_ONCE - 2
    assert kept < rows * 2000  # a partial with a number for every cell has more than ten thousand bytes
    assert [p.n for p in bench.save()] == [1] * rows


def test_the_event_at_the_end_of_a_span_belongs_to_the_next() -> None:
    matrix, scores = draw(3)
    bench = Bench(window_minutes=1)
    bench.take(matrix, scores, served_by(baseline=baseline_of()), times_ms=[0, MINUTE_MS - 1, MINUTE_MS])
    assert [(p.n, p.to_time_ms) for p in bench.save()] == [(2, MINUTE_MS - 1), (1, MINUTE_MS)]


@pytest.mark.parametrize(
    ("drift", "expected_ms"),
    [
        (DriftSpec(), 0),
        (DriftSpec(sliding=True, check_seconds=30), 0),
        (DriftSpec(window_minutes=5, check_seconds=30), 5 * MINUTE_MS),
        (DriftSpec(window_minutes=5, check_seconds=30, sliding=True), 30_000),
        (DriftSpec(window_minutes=5, check_seconds=3600, sliding=True), 5 * MINUTE_MS),
    ],
)
def test_spans_are_as_long_as_windows_or_as_the_steps_of_sliding_ones(drift: DriftSpec, expected_ms: int) -> None:
    assert span_ms(drift) == expected_ms


def test_of_several_classes_the_best_score_and_the_best_class_are_counted() -> None:
    matrix, _ = draw(300)
    random = np.random.default_rng(1)
    scores = random.dirichlet([1, 1, 1], 300).astype(np.float32)
    best, which = scores.max(axis=1), scores.argmax(axis=1).astype(np.float32)
    baseline = make_baseline(matrix, BIRDS.features, {"score": best, "class": which})
    served = replace(served_by(baseline=baseline), version=version_of(BIRDS, "m1"))
    bench = Bench(BIRDS, window_events=1000)
    bench.take(matrix, scores, served)
    [partial] = bench.save()
    assert len(partial.columns) == 4
    for i, values in ((2, best), (3, which)):
        edges = baseline.columns[i].edges
        assert dense([partial], i, len(edges) + 1) == expected(values, edges)


def test_of_events_that_another_variant_served_the_features_count_and_no_prediction() -> None:
    matrix, scores = draw(300)
    champions = np.random.default_rng(3).random(300) < 0.6
    bench, baseline = Bench(window_events=1000), baseline_of()
    intake = bench.intake(matrix, 0, range(300))
    asyncio.run(bench.counting.take(intake, scores, served_by(baseline=baseline), champions))
    [partial] = bench.save()
    assert partial.n == 300
    for i, values in enumerate([*matrix.T, scores[champions]]):
        edges = baseline.columns[i].edges
        assert dense([partial], i, len(edges) + 1) == expected(values, edges)
    assert partial.columns[2].missing == 300 - champions.sum()
