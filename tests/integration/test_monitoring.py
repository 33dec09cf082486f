"""Every query of the dashboards and rules, asked of a real Prometheus that scraped a real worker.

The worker has a learner's shadow, an experiment, drift, dead letters, training that fails and succeeds, and alerts
that are delivered, or cannot be.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from numpy.typing import NDArray

from app.baselines import record_baseline
from app.clock import now_ms
from app.commands import ask_control
from app.embedded import EmbeddedBroker
from app.registry import artifact_store
from ml.drift.baseline import make_baseline
from schemas.events import Command, RetrainRequest
from schemas.experiments import ExperimentPlan
from schemas.wire import encode
from stream import metrics as m
from stream.metric_values import Metrics
from stream.metrics import Metric
from tests.command_line import free_port
from tests.conftest import Broker
from tests.monitoring import Expression, Prometheus, compared, panel_expressions, prometheus, rules
from tests.workers import FEATURES, Deployment, Running, Sent, direct, document, draw, eventually, placed, train

TABLES = """
[streams.{stream}.join]
window_minutes = 30
lateness_minutes = 0
[streams.{stream}.evaluation]
window_samples = 200
maturity_minutes = 1
[streams.{stream}.drift]
window_events = 200
[streams.{stream}.archive]
samples = 100
[streams.{stream}.learners.online]
algorithm = "river-logistic"
strategy = "incremental"
publish_every = 200
shadow = true
[streams.{stream}.training]
min_samples = 500
cooldown_minutes = 0
[sinks.ops]
kind = "webhook"
url = "{receiver}/alerts"
allow_private = true
[sinks.gone]
kind = "webhook"
url = "{receiver}/gone"
allow_private = true
"""
SECRETS = {f"ML_SINK_{sink}_SECRET": "a key of sixteen bytes and more, for tests" for sink in ("OPS", "GONE")}
PLAN = ExperimentPlan(metric="accuracy", alpha=1e-6, min_samples=100, guard_metrics=("brier",), max_score_psi=None)
BATCH = 100
HEALTHY_BATCHES, DRIFTED_BATCHES = 14, 12
EVENT_S = 2  # of event time, from one event to the next: the labels' window goes by, too
FIRING = {"PenstockDrift", "PenstockTrainingFailed", "PenstockAlertsUndelivered"}
PATIENCE_S = 60.0
RATES_S = 20.0  # a rate needs a few scrapes

# What does not happen to a worker that is well, and so is counted by hand: with its labels, but for the stream.
MISHAPS: dict[Metric, tuple[str, ...]] = {
    m.PREDICTION_ERRORS: (),
    m.MODEL_LOAD_FAILURES: (),
    m.VIEW_FAILURES: (),
    m.SHADOW_ERRORS: ("online",),
    m.VARIANT_ERRORS: ("challenger",),
    m.SAMPLES_MISSED: ("late",),
    m.DRIFT_PARTIALS_MISSED: ("late",),
    m.EXPERIMENT_SAMPLES_MISSED: ("late",),
    m.TASK_RESTARTS: ("score", "fenced"),
    m.EVENTS_EXPIRED: ("flights.features",),
}


@pytest.fixture
async def receiver() -> AsyncIterator[str]:
    """The address of a service that takes alerts at /alerts, and at /gone none."""

    async def take(request: web.Request) -> web.Response:
        return web.Response(status=410 if request.path == "/gone" else 204)

    application = web.Application()
    application.router.add_post("/{any}", take)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
def deployment(embedded: EmbeddedBroker, unique: str, tmp_path: Path, receiver: str) -> Deployment:
    broker = Broker("embedded", embedded.bootstrap)
    tables = TABLES.format(stream=unique, receiver=receiver)
    return Deployment(broker, unique, tmp_path, SECRETS, tables, **{unique: []})


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[tuple[int, Prometheus]]:
    """The port that a worker is to have, and a Prometheus that scrapes it."""
    port = free_port()
    with prometheus(tmp_path, f"127.0.0.1:{port}") as server:
        yield port, server


@pytest.mark.timeout(300)
async def test_every_panel_and_rule_has_an_answer_from_a_worker_to_which_everything_happens(
    deployment: Deployment, unique: str, addresses: tuple[int, Prometheus]
) -> None:
    port, server = addresses
    async with deployment.worker(metrics_port=port) as running:
        await live_through_everything(deployment, unique, running)
        await eventually(lambda: running.worker.metrics.registry.get_sample_value("ml_ready") == 1)
        asked = [*panel_expressions(unique), *(part for rule in rules() for part in compared(rule))]
        silent = await _until_answered(server, asked)
        told = await asyncio.to_thread(firing, server)
    assert silent == []
    assert told >= FIRING


async def _until_answered(server: Prometheus, asked: list[Expression]) -> list[Expression]:
    """Return the expressions that stay without an answer."""
    silent, give_up = asked, time.monotonic() + RATES_S
    while silent and time.monotonic() < give_up:
        await asyncio.sleep(1)
        silent = [one for one in silent if not await asyncio.to_thread(server.values, one.text)]
    return silent


def firing(server: Prometheus) -> set[str]:
    alerts = server.get("alerts")["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


async def live_through_everything(deployment: Deployment, stream: str, running: Running) -> None:
    """Let it all happen to the stream; about 30 s."""
    champion, challenger = train(1), train(2)
    versions = await deployment.prepare(**{stream: champion})
    values = draw(2_000, seed=9)
    baseline = make_baseline(values.astype(np.float32), FEATURES, {"score": direct(champion, values)})
    store, spec = artifact_store(deployment.settings), deployment.streams[stream]
    version = await record_baseline(deployment.connection, store, spec, versions[stream].model_id, baseline.encode())
    await deployment.promote(version)
    await running.ready()
    await _ask_for_training(deployment, stream, "too-early")
    metrics = running.worker.metrics
    await _happened(metrics, "ml_training_runs_total", stream=stream, outcome="failed")
    other = await deployment.register(stream, challenger)
    await _experiment(deployment, stream, other.model_id)
    async for number in _sent(deployment, stream):
        if number == HEALTHY_BATCHES:
            await _ask_for_training(deployment, stream, "with-samples")
            for metric, labels in MISHAPS.items():
                metrics.count(metric, 1, *((stream, *labels) if "stream" in metric.labels else labels))
    drifted = partial(metrics.registry.get_sample_value, "ml_drifted_features_ratio", {"stream": stream})
    await eventually(lambda: (drifted() or 0) >= 0.3, PATIENCE_S)
    await _happened(metrics, "ml_pipeline_accuracy", stream=stream)
    await _happened(metrics, "ml_notifications_total", stream=stream, sink="gone", outcome="undeliverable")
    await _happened(metrics, "ml_experiment_metric", stream=stream, experiment="x", variant="challenger", metric="f1")


async def _sent(deployment: Deployment, stream: str) -> AsyncIterator[int]:
    """Send batch after batch: events and a bad one; then labels of nine events in ten, one twice, and a bad one."""
    values = draw(BATCH * (HEALTHY_BATCHES + DRIFTED_BATCHES), seed=3)
    values[BATCH * HEALTHY_BATCHES :] += 4
    for number in range(HEALTHY_BATCHES + DRIFTED_BATCHES):
        first = BATCH * number
        rows = values[first : first + BATCH]
        events = [placed(_document(first + place, row)) for place, row in enumerate(rows.tolist())]
        labels = [_label(first + place, row) for place, row in enumerate(rows) if place % 10]
        await deployment.send(stream, [*events, events[0]._replace(value=b"{")])
        await asyncio.sleep(0.3)
        await deployment.send(stream, [*labels, labels[0], labels[1]._replace(value=b"{")], topic="labels")
        yield number
        await asyncio.sleep(0.4)


def _document(number: int, row: list[float]) -> dict[str, object]:
    return document(number, row, entity_id=f"N{number}", event_time_ms=_time_ms(number))


def _label(number: int, row: NDArray[np.float64]) -> Sent:
    entity = f"N{number}"
    label = {
        "event_id": f"e{number}",
        "entity_id": entity,
        "label": int(np.nansum(row[:2]) > 0) if number % 7 else number % 2,
        "label_time_ms": _time_ms(number) + 500,
    }
    return placed(label)


def _time_ms(number: int) -> int:
    return 1_000 * EVENT_S * number


async def _ask_for_training(deployment: Deployment, stream: str, name: str) -> None:
    request = RetrainRequest(id=name, stream=stream, reason="manual", evidence={}, requested_time_ms=now_ms())
    await deployment.send(stream, [Sent(0, stream.encode(), encode(request))], "retrain")


async def _experiment(deployment: Deployment, stream: str, challenger: str) -> None:
    command = Command(
        stream=stream,
        action="start",
        issued_by="tests",
        issued_time_ms=now_ms(),
        correlation_id="start",
        experiment_id="x",
        plan=PLAN,
        variants={"challenger": challenger},
        shares={"challenger": 0.5},
    )
    answer = await ask_control(deployment.connection, deployment.streams[stream], command)
    assert answer.outcome == "done", answer.reason


async def _happened(metrics: Metrics, name: str, **labels: str) -> None:
    await eventually(lambda: metrics.registry.get_sample_value(name, labels) is not None, PATIENCE_S)
