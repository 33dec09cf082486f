"""Training runs struck by kill -9 in every phase, on both brokers: each request has one end, and each run one model."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.baselines import baseline_opener
from agents.shelf import opener
from agents.train import Train
from agents.train.process import run_apart
from app.registry import artifact_store, signer
from benchmarks.train_outcome import Outcome, outcome_of
from schemas.events import Alert, ModelVersion, RetrainRequest
from schemas.runs import TrainingEvent
from schemas.wire import decode, encode
from stores.documents import Documents, card_folder
from stream import admin
from tests.conftest import Broker
from tests.making import samples_of
from tests.striking import fall, mark_of
from tests.workers import PATIENCE_S, Deployment, Sent, draw, eventually, process
from topics.specs import StreamTopics

PHASES = {"kafka": ("read", "search", "validate", "fit", "evaluate", "record"), "embedded": ("search", "fit", "record")}
SAMPLES = 3000
TABLES = """
[streams.{stream}.join]
window_minutes = 60
lateness_minutes = 30
[streams.{stream}.training]
min_samples = 100
attempts = {attempts}
folds = {folds}
[streams.{stream}.training.parameters]
rounds = 60
"""
SEARCH = """
[streams.{stream}.training.search]
method = "grid"
[streams.{stream}.training.search.space]
max_depth = {{ choices = [2, 4] }}
"""


async def deployed(
    broker: Broker, session_ms: str, folder: Path, attempts: dict[str, int], *, thorough: bool
) -> Deployment:
    """Return a deployment of streams with the same samples, of which runs have so many attempts."""
    tables = "".join(
        (TABLES + SEARCH * thorough).format(stream=stream, attempts=count, folds=2 * thorough)
        for stream, count in attempts.items()
    )
    environ = {
        "ML_KAFKA_SESSION_TIMEOUT_MS": session_ms,
        "ML_TRAINING_DIR": str(folder / "training"),
        "ML_COMMIT_INTERVAL_MS": "50",
    }
    unique = next(iter(attempts)).rpartition("-")[0]
    deployment = Deployment(broker, unique, folder, environ, tables, **{stream: [] for stream in attempts})
    await admin.apply(deployment.connection, deployment.topics)
    values = [encode(sample) for sample in samples_of(SAMPLES)]
    for stream in attempts:
        await deployment.send(stream, [Sent(0, stream.encode(), value) for value in values], "samples")
    return deployment


async def ask(deployment: Deployment) -> None:
    """Ask for one run of each stream, by a request of the stream's name."""
    for stream in deployment.streams:
        request = RetrainRequest(id=stream, stream=stream, reason="manual", evidence={}, requested_time_ms=0)
        await deployment.send(stream, [Sent(0, stream.encode(), encode(request))], "retrain")


async def ended(deployment: Deployment) -> dict[str, list[TrainingEvent]]:
    """Return by stream the runs that ended, once one has in each, and what is said a moment longer.

    Each run must have begun but once, in however many attempts.
    """
    told: list[TrainingEvent] = []
    topics = [StreamTopics(stream).training for stream in deployment.streams]
    async with deployment.reader(*topics) as reader, asyncio.timeout(2 * PATIENCE_S):
        polled: dict[Any, Any] = {}
        while polled or not deployment.streams.keys() <= {event.stream for event in told if event.phase == "ended"}:
            polled = await reader.getmany(timeout_ms=500)
            told += [decode(TrainingEvent, record.value) for records in polled.values() for record in records]
    assert len({(event.run_id, event.started_time_ms) for event in told}) == len(deployment.streams)
    return {
        stream: [event for event in told if (event.stream, event.phase) == (stream, "ended")]
        for stream in deployment.streams
    }


async def values_of(deployment: Deployment, topics: Sequence[str]) -> list[bytes]:
    """Return all that is committed in topics of one partition."""
    found: list[bytes] = []
    async with deployment.reader(*topics) as reader:
        while polled := await reader.getmany(timeout_ms=500):
            found += [record.value for records in polled.values() for record in records]
    return found


