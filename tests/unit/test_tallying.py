"""What is tallied of variants and shadows: exactly the events that were predicted since the last commit."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.tallying import CELLS, FARTHEST
from ml.experiments.assignment import Runs
from schemas.experiments import ServedCount, ShadowCount
from schemas.streams import StreamSpec
from tests.scoring import (
    BINARY,
    CLASSES,
    HOME,
    Answers,
    Bench,
    Constant,
    Raises,
    compare,
    entities,
    places_of,
    record_of,
    tallied,
)
from tests.support import Entry, Model

NAMES = entities(40)
ALL_TO_B: Runs = ((1, 10_000),)
ANOMALY = StreamSpec(name="flights", features=("a", "b"), task="anomaly")


def records(first: int = 0) -> list[Entry]:
    return [record_of(first + i, i / 64, entity=name) for i, name in enumerate(NAMES)]


def cells_of(scores: list[float]) -> tuple[int, ...]:
    counts, _ = np.histogram(scores, bins=CELLS, range=(0, 1))
    return tuple(counts.tolist())


async def test_events_errors_calls_time_and_scores_of_each_variant_are_tallied() -> None:
    bench = Bench(BINARY, Model())
    compare(bench, b=Constant(0.72), bad=Raises(), gone=None)
    for first in (10, 60):
        predictions, _ = await bench.take(*records(first))
    [counts] = await tallied(bench)
    assert (counts.stream, counts.partition, counts.deployment_revision) == ("flights", HOME, 4)
    assert (counts.from_offset, counts.to_offset, counts.to_time_ms) == (10, 100, 5)
    places = places_of(bench, NAMES)
    own = [p.score for p in predictions if p.variant == "champion"]
    n = [2 * places.count(place) for place in range(4)]
    none = (0,) * CELLS
    assert counts.variants == (
        ServedCount(variant="champion", model_id="m1", n=n[0], calls=2, call_us=1_000, scores=cells_of(2 * own)),
        ServedCount(variant="b", model_id="b", n=n[1], calls=2, call_us=1_000, scores=cells_of([0.72] * n[1])),
        ServedCount(variant="bad", model_id="bad", n=n[2], errors=n[2], calls=2, call_us=1_000, scores=none),
        ServedCount(variant="gone", model_id="gone", n=n[3], errors=n[3], calls=0, call_us=0, scores=none),
    )
    assert await tallied(bench) == []


async def test_the_events_of_a_tally_are_those_that_were_predicted() -> None:
    class Picky(Model):
        def predict(self, matrix: Any) -> Any:
            return np.where(matrix[:, 0] < 0.25, np.nan, 0.5).astype(np.float32)

    bench = Bench(BINARY, Picky())
    compare(bench, b=Picky())
    predictions, letters = await bench.take(*records(), Entry(99, b"{", b"N1"))
    assert len(letters) == 17
    [counts] = await tallied(bench)
    assert [(v.n, v.errors) for v in counts.variants] == [
        (sum(p.variant == variant for p in predictions), 0) for variant in ("champion", "b")
    ]
    assert (counts.from_offset, counts.to_offset) == (16, 40)


@pytest.mark.parametrize(("max_call_ms", "slow"), [(0.4, 2), (0.5, 0), (None, 0)])
async def test_calls_that_take_longer_than_the_plan_allows_are_tallied(max_call_ms: float | None, slow: int) -> None:
    bench = Bench(BINARY, Model())
    compare(bench, b=Constant(0.72))
    deployment, experiment = bench.served.deployment, bench.served.experiment
    assert experiment is not None
    plan = msgspec.structs.replace(experiment.plan, max_call_ms=max_call_ms)
    experiment = msgspec.structs.replace(experiment, plan=plan)
    bench.served = replace(bench.served, deployment=msgspec.structs.replace(deployment, experiment=experiment))
    for first in (0, 40):
        await bench.take(*records(first))  # a call takes half a millisecond
    [counts] = await tallied(bench)
    assert [(v.calls, v.slow_calls) for v in counts.variants] == [(2, slow)] * 2


async def test_each_deployment_revision_has_a_tally_of_its_own() -> None:
    bench = Bench(BINARY, Model())
    await bench.take(*records())
    compare(bench, b=Model())
    await bench.take(*records(40))
    compare(bench, ALL_TO_B, b=Model())
    await bench.take(*records(80))
    of_b, of_all = await tallied(bench)
    assert [(t.deployment_revision, t.from_offset, t.to_offset) for t in (of_b, of_all)] == [(4, 40, 80), (5, 80, 120)]
    assert sum(v.n for v in of_b.variants) == 40
    assert [(v.variant, v.n) for v in of_all.variants] == [("b", 40)]


async def test_what_was_tallied_and_not_committed_is_forgotten_when_the_task_opens_again() -> None:
    bench = Bench(BINARY, Model())
    compare(bench, ALL_TO_B, b=Model())
    await bench.take(*records())
    await bench.score.open({})
    await bench.take(*records()[:7])
    [counts] = await tallied(bench)
    assert [v.n for v in counts.variants] == [7]


async def test_without_variants_and_shadows_nothing_is_written() -> None:
    bench = Bench(BINARY, Model())
    await bench.take(*records())
    assert await tallied(bench) == []


async def test_scores_at_the_ends_and_beyond_are_in_the_outermost_cells() -> None:
    class Wide(Model):
        def predict(self, matrix: Any) -> Any:
            return np.resize(np.array([-3.0, 0.0, 0.0499, 0.05, 1.0, 7.0]), len(matrix))

    bench = Bench(BINARY, Model())
    compare(bench, ALL_TO_B, b=Wide())
    await bench.take(*records()[:6])
    [counts] = await tallied(bench)
    assert counts.variants[0].scores == (3, 1, *[0] * 17, 2)


async def test_the_scores_of_an_anomaly_stream_are_not_tallied() -> None:
    bench = Bench(ANOMALY, Constant(12.0))
    compare(bench, b=Constant(1e30))
    await bench.take(*records())
    [counts] = await tallied(bench)
    assert {v.scores for v in counts.variants} == {()}


async def test_shadows_are_compared_with_what_was_served_where_both_have_a_score() -> None:
    bench = Bench(BINARY, Answers([0.9, 0.2, 0.2, 0.8]), s=Answers([0.9, 0.8, np.nan, 0.6]), gone=Raises())
    lineage = bench.served.shadows[0]
    lineage.version = msgspec.structs.replace(lineage.version, lineage="online")
    await bench.take(*records()[:4])
    [counts] = await tallied(bench)
    assert counts.variants == ()
    [shadow] = counts.shadows
    assert msgspec.structs.replace(shadow, distance=0.0) == ShadowCount(
        variant="online", model_id="s", n=3, disagreements=2, distance=0.0
    )
    assert shadow.distance == pytest.approx(0.6 + 0.2)


async def test_a_shadow_beside_variants_is_compared_with_the_variant_that_served() -> None:
    bench = Bench(BINARY, Constant(0.5), s=Constant(0.75))
    compare(bench, ALL_TO_B, b=Constant(0.25))
    await bench.take(*records())
    [counts] = await tallied(bench)
    assert counts.shadows == (ShadowCount(variant="s", model_id="s", n=40, disagreements=40, distance=20.0),)


async def test_of_several_classes_the_best_is_compared_and_its_score_tallied() -> None:
    bench = Bench(CLASSES, Constant([0.5, 0.25, 0.25]), s=Constant([0.0, 0.75, 0.25]))
    compare(bench, b=Constant([0.0, 1.0, 0.0]))
    await bench.take(*records())
    [counts] = await tallied(bench)
    ours, theirs = (places_of(bench, NAMES).count(place) for place in (0, 1))
    assert [v.scores for v in counts.variants] == [cells_of([0.5] * ours), cells_of([1.0] * theirs)]
    [shadow] = counts.shadows
    assert (shadow.n, shadow.disagreements, shadow.distance) == (40, ours, 0.25 * 40)


async def test_enormous_distances_stay_numbers() -> None:
    bench = Bench(ANOMALY, Constant(1e308, np.float64), s=Constant(-1e308, np.float64))
    await bench.take(*records())
    [counts] = await tallied(bench)
    assert counts.shadows[0].distance == pytest.approx(40 * FARTHEST)


async def test_a_shadow_that_has_a_new_version_is_tallied_apart() -> None:
    bench = Bench(BINARY, Constant(0.5), s=Constant(0.5))
    await bench.take(*records()[:3])
    shadow = bench.served.shadows[0]
    newer = type(shadow)(shadow.model, msgspec.structs.replace(shadow.version, model_id="s2", lineage="s"))
    deployment = msgspec.structs.replace(bench.served.deployment, revision=9)
    bench.served = replace(bench.served, shadows=(newer,), deployment=deployment)
    await bench.take(*records()[3:])
    assert [[(s.variant, s.model_id, s.n) for s in t.shadows] for t in await tallied(bench)] == [
        [("s", "s", 3)],
        [("s", "s2", 37)],
    ]
