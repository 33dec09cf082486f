"""The command line for tests: commands in this process and in their own, and a deployment with a worker that runs."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import xgboost
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

PROGRAM = Path(sys.executable).with_name("penstock")
CANARY = "canary-2f9d-do-not-show-this-one"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def is_one_sentence(self, code: int) -> bool:
        """Whether the command was refused with this exit code, in one line of error and nothing else."""
        return (self.code, self.out, self.err.count("\n"), self.err[:10]) == (code, "", 1, "penstock: ")

    def is_refusal(self, words: str) -> bool:
        """Whether the command did nothing and says why in one sentence, which has these words in it."""
        return self.is_one_sentence(1) and words in self.err


Penstock = Callable[..., Ended]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def real_command(*arguments: str, **environ: str) -> Ended:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [PROGRAM, *arguments], env=without_settings() | environ, capture_output=True, text=True, timeout=60
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def without_settings() -> dict[str, str]:
    """The environment of these tests, without the settings of whoever runs them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ML_")}


@dataclass
class Deployment:
    """A folder with a stream, its topics and a worker that runs."""

    kind: str
    stream: str
    folder: Path
    environ: dict[str, str]
    worker: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def health(self) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{self.environ['ML_METRICS_PORT']}/health", timeout=5) as answer:
                return json.load(answer)
        except URLError as error:  # 503 until it is ready
            return {"ready": False, "why": str(error)}

    async def events(self, kind: str) -> list[Any]:
        """Every committed record of one of the stream's topics, as documents."""
        places = [TopicPartition(f"{self.stream}.{kind}", partition) for partition in range(4)]
        options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 20}
        async with AIOKafkaConsumer(bootstrap_servers=self.environ["ML_KAFKA_BOOTSTRAP"], **options) as consumer:
            topics = await consumer.topics()
            if places[0].topic not in topics:
                return []
            single = kind in ("audit", "deployments", "experiments", "performance", "samples", "updates", "variants")
            places = places[:1] if self.kind == "kafka" and single else places
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            found = []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += [json.loads(record.value) for record in records]
        return found

    async def send(self, topic: str, key: bytes | None, value: bytes, partition: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.environ["ML_KAFKA_BOOTSTRAP"]) as producer:
            await producer.send_and_wait(f"{self.stream}.{topic}", value, key, partition)

    def artifact(self, version: Mapping[str, Any]) -> Path:
        sha256: str = version["sha256"]
        return self.folder / "store" / sha256[:2] / sha256


def eventually(look: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Return what `look` sees as soon as it sees something."""
    give_up = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)
    return seen


def registered(penstock: Penstock, seed: int) -> Any:
    """Train a model that no other test has and register it; return what was recorded."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(60, 2)).astype(np.float32)
    rows = xgboost.DMatrix(matrix, label=(matrix[:, 0] > 0).astype(int))
    xgboost.train({"objective": "binary:logistic", "max_depth": 2}, rows, 2).save_model("model.ubj")
    ended = penstock("models", "register", "--file", "model.ubj", "--json")
    assert ended.code == 0, ended
    return ended.document
