"""A rollout on either broker: the worker that judges it takes its steps, and goes on with them after a restart."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.clock import now_ms
from app.commands import ask_control
from app.worker import Worker
from schemas.events import Alert, Command
from schemas.events import Deployment as Routing
from schemas.experiments import ExperimentPlan, ExperimentReport
from schemas.wire import decode
from tests.conftest import Broker
from tests.workers import Deployment, Sent, document, draw, eventually, placed, train
from topics import StreamTopics

TABLES = """
[streams.{stream}.join]
window_minutes = 60
lateness_minutes = 0
[streams.{stream}.evaluation]
maturity_minutes = 1
"""
# Labels know nothing of scores here, and whose buckets are whose is drawn: no test of ours may hang on that chance.
PLAN = ExperimentPlan(metric="accuracy", alpha=1e-6, min_samples=40, margin=0.9, steps=(0.5, 1.0), max_call_ms=None)


@pytest.fixture
def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    return Deployment(broker, unique, tmp_path, {}, TABLES.format(stream=unique), **{unique: []})


def _seen(start: int, stop: int) -> Iterator[tuple[Sent, Sent]]:
    """Yield events, ten in a second, each of an entity of its own, with their labels."""
    for number, row in zip(range(start, stop), draw(stop - start, start).tolist(), strict=True):
        entity, time_ms = f"N{number}", 100 * number
        event = placed(document(number, row, entity_id=entity, event_time_ms=time_ms))
        label = {"event_id": f"e{number}", "entity_id": entity, "label": number % 2, "label_time_ms": time_ms + 50}
        yield event, Sent(event.partition, event.key, msgspec.json.encode(label))


async def _send(deployment: Deployment, stream: str, start: int, stop: int) -> None:
    pairs = list(_seen(start, stop))
    await deployment.send(stream, [event for event, _ in pairs])
    await deployment.send(stream, [label for _, label in pairs], topic="labels")


def _routing(worker: Worker) -> Routing:
    return worker._streams[0].deployments.events[-1]


def _info(stream: str, model_id: str) -> dict[str, str]:
    return {"stream": stream, "model": model_id, "algorithm": "xgboost", "revision": "3"}


async def _check_what_was_told(deployment: Deployment, topics: StreamTopics) -> None:
    """Every report, command and alert is there once, over the restart."""
    async with deployment.reader(topics.experiments, topics.commands, topics.alerts) as reader:
        found: dict[str, list[bytes]] = {}
        while polled := await reader.getmany(timeout_ms=1_000):
            for source, records in polled.items():
                found.setdefault(source.topic, []).extend(record.value for record in records)
    reports = [decode(ExperimentReport, value) for value in found[topics.experiments]]
    assert [report.number for report in reports] == list(range(len(reports)))
    commands = [decode(Command, value) for value in found[topics.commands]]
    assert [(command.action, command.issued_by) for command in commands] == [
        ("promote", "tests"),
        ("start", "tests"),
        ("reshare", "rollout r"),
        ("promote", "rollout r"),
    ]
    alerts = [decode(Alert, value) for value in found[topics.alerts]]
    assert [alert.window for alert in alerts if alert.kind == "rollout"] == ["epoch 0 advance", "epoch 1 promote"]


async def test_a_rollout_takes_its_steps_over_a_restart_and_ends_with_the_promotion(
    deployment: Deployment, unique: str
) -> None:
    versions = await deployment.prepare(**{unique: train(1)})
    better = await deployment.register(unique, train(2))
    start = Command(
        stream=unique,
        action="start",
        expected_revision=1,
        issued_by="tests",
        issued_time_ms=now_ms(),
        correlation_id="start",
        experiment_id="r",
        plan=PLAN,
        variants={"challenger": better.model_id},
        shares={"challenger": 0.5},
    )
    async with deployment.worker() as running:
        await deployment.promote(versions[unique])
        await running.ready()
        answer = await ask_control(deployment.connection, deployment.streams[unique], start)
        assert answer.outcome == "done", answer.reason
        await eventually(lambda: _routing(running.worker).experiment is not None)
        await _send(deployment, unique, 0, 500)
        await _send(deployment, unique, 2_000, 2_100)  # so that the labels of the first are mature
        await eventually(lambda: _routing(running.worker).revision == 3)
        experiment = _routing(running.worker).experiment
        assert experiment is not None
        assert (experiment.epoch, experiment.variants[1].buckets) == (1, 10_000)
        assert _routing(running.worker).changed_by == "rollout r"
        shown = running.worker.metrics.registry.get_sample_value
        assert shown("ml_experiment_active_total", {"stream": unique}) == 1
        running.worker._refresh_gauges()
        sizes = {version.model_id: version.size_bytes for version in (versions[unique], better)}
        for model_id in sizes:
            assert shown("ml_model_file_size_bytes", {"stream": unique, "model": model_id}) == sizes[model_id]
        await eventually(lambda: all(shown("ml_model_info", _info(unique, model_id)) == 1 for model_id in sizes))
    async with deployment.worker() as running:
        await running.ready()
        await _send(deployment, unique, 2_100, 2_300)
        await eventually(lambda: _routing(running.worker).revision == 4)
        assert (_routing(running.worker).champion, _routing(running.worker).experiment) == (better.model_id, None)
        running.worker._refresh_gauges()
        shown = running.worker.metrics.registry.get_sample_value
        statuses = [
            shown("ml_models_total", {"stream": unique, "status": s}) for s in ("production", "staging", "draft")
        ]
        assert statuses == [1, 1, 0]

    await _check_what_was_told(deployment, StreamTopics(unique))
