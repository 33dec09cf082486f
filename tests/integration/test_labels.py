"""Labels come back, on either broker: each becomes a sample or a dead letter, is learnt and counted once."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.serving import Serving
from app.clock import now_ms
from app.registry import artifact_store, signer
from app.worker import Worker
from ml.models.river_logistic import RiverLogisticModel
from schemas.events import AuditEvent, DeadLetter, ModelVersion, Performance, Prediction, Sample
from schemas.wire import decode
from tests.conftest import Broker
from tests.workers import Deployment, Sent, draw, events, eventually, home_of, train
from topics import StreamTopics

HOUR_MS = 3_600_000
TABLES = """
[streams.{stream}.join]
window_minutes = 60
lateness_minutes = 0
[streams.{stream}.evaluation]
window_samples = 100
maturity_minutes = 0
[streams.{stream}.learners.online]
algorithm = "river-logistic"
strategy = "incremental"
publish_every = 100
shadow = true
[streams.{stream}.learners.trees]
algorithm = "river-adaptive-forest"
strategy = "mini_batch"
batch_size = 50
publish_every = 200
parameters = {{ n_models = 2 }}
"""


@pytest.fixture
def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    return Deployment(
        broker, unique, tmp_path, {"ML_CHECKPOINT_INTERVAL_MS": "300"}, TABLES.format(stream=unique), **{unique: []}
    )


def label(number: int, value: object = None, time_ms: int | None = None, **changes: object) -> Sent:
    """The label of event `number`, one minute after it unless said otherwise."""
    entity = f"N{number % 50}"
    event = {
        "event_id": f"e{number}",
        "entity_id": entity,
        "label": number % 2 if value is None else value,
        "label_time_ms": number + 60_000 if time_ms is None else time_ms,
    }
    return Sent(home_of(entity.encode()), entity.encode(), msgspec.json.encode(event | changes))


async def test_a_label_becomes_one_sample_is_learnt_and_counted(deployment: Deployment, unique: str) -> None:
    topics = StreamTopics(unique)
    values = draw(450)
    versions = await deployment.prepare(**{unique: train(1)})
    async with deployment.worker() as running:
        await deployment.promote(versions[unique])
        await running.ready()
        await deployment.send(unique, itertools.islice(events(values), 400))
        await deployment.records(topics.predictions, 400)
        labels = [label(number) for number in range(250)]
        wrong = [label(3, "late"), label(4, time_ms=4 + HOUR_MS + 1), label(5, entity_id="somebody else")]
        again = [label(7), label(8, 1 - 8 % 2, time_ms=8 + 120_000)]  # a duplicate and a revision
        await deployment.send(unique, [*labels, *wrong, *again], "labels")
        await deployment.records(topics.samples, 251)
    async with deployment.worker() as running:  # what comes next begins where this one ended
        await running.ready()
        await deployment.send(unique, [label(number) for number in range(250, 400)], "labels")
        log = await deployment.records(topics.samples, 401)
        await eventually(lambda: _shadow(running.worker).startswith("online@"))
        await deployment.send(unique, events(values[400:], first=400))
        predictions = [decode(Prediction, record.value) for record in await deployment.records(topics.predictions, 450)]
        letters = [decode(DeadLetter, record.value) for record in await deployment.records(topics.labels_dead, 3)]
        performances = [decode(Performance, record.value) for record in await deployment.records(topics.performance, 4)]
        (stages,) = running.worker._streams
        await eventually(lambda: len({version.model_id for version in stages.models.events}) == 7)
        registered = list({version.model_id: version for version in stages.models.events}.values())
    samples = {record.offset: decode(Sample, record.value) for record in log}
    _are_the_labelled_predictions(samples.values(), predictions)
    assert sorted(letter.reason for letter in letters) == ["outside_window", "unknown_label", "wrong_key"]
    newest = [prediction for prediction in predictions if int(prediction.event_id[1:]) >= 400]
    assert {tuple(shadow.variant for shadow in prediction.shadows) for prediction in newest} == {("online",)}
    assert [performance.number for performance in performances if performance.mature] == [0, 1, 2, 3]
    _snapshots_are_folds(deployment, registered, samples)


async def test_a_lineage_that_serves_is_succeeded_by_its_next_snapshot(deployment: Deployment, unique: str) -> None:
    topics = StreamTopics(unique)
    versions = await deployment.prepare(**{unique: train(1)})
    async with deployment.worker() as running:
        await deployment.promote(versions[unique])
        await running.ready()
        (stages,) = running.worker._streams
        await deployment.send(unique, events(draw(300)))
        await deployment.records(topics.predictions, 300)
        await deployment.send(unique, [label(number) for number in range(100)], "labels")
        await eventually(lambda: _shadow(running.worker).startswith("online@"))
        first = next(version for version in stages.models.events if version.lineage == "online")
        await deployment.promote(first)
        await deployment.send(unique, [label(number) for number in range(100, 200)], "labels")
        await eventually(lambda: _champion(stages.serving) not in ("", first.model_id))
        served_ms = now_ms()
        audit = [decode(AuditEvent, record.value) for record in await deployment.records(topics.audit, 8)]
    assert stages.serving.current is not None
    second = stages.serving.current.version
    assert (second.lineage, second.parent) == ("online", first.model_id)
    assert [(event.action, event.outcome) for event in audit if not event.model_id.startswith("trees@")] == [
        ("register", "done"),
        ("promote", "done"),
        ("register", "done"),
        ("shadow", "done"),
        ("promote", "done"),
        ("register", "done"),
        ("succeed", "done"),
    ]
    assert served_ms - second.created_time_ms < 5_000  # a second, and what a busy machine adds


def _are_the_labelled_predictions(samples: Iterable[Sample], predictions: Iterable[Prediction]) -> None:
    predicted = {prediction.event_id: prediction for prediction in predictions}
    expected = {(f"e{number}", 0): number % 2 for number in range(400)} | {("e8", 1): 1}
    assert {(sample.event_id, sample.revision): sample.label for sample in samples} == expected
    for sample in samples:
        prediction = predicted[sample.event_id]
        assert (sample.features, sample.score, sample.model_id) == (
            prediction.features,
            prediction.score,
            prediction.model_id,
        )
        assert sample.entity_id == prediction.entity_id
        assert sample.replaces == (0 if sample.revision else None)


def _snapshots_are_folds(deployment: Deployment, versions: list[ModelVersion], samples: dict[int, Sample]) -> None:
    """Each snapshot is what a model is that learns the samples before the snapshot's offset, one after the other."""
    store, checks = artifact_store(deployment.settings), signer(deployment.settings)
    online = [version for version in versions if version.lineage == "online"]
    assert len(online) == 4
    for version in online:
        checks.verify(version)
        model = RiverLogisticModel(3)
        for offset, sample in samples.items():
            if offset < (version.samples_offset or 0) and not sample.revision:
                row = np.array([[np.nan if value is None else value for value in sample.features]], dtype=np.float32)
                model.learn(row, np.array([sample.label], dtype=np.int64))
        snapshot = RiverLogisticModel.load(store.get(version.sha256, version.size_bytes))
        assert snapshot.canonical() == model.canonical()


def _champion(serving: Serving) -> str:
    return serving.current.version.model_id if serving.current else ""


def _shadow(worker: Worker) -> str:
    """The id of the model that scores beside the champion."""
    (serving,) = [stages.serving for stages in worker._streams]
    shadows = serving.current.shadows if serving.current else ()
    return next((shadow.version.model_id for shadow in shadows), "")
