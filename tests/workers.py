"""A deployment for tests: streams with topics and models on a broker, workers in this process, and plain clients."""

import asyncio
import gc
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xgboost
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from numpy.typing import NDArray

from agents.registering import describe_model
from app.clock import now_ms
from app.commands import ask_control
from app.models import register
from app.registry import artifact_store, signer
from app.roles import ROLES, RoleName
from app.settings import Settings, load_settings
from app.worker import Worker
from schemas.events import AuditEvent, Command, DeadLetter, ModelVersion, Prediction
from schemas.wire import decode
from stream import admin
from stream.batches import TopicPartition
from stream.partitioner import partitions_of
from tests.conftest import Broker
from topics import StreamTopics, topics_of

PARTITIONS = 4
FEATURES = ("a", "b", "c")
PATIENCE_S = 30.0


class Sent(NamedTuple):
    """A record for `<s>.features`."""

    partition: int
    key: bytes | None
    value: bytes | None


class Deployment:
    """Binary streams (and multiclass ones, by their classes) on one broker, apart from all others by `name`.

    `tables` are more lines for penstock.toml.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        folder: Path,
        environ: dict[str, str],
        tables: str = "",
        **classes: list[str],
    ) -> None:
        self.environ = {
            "ML_KAFKA_BOOTSTRAP": broker.bootstrap,
            "ML_KAFKA_GROUP_PREFIX": name,
            "ML_METRICS_PORT": "0",
            "ML_PAGE_PORT": "0",
            "ML_MODEL_STORAGE_DIR": str(folder / "artifacts"),
            "ML_MODEL_SIGNING_KEY": "a key for tests",
            "ML_KAFKA_SESSION_TIMEOUT_MS": "6000",
        } | environ
        self.config = folder / "penstock.toml"
        self.config.write_text("\n".join(_table(stream, labels) for stream, labels in classes.items()) + tables)
        self.settings: Settings = load_settings(self.environ, self.config)
        self.connection = self.settings.kafka_connection()
        self.streams = {spec.name: spec for spec in self.settings.streams}
        self.topics = [topic for spec in self.settings.streams for topic in topics_of(spec)]

    async def prepare(self, **boosters: xgboost.Booster) -> dict[str, ModelVersion]:
        """Make the topics; register a model for each stream and promote it. A worker must be running by the end."""
        await admin.apply(self.connection, self.topics)
        return {stream: await self.register(stream, booster) for stream, booster in boosters.items()}

    async def register(self, stream: str, booster: xgboost.Booster) -> ModelVersion:
        """Store, sign and register a model for `stream`."""
        spec, payload = self.streams[stream], bytes(booster.save_raw("ubj"))
        version = describe_model(spec, payload, "xgboost", "tests", now_ms())
        store = artifact_store(self.settings)
        return await register(self.connection, spec, store, signer(self.settings), version, payload)

    async def promote(self, version: ModelVersion) -> AuditEvent:
        command = Command(
            stream=version.stream,
            action="promote",
            model_id=version.model_id,
            issued_by="tests",
            issued_time_ms=now_ms(),
            correlation_id=secrets.token_hex(16),
        )
        return await ask_control(self.connection, self.streams[version.stream], command)

    @asynccontextmanager
    async def worker(self, roles: Iterable[RoleName] = ROLES, **settings: Any) -> AsyncIterator["Running"]:
        """A worker in this process, with some settings changed. It is ended, and must not have failed unnoticed."""
        running = Running(Worker(replace(self.settings, **settings), self.connection, roles))
        try:
            yield running
        finally:
            await running.end()

    async def send(self, stream: str, records: Iterable[Sent], topic: str = "features") -> None:
        """Write records as a foreign producer would, and wait until the broker has them all."""
        async with self.producer(stream, topic) as send:
            await send(records)

    @asynccontextmanager
    async def producer(
        self, stream: str, topic: str = "features"
    ) -> AsyncIterator[Callable[[Iterable[Sent]], Awaitable[None]]]:
        """What `send` does, many times. It writes each record once, through restarts of the broker too."""
        topic = f"{stream}.{topic}"
        bootstrap = self.connection.bootstrap
        client = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=5 * 2**20)

        async def send(records: Iterable[Sent]) -> None:
            sent = [await client.send(topic, r.value, key=r.key, partition=r.partition) for r in records]
            await asyncio.wait_for(asyncio.gather(*sent), PATIENCE_S)

        async with client:
            yield send

    async def outputs(self, stream: str, count: int) -> tuple[list[Prediction], list[DeadLetter]]:
        """Return all committed predictions and dead letters once there are `count`; fail if there are not in time."""
        topics = StreamTopics(stream)
        found: dict[str, list[Any]] = {topics.predictions: [], topics.features_dead: []}
        types: dict[str, type[Prediction | DeadLetter]] = {
            topics.predictions: Prediction,
            topics.features_dead: DeadLetter,
        }
        async with self.reader(*found) as reader:
            async with asyncio.timeout(PATIENCE_S):
                while sum(map(len, found.values())) < count:
                    for tp, records in (await reader.getmany(timeout_ms=100)).items():
                        found[tp.topic] += [_checked(types[tp.topic], record) for record in records]
            for tp, records in (await reader.getmany(timeout_ms=300)).items():  # what should not be there
                found[tp.topic] += [_checked(types[tp.topic], record) for record in records]
        return found[topics.predictions], found[topics.features_dead]

    async def records(self, topic: str, count: int) -> list[Any]:
        """Return all committed records of a topic once there are `count`; fail if there are not in time, or more."""
        found: list[Any] = []
        async with self.reader(topic) as reader, asyncio.timeout(PATIENCE_S):
            while len(found) < count or (more := await reader.getmany(timeout_ms=300)):
                more = more if len(found) >= count else await reader.getmany(timeout_ms=100)
                found += [record for records in more.values() for record in records]
        assert len(found) == count
        return found

    @asynccontextmanager
    async def reader(self, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A client of a consumer's own that reads what is committed, from the start."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.connection.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
        )
        async with consumer:
            yield consumer

    async def uncommitted(self, stream: str) -> int:
        """Return how many feature records the group has not committed."""
        partitions = [TopicPartition(StreamTopics(stream).features, number) for number in range(PARTITIONS)]
        group = f"{self.settings.kafka_group_prefix}-score"
        options = {"bootstrap_servers": self.connection.bootstrap, "enable_auto_commit": False}
        async with AIOKafkaConsumer(group_id=group, **options) as consumer:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            return sum([ends[tp] - (await consumer.committed(tp) or 0) for tp in partitions])


class Running:
    """A worker at work."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._running = asyncio.create_task(worker.run())
        self._noticed = False

    async def ready(self) -> None:
        """Wait until every partition is owned and every stream has a champion."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.worker.health()["ready"]:
                await asyncio.wait({self._running}, timeout=0.02)
                assert not self._running.done(), self._running

    async def failure(self) -> BaseException:
        """Wait until the worker fails, and return with what."""
        self._noticed = True
        await asyncio.wait({self._running}, timeout=PATIENCE_S)
        assert self._running.done(), "the worker still runs"
        error = self._running.exception()
        assert error is not None, "the worker ended without an error"
        return error

    async def end(self) -> None:
        """Do as SIGTERM does, and wait for the end."""
        self.worker.end()
        await asyncio.wait({self._running}, timeout=PATIENCE_S)
        assert self._running.done(), "the worker does not end"
        gc.collect()  # what aiokafka left complains now, and not in the middle of something else
        if not self._noticed:
            self._running.result()


@contextmanager
def process(
    deployment: Deployment, role: RoleName = "score", program: str = "from app.cli import main; main()"
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with one role in a process of its own."""
    command = [sys.executable, "-c", program, "--config", str(deployment.config)]
    worker = subprocess.Popen(
        [*command, "worker", "--role", role], env=os.environ | deployment.environ, stderr=subprocess.DEVNULL
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait(PATIENCE_S)


def _table(stream: str, classes: list[str]) -> str:
    kind = f'task = "multiclass"\nclasses = {json.dumps(classes)}\n' if classes else ""
    return f"[streams.{stream}]\nfeatures = {json.dumps(FEATURES)}\npartitions = {PARTITIONS}\n{kind}"


def _checked(kind: type[Prediction | DeadLetter], record: Any) -> Prediction | DeadLetter:
    """Decode an output, which must lie on the partition of what it was made of, under the same key."""
    event = decode(kind, record.value)
    assert event.partition == record.partition
    if isinstance(event, Prediction):
        assert event.entity_id.encode() == record.key
    return event


async def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110  # nobody tells when it does
            await asyncio.sleep(0.02)


def train(seed: int, classes: int = 1) -> xgboost.Booster:
    """Return a small model of FEATURES; other seeds give other scores."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(400, len(FEATURES))).astype(np.float32)
    labels = np.digitize(values[:, 0] + values[:, 1], [0.0] if classes == 1 else [-0.5, 0.5])
    objective = (
        {"objective": "binary:logistic"} if classes == 1 else {"objective": "multi:softprob", "num_class": classes}
    )
    return xgboost.train(objective | {"nthread": 1, "max_depth": 4}, xgboost.DMatrix(values, label=labels), 8)


def draw(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Return feature values, shape (count, 3), some of them missing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, len(FEATURES))).round(5)
    values[random.random(values.shape) < 0.1] = np.nan
    return values


def direct(booster: xgboost.Booster, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the scores of `values` as XGBoost itself gives them."""
    scores: NDArray[np.float32] = booster.inplace_predict(values.astype(np.float32), missing=np.nan)
    return scores


def document(number: int, row: Sequence[float], **changes: Any) -> dict[str, Any]:
    """Return event `number`, of one of 50 entities."""
    features = {name: None if np.isnan(value) else float(value) for name, value in zip(FEATURES, row, strict=True)}
    whole = {"event_id": f"e{number}", "entity_id": f"N{number % 50}", "event_time_ms": number, "features": features}
    return whole | changes


def placed(document: Mapping[str, Any]) -> Sent:
    """Return the record of an event as a proper producer sends it."""
    key = str(document["entity_id"]).encode()
    return Sent(home_of(key), key, json.dumps(document).encode())


def home_of(key: bytes) -> int:
    return int(partitions_of([key], PARTITIONS)[0])


def events(values: NDArray[np.float64], first: int = 0) -> Iterator[Sent]:
    """Return one record per row, numbered from `first`."""
    return (placed(document(number, row)) for number, row in zip(itertools.count(first), values.tolist(), strict=False))
