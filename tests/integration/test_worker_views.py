"""A worker with a Redis: views of its streams are there, come back after a kill, and no password is in its log."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import redis
from aiokafka import AIOKafkaProducer

from schemas.event import Event
from schemas.wire import encode
from tests.command_line import CANARY, PROGRAM, free_port, real_command, without_settings
from tests.command_line import eventually as soon
from tests.conftest import Broker
from tests.drifting import alert_of, report_of
from tests.redis_server import RedisServer
from tests.support import version_of
from tests.viewing import SPEC, experiment_of, routed


def eventually(look: Callable[[], Any]) -> None:
    """Wait until `look` sees something; a worker on a busy machine takes its time to start."""
    soon(look, timeout_s=60)


class Worker:
    """A worker of one stream that runs the role learn, in a folder of its own."""

    def __init__(self, broker: Broker, folder: Path, stream: str, **environ: str) -> None:
        self.stream, self.port, self.bootstrap = stream, free_port(), broker.bootstrap
        (folder / "penstock.toml").write_text(f'[streams.{stream}]\nfeatures = ["distance"]\n')
        settings = {
            "ML_CONFIG": str(folder / "penstock.toml"),
            "ML_KAFKA_BOOTSTRAP": broker.bootstrap,
            "ML_KAFKA_GROUP_PREFIX": stream,
            "ML_METRICS_PORT": str(self.port),
            "ML_PAGE_PORT": "0",
            "ML_MODEL_STORAGE_DIR": str(folder / "store"),
            "ML_LOG_LEVEL": "DEBUG",
        }
        assert real_command("topics", "apply", **settings).code == 0
        self._log = folder / "worker.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "worker", "--role", "learn"],
                env=without_settings() | settings | environ,
                cwd=folder,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def page(self, name: str) -> str:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as answer:
                page: bytes = answer.read()
                return page.decode()
        except URLError:  # 503 until it is ready
            return ""

    def write(self, topic: str, event: Event) -> None:
        async def send() -> None:
            async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
                await producer.send_and_wait(f"{self.stream}.{topic}", encode(event), partition=0)

        asyncio.run(send())


@pytest.fixture
def started(broker: Broker, tmp_path: Path, unique: str) -> Iterator[Any]:
    """Start workers, which end with the test."""
    workers = []

    def start(**environ: str) -> Worker:
        workers.append(Worker(broker, tmp_path, unique, **environ))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def shown(client: "redis.Redis[Any]", worker: Worker) -> set[str]:
    try:
        return {key.decode() for key in client.keys(f"*:{worker.stream}*")}
    except redis.ConnectionError:  # of the server that was killed
        return set()


def test_a_worker_keeps_views_and_restores_them_and_never_shows_the_password(server: RedisServer, started: Any) -> None:
    worker: Worker = started(ML_REDIS_URL=server.url)
    stream = worker.stream
    with redis.Redis.from_url(server.url) as client:
        worker.write("drift", report_of(1, stream=stream))
        worker.write("alerts", alert_of("a1", stream=stream))
        worker.write("models", version_of(SPEC, "m1"))
        worker.write("deployments", routed(1, experiment_of("x", 50, 50)))
        wanted = {
            f"drift:stats:{stream}",
            f"drift:stats:{stream}:feature:distance",
            f"drift:stats:{stream}:prediction:score",
            f"drift:alert:{stream}:a1",
            f"ml:model:{stream}:m1",
            f"ab:experiment:{stream}:x",
            f"views:mark:{stream}",
        }
        eventually(lambda: shown(client, worker) == wanted)
        server.kill()
        failed = f'ml_view_failures_total{{stream="{stream}"}}'
        eventually(lambda: failed in worker.page("metrics"))
        eventually(lambda: '"ready":true' in worker.page("health").replace(" ", ""))
        server.start()
        eventually(lambda: shown(client, worker) == wanted)
    worker.process.terminate()
    assert worker.process.wait(20) == 0, worker.log[-2000:]
    assert "DEBUG" in worker.log
    assert "the views of" in worker.log
    assert "Traceback" not in worker.log
    assert CANARY not in worker.log


def test_a_redis_that_refuses_the_password_keeps_no_worker_from_its_work(server: RedisServer, started: Any) -> None:
    worker: Worker = started(ML_REDIS_URL=server.url.replace(CANARY, f"{CANARY}-wrong"))
    eventually(lambda: '"ready":true' in worker.page("health").replace(" ", ""))
    eventually(lambda: "the views of" in worker.log)
    assert CANARY not in worker.log


def test_a_worker_without_an_address_brings_its_own_redis_and_takes_it_along(started: Any) -> None:
    worker: Worker = started()
    stream = worker.stream
    eventually(lambda: "embedded Redis at " in worker.log)
    socket = Path(worker.log.partition("embedded Redis at unix://")[2].partition(",")[0])
    worker.write("drift", report_of(1, stream=stream))
    with redis.Redis(unix_socket_path=str(socket)) as client:
        eventually(lambda: client.exists(f"drift:stats:{stream}"))
    worker.process.terminate()
    assert worker.process.wait(20) == 0, worker.log[-2000:]
    assert not socket.parent.exists()
