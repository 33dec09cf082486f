"""What is counted of a stream, on either broker: the committed partials add up to what numpy counts of its events."""

import asyncio
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.baselines import baseline_of_rows
from app.baselines import record_baseline
from app.registry import artifact_store, model_opener
from ml.drift.baseline import Baseline
from schemas.drift import DriftReport, PartialHistogram
from schemas.events import ModelVersion, Prediction
from schemas.wire import decode
from stream import metrics as m
from tests.conftest import Broker
from tests.kafka.server import KafkaServer, RunningKafka
from tests.workers import PARTITIONS, PATIENCE_S, Deployment, Sent, draw, events, eventually, process, train
from topics import StreamTopics

EVENTS = 2_000


@pytest.fixture
def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    table = f"[streams.{unique}.drift]\nwindow_events = 300\n"
    return Deployment(broker, unique, tmp_path, {"ML_COMMIT_INTERVAL_MS": "50"}, table, **{unique: []})


async def test_the_committed_partials_add_up_to_one_histogram_of_the_events_and_are_judged(
    deployment: Deployment, unique: str
) -> None:
    topics, values = StreamTopics(unique), draw(EVENTS)
    version = (await deployment.prepare(**{unique: train(1)}))[unique]
    sent = list(events(values))
    async with deployment.worker() as running:
        await deployment.promote(version)
        await running.ready()
        await deployment.send(unique, sent[:50])  # is scored before there is a baseline, and not counted
        await deployment.records(topics.predictions, 50)
        baseline = await give_baseline(deployment, version)
        (stages,) = running.worker._streams
        await eventually(lambda: stages.serving.current is not None and stages.serving.current.yardstick is not None)
        await deployment.send(unique, [*sent[50:1000], Sent(0, b"N1", b"{"), *sent[1000:]])
        async with asyncio.timeout(PATIENCE_S):
            partials = await counted(deployment, topics.histograms, EVENTS - 50)
        predictions = [decode(Prediction, r.value) for r in await deployment.records(topics.predictions, EVENTS)]
        reports = await judged(deployment, topics.drift)
    _add_up(baseline, partials, values, [p for p in predictions if int(p.event_id[1:]) >= 50])
    assert max(partial.n for partial in partials) <= 300
    _tell_where_the_events_are(partials, predictions)
    assert {(report.model_id, report.baseline) for report in reports} == {(version.model_id, partials[0].baseline)}
    assert all(300 <= report.n < 600 for report in reports)


async def test_after_a_kill_the_partials_of_both_workers_add_up_to_the_events_and_each_is_counted_once(
    kafka: KafkaServer | RunningKafka, unique: str, tmp_path: Path
) -> None:
    # A Kafka that is not ours may refuse the short session time-out that ours allows.
    session_ms = "1500" if isinstance(kafka, KafkaServer) else "6000"
    environ = {"ML_COMMIT_INTERVAL_MS": "50", "ML_KAFKA_SESSION_TIMEOUT_MS": session_ms}
    table = f"[streams.{unique}.drift]\nwindow_events = 300\n"
    deployment = Deployment(Broker("kafka", kafka.bootstrap), unique, tmp_path, environ, table, **{unique: []})
    topics, values = StreamTopics(unique), draw(20_000)
    version = (await deployment.prepare(**{unique: train(1)}))[unique]
    baseline = await give_baseline(deployment, version)
    async with deployment.worker(["learn"]):
        await deployment.promote(version)
    async with deployment.worker(["score"]) as survivor:
        await survivor.ready()
        enough = asyncio.Event()
        loading = asyncio.create_task(_load(deployment, unique, values, enough))
        with process(deployment) as victim:
            await eventually(lambda: len(survivor.worker.tasks()) == PARTITIONS // 2)
            await asyncio.sleep(1.5)
            victim.kill()
            await eventually(lambda: len(survivor.worker.tasks()) == PARTITIONS)
        enough.set()
        sent = await loading
        async with asyncio.timeout(PATIENCE_S):
            partials = await counted(deployment, topics.histograms, sent)
        by_survivor = survivor.worker.metrics.registry.get_sample_value(m.DRIFT_EVENTS_COUNTED.name, {"stream": unique})
        predictions = [decode(Prediction, r.value) for r in await deployment.records(topics.predictions, sent)]
    assert by_survivor is not None
    assert 0 < by_survivor < sent  # the rest was counted by the one that was killed
    _add_up(baseline, partials, values, predictions)
    _tell_where_the_events_are(partials, predictions)


async def _load(deployment: Deployment, stream: str, values: NDArray[np.float64], enough: asyncio.Event) -> int:
    """Send events at a steady pace until there are enough; return how many."""
    sent, load = 0, events(values)
    async with deployment.producer(stream) as send:
        while not enough.is_set():
            await send(list(islice(load, 20)))
            sent += 20
            await asyncio.sleep(0.03)
    return sent


def _add_up(
    baseline: Baseline, partials: list[PartialHistogram], values: NDArray[np.float64], predictions: list[Prediction]
) -> None:
    """Check that the partials are of exactly these predictions, made of rows of `values`."""
    rows = [int(p.event_id[1:]) for p in predictions]
    scores = np.array([p.score for p in predictions], dtype=np.float32)
    matrix = np.column_stack([values[rows].astype(np.float32), scores])
    for i, column in enumerate(baseline.columns):
        total = np.zeros(len(column.edges) + 1, dtype=np.int64)
        for partial in partials:
            cells, counts = partial.columns[i].cells, partial.columns[i].counts
            total[list(cells or range(len(counts)))] += np.array(counts, dtype=np.int64)
        known = matrix[~np.isnan(matrix[:, i]), i].astype(np.float64)
        np.testing.assert_array_equal(total, np.histogram(known, [-np.inf, *column.edges, np.inf])[0])
        assert sum(partial.columns[i].missing for partial in partials) == len(rows) - len(known)


def _tell_where_the_events_are(partials: list[PartialHistogram], predictions: list[Prediction]) -> None:
    for partial in partials:
        found = [
            p
            for p in predictions
            if p.partition == partial.partition and partial.from_offset <= p.offset < partial.to_offset
        ]
        times = [p.event_time_ms for p in found]
        assert (partial.n, partial.from_time_ms, partial.to_time_ms) == (len(found), min(times), max(times))


async def give_baseline(deployment: Deployment, version: ModelVersion) -> Baseline:
    """Make the model's baseline of other rows of the same kind, and record it."""
    spec = deployment.streams[version.stream]
    model = await asyncio.to_thread(model_opener(deployment.settings), version)
    made = baseline_of_rows(spec, model, draw(5_000, seed=5).astype(np.float32))
    await record_baseline(deployment.connection, artifact_store(deployment.settings), spec, version.model_id, made)
    return Baseline.decode(made)


async def counted(deployment: Deployment, topic: str, count: int) -> list[PartialHistogram]:
    """Return the committed partials once they are of `count` events."""
    partials: list[PartialHistogram] = []
    async with deployment.reader(topic) as reader:
        while sum(partial.n for partial in partials) < count:
            for records in (await reader.getmany(timeout_ms=100)).values():
                partials += [decode(PartialHistogram, record.value) for record in records]
    assert sum(partial.n for partial in partials) == count
    return partials


async def judged(deployment: Deployment, topic: str) -> list[DriftReport]:
    """Return the first reports."""
    async with deployment.reader(topic) as reader, asyncio.timeout(PATIENCE_S):
        while not (found := await reader.getmany(timeout_ms=100)):
            pass
    return [decode(DriftReport, record.value) for records in found.values() for record in records]
