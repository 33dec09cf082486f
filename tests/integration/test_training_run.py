"""Training runs on both brokers, in processes of their own, and what of them is in a real MLflow."""

import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.train.job import Job, Made, Progress, Said
from agents.train.process import run_apart
from app.registry import signer
from app.stages import drift_of
from schemas.wire import encode
from stores.documents import Documents, card_folder
from stream import admin
from tests.conftest import Broker
from tests.making import MINUTE_MS, Heard, job_of, runner, samples_of
from tests.mlflow_server import MlflowServer
from tests.workers import Deployment, Sent, eventually

SAMPLES = 900
TABLES = """
[streams.{stream}.join]
window_minutes = 60
lateness_minutes = 30
[streams.{stream}.archive]
samples = 400
[streams.{stream}.training]
min_samples = 100
[streams.{stream}.training.parameters]
rounds = 30
[streams.{stream}.training.search]
trials = 2
parallel = {parallel}
[streams.{stream}.training.search.space]
max_depth = [2, 4]
"""


@pytest.fixture
async def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    """A stream with samples, of which nothing is archived yet."""
    stream = f"{unique}-flights"
    tables = TABLES.format(stream=stream, parallel=2 if broker.kind == "kafka" else 1)
    deployment = Deployment(broker, unique, tmp_path, {}, tables, **{stream: []})
    await admin.apply(deployment.connection, deployment.topics)
    records = [Sent(0, stream.encode(), encode(sample)) for sample in samples_of(SAMPLES)]
    await deployment.send(stream, records, "samples")
    return deployment


def job_on(deployment: Deployment, broker: Broker, folder: Path) -> Job:
    [spec] = deployment.streams.values()
    return job_of(
        msgspec.structs.replace(spec, drift=drift_of(deployment.settings, spec)),
        folder,
        connection=deployment.connection,
        read_committed=broker.kind == "kafka",
        model_storage_dir=deployment.settings.model_storage_dir,
        signer=signer(deployment.settings),
        training_dir=str(folder / "training"),
    )


async def said_by(job: Job) -> list[Said]:
    return [said async for said in run_apart(job)]


async def test_a_run_comes_to_the_same_from_the_log_and_from_the_archive(
    deployment: Deployment, broker: Broker, tmp_path: Path
) -> None:
    job = job_on(deployment, broker, tmp_path)
    said = await said_by(job)
    made = said[-1]
    assert isinstance(made, Made), made
    assert list(dict.fromkeys(each.phase for each in said if isinstance(each, Progress))) == [
        "read",
        "search",
        "fit",
        "evaluate",
        "record",
    ]
    newest_label_ms = samples_of(SAMPLES)[-1].label_time_ms
    assert made.to_time_ms == newest_label_ms - 90 * MINUTE_MS + 1
    assert made.version.metrics["roc_auc"] > 0.8
    files = Documents(deployment.settings.model_storage_dir).get(card_folder(made.version.model_id))
    assert files["roc.svg"].startswith(b"<?xml")
    archive = Path(deployment.settings.model_storage_dir) / "archive"
    async with deployment.worker(["learn"]):
        await eventually(lambda: len(list(archive.rglob("*-*.parquet"))) >= 2)
    assert (await said_by(replace(job, attempt=2)))[-1] == made


def test_a_run_is_in_mlflow_with_its_card_its_drift_report_and_its_model(
    mlflow_server: MlflowServer, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: Heard = runner(tmp_path, monkeypatch)(plots=True, mlflow_uri=mlflow_server.uri, mlflow_experiment=unique)
    made = heard.made
    [note] = made.notes
    run_id = note.rpartition("/")[2]
    run = asked(f"{mlflow_server.uri}/api/2.0/mlflow/runs/get?run_id={run_id}")["run"]
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["roc_auc"] == pytest.approx(made.version.metrics["roc_auc"])
    listed = asked(f"{mlflow_server.uri}/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=card")["files"]
    assert {"card/card.md", "card/roc.svg", "card/drift.json"} <= {file["path"] for file in listed}
    address = f"{mlflow_server.uri}/get-artifact?run_uuid={run_id}&path=model/{made.version.model_id}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert len(answer.read()) == made.version.size_bytes


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)