async def outcome(deployment: Deployment, found: dict[str, list[TrainingEvent]]) -> Outcome:
    """Compare what became of streams with what was asked for."""
    topics = [StreamTopics(stream) for stream in found]
    return outcome_of(
        list(found),
        [event for events in found.values() for event in events],
        await values_of(deployment, [topic.models for topic in topics]),
        await values_of(deployment, [topic.audit for topic in topics]),
        await values_of(deployment, [topic.commands for topic in topics]),
    )


async def check_stored(deployment: Deployment, stream: str, run: TrainingEvent) -> ModelVersion:
    """Open all that a run made, as whoever serves it would; return its version."""
    [record] = await deployment.records(StreamTopics(stream).models, 1)
    version = decode(ModelVersion, record.value)
    assert (version.run_id, version.model_id) == (run.run_id, run.model_id)
    store = artifact_store(deployment.settings)
    model = opener(store, signer(deployment.settings), 1)(version)
    scores = model.predict(draw(50).astype("float32"))
    assert ((scores > 0) & (scores < 1)).all()
    assert version.baseline is not None
    baseline = await baseline_opener(store)(version.baseline, version.baseline_bytes)
    baseline.expect(version.features, ("score",))
    card = Documents(deployment.settings.model_storage_dir).get(card_folder(version.model_id))
    assert version.model_id in card["card.md"].decode()
    assert {"report.json", "drift.json", "roc.svg"} <= card.keys()
    return version


def artifacts(deployment: Deployment) -> set[str]:
    """Return what is in the store, besides cards: two hex digits and a hash make the path of an artifact."""
    return {path.name for path in Path(deployment.settings.model_storage_dir).glob("??/*")}


async def test_a_worker_that_is_killed_in_any_phase_leaves_each_request_one_end_and_one_model(
    broker: Broker, session_ms: str, unique: str, tmp_path: Path
) -> None:
    struck = [f"{unique}-{phase}" for phase in PHASES[broker.kind]]
    deployment = await deployed(broker, session_ms, tmp_path, dict.fromkeys(struck, 3), thorough=True)
    marks = [mark_of(deployment.settings.training_dir, stream) for stream in struck]
    with process(deployment, "train", "from tests.striking import work; work()") as worker:
        await ask(deployment)
        await eventually(lambda: all(mark.exists() for mark in marks), 2 * PATIENCE_S)
        assert worker.poll() is None
        worker.kill()
    async with deployment.worker(["train"]):
        found = await ended(deployment)
    assert [[event.attempt for event in found[stream]] for stream in struck] == [[2]] * len(struck)
    counted = await outcome(deployment, found)
    assert (counted.problems, counted.registered) == ((), len(struck))  # and so all came to the very same model
    versions = [await check_stored(deployment, stream, run) for stream, [run] in found.items()]
    assert artifacts(deployment) == {name for v in versions for name in (v.sha256, v.baseline)}  # nothing unfinished


async def test_a_run_whose_process_is_killed_is_tried_again_and_fails_once_when_no_attempt_is_left(
    broker: Broker, session_ms: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.train.run_apart", partial(run_apart, target=fall))
    monkeypatch.setattr("agents.train.Train", partial(Train, first_pause_s=0.1))
    once, always = f"{unique}-once", f"{unique}-always"
    deployment = await deployed(broker, session_ms, tmp_path, {once: 3, always: 2}, thorough=False)
    async with deployment.worker(["train"]):
        await ask(deployment)
        found = await ended(deployment)
    [lives], [dies] = found[once], found[always]
    assert (lives.outcome, lives.attempt, dies.outcome, dies.attempt) == ("accepted", 2, "failed", 2)
    assert (await outcome(deployment, {once: [lives]})).problems == ()
    await check_stored(deployment, once, lives)
    assert "exit code -9" in dies.message
    kinds = Counter(decode(Alert, a).kind for a in await values_of(deployment, [StreamTopics(always).alerts]))
    assert kinds == {"training": 1}
    assert await values_of(deployment, [StreamTopics(always).models]) == []
