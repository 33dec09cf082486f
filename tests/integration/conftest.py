"""Fixtures: a clean place to run commands in, one deployment for each module and broker, and a Redis."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.main import main
from app.embedded import EmbeddedBroker
from app.embedded_redis import RedisMissing, redis_server
from tests.command_line import (
    CANARY,
    PROGRAM,
    Deployment,
    Ended,
    Penstock,
    eventually,
    free_port,
    real_command,
    registered,
    without_settings,
)
from tests.conftest import not_here
from tests.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A real Redis with a password, which no output may show."""
    try:
        redis_server()
    except RedisMissing as reason:
        not_here(str(reason))
    with RedisServer(CANARY) as server:
        yield server


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the folder of whoever runs the tests has a say."""
    for name in [name for name in os.environ if name.startswith("ML_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def penstock(no_settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Penstock:
    """Run a command in this process."""

    def run(*arguments: str, **environ: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["penstock", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def deployment(
    request: pytest.FixtureRequest, run_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """One deployment for all tests on a broker: starting a worker takes longer than most of them.

    A module's TABLES are more lines for its penstock.toml.
    """
    folder = tmp_path_factory.mktemp(request.param)
    stream = f"cli-{run_name}-{zlib.crc32(request.module.__name__.encode()):08x}"  # one Kafka serves all modules
    tables = getattr(request.module, "TABLES", "").format(stream=stream)
    (folder / "penstock.toml").write_text(f'[streams.{stream}]\nfeatures = ["a", "b"]\n{tables}')
    with EmbeddedBroker() as embedded:
        bootstrap = embedded.bootstrap if request.param == "embedded" else request.getfixturevalue("kafka").bootstrap
        environ = {
            "ML_CONFIG": str(folder / "penstock.toml"),
            "ML_KAFKA_BOOTSTRAP": bootstrap,
            "ML_KAFKA_GROUP_PREFIX": stream,
            "ML_METRICS_PORT": str(free_port()),
            "ML_PAGE_PORT": "0",
            "ML_MODEL_STORAGE_DIR": str(folder / "store"),
            "ML_MODEL_SIGNING_KEY": CANARY,
            "ML_LOG_LEVEL": "DEBUG",
        }
        assert real_command("topics", "apply", **environ).code == 0
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [PROGRAM, "worker"], env=without_settings() | environ, cwd=folder, stderr=log, stdout=log
            )
        try:
            yield Deployment(request.param, stream, folder, environ, worker)
        finally:
            worker.kill()
            worker.wait()


@pytest.fixture
def here(no_settings: None, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """The deployment, for commands of this process."""
    monkeypatch.chdir(deployment.folder)
    for name, value in deployment.environ.items():
        monkeypatch.setenv(name, value)
    return deployment


@pytest.fixture
def champion(here: Deployment, penstock: Penstock) -> str:
    """The id of the model that serves."""
    if not here.health().get("streams", {}).get(here.stream, {}).get("champion"):
        model_id = registered(penstock, seed=0)["model_id"]
        assert penstock("models", "promote", model_id).code == 0
    return str(eventually(lambda: here.health()["ready"] and here.health()["streams"][here.stream]["champion"]))
