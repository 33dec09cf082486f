"""What is counted of a stream, on either broker: the committed partials add up to what numpy counts of its events."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from app.baselines import baseline_of_rows, record_baseline
from app.registry import artifact_store, model_opener
from ml.drift.baseline import Baseline
from schemas.events import DriftReport, ModelVersion, PartialHistogram, Prediction
from schemas.wire import decode
from tests.conftest import Broker
from tests.workers import PATIENCE_S, Deployment, Sent, draw, events, eventually, train
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
    scores = [p.score for p in predictions if int(p.event_id[1:]) >= 50]
    matrix = np.column_stack([values[50:].astype(np.float32), np.array(scores, dtype=np.float32)])
    for i, column in enumerate(baseline.columns):
        total = np.zeros(len(column.edges) + 1, dtype=np.int64)
        for partial in partials:
            total[list(partial.columns[i].cells)] += partial.columns[i].counts
        known = matrix[~np.isnan(matrix[:, i]), i].astype(np.float64)
        np.testing.assert_array_equal(total, np.histogram(known, [-np.inf, *column.edges, np.inf])[0])
        assert sum(partial.columns[i].missing for partial in partials) == EVENTS - 50 - len(known)
    assert max(partial.n for partial in partials) <= 300
    _tell_where_the_events_are(partials, predictions)
    assert {(report.model_id, report.baseline) for report in reports} == {(version.model_id, partials[0].baseline)}
    assert all(300 <= report.n < 600 for report in reports)


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
    await record_baseline(deployment.connection, artifact_store(deployment.settings), version, made)
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
