"""Requests to train anew on a real broker: each is answered once, by a process of its own, through restarts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from schemas.events import Alert, RetrainRequest
from schemas.runs import TrainingEvent
from schemas.wire import decode, encode
from stream import admin
from tests.conftest import Broker
from tests.workers import PATIENCE_S, Deployment, Sent
from topics.specs import StreamTopics


@pytest.fixture
async def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    tables = f"[streams.{unique}.training]\nmin_samples = 10\n"
    deployment = Deployment(broker, unique, tmp_path, {}, tables, **{unique: []})
    if broker.kind == "kafka":
        await admin.apply(deployment.connection, deployment.topics)
    return deployment


async def ask(deployment: Deployment, stream: str, *request_ids: str) -> None:
    requests = [
        RetrainRequest(id=one, stream=stream, reason="manual", evidence={}, requested_time_ms=0) for one in request_ids
    ]
    await deployment.send(stream, [Sent(0, stream.encode(), encode(request)) for request in requests], "retrain")


async def ended(deployment: Deployment, stream: str, count: int) -> list[TrainingEvent]:
    """Return the runs that ended once there are `count`, and a moment longer."""
    found: list[TrainingEvent] = []
    async with deployment.reader(StreamTopics(stream).training) as reader, asyncio.timeout(PATIENCE_S):
        more: dict[Any, Any] = {}
        while len(found) < count or more:
            more = await reader.getmany(timeout_ms=500)
            events = [decode(TrainingEvent, record.value) for records in more.values() for record in records]
            found += [event for event in events if event.phase == "ended"]
    return found


async def test_a_stream_without_samples_has_its_requests_answered_with_one_failure_each(
    deployment: Deployment, unique: str
) -> None:
    async with deployment.worker(["train"]) as running:
        await running.ready()
        await ask(deployment, unique, "r1")
        [first] = await ended(deployment, unique, 1)
    assert (first.outcome, first.request_ids, first.attempt) == ("failed", ("r1",), 1)
    assert "sample" in first.message
    async with deployment.worker(["train"]) as running:
        await running.ready()
        await ask(deployment, unique, "r2", "r1")
        found = await ended(deployment, unique, 2)
    assert [event.request_ids for event in found] == [("r1",), ("r2",)]
    alerts = [decode(Alert, record.value) for record in await deployment.records(StreamTopics(unique).alerts, 2)]
    assert {alert.subject for alert in alerts} == {event.run_id for event in found}
