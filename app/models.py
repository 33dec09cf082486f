"""Registering models and routing to them: what `penstock models` does, as functions."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.baselines import baseline_of
from agents.shelf import require_match
from ml.errors import ModelError
from ml.models.registry import model_type
from schemas.errors import PenstockError, SettingsError
from schemas.events import AuditEvent, Command, Deployment, ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactStore, Signer
from stream import admin
from stream.connection import KafkaConnection
from stream.views import LogView, ViewFollower
from topics import StreamTopics, topics_of

Action = Literal["promote", "shadow", "unshadow"]
Parameters = Mapping[str, str | int | float | bool | None]


class RegistryView:
    """The models and deployments of one stream, as they were when it was read."""

    def __init__(self, spec: StreamSpec, models: LogView[ModelVersion], deployments: LogView[Deployment]) -> None:
        self.spec = spec
        self.deployments = deployments.events
        self._models = {version.model_id: version for version in models.events}

    @property
    def models(self) -> list[ModelVersion]:
        """The newest record of every model, in the order in which they were first registered."""
        return list(self._models.values())

    @property
    def champion(self) -> str | None:
        """The id of the model that is routed to, if any."""
        return self.deployments[-1].champion if self.deployments else None

    @property
    def shadows(self) -> tuple[str, ...]:
        """The ids of the models that score beside the champion."""
        return self.deployments[-1].shadows if self.deployments else ()

    @property
    def revision(self) -> int:
        """The newest deployment's revision; 0 before the first."""
        return self.deployments[-1].revision if self.deployments else 0

    def find(self, model_id: str) -> ModelVersion:
        """Return the version with this id. Raises PenstockError when there is none."""
        version = self._models.get(model_id)
        if version is None:
            raise PenstockError(f"stream {self.spec.name} has no model {model_id!r}; see `penstock models list`")
        return version

    def baseline_of(self, model_id: str) -> ModelVersion | None:
        """Return the version whose baseline counts for a model: itself, or an ancestor. None without one."""
        return baseline_of(self._models, model_id)


def describe_model(
    spec: StreamSpec,
    payload: bytes,
    algorithm: str,
    registered_by: str,
    now_ms: int,
    metrics: Mapping[str, float] | None = None,
    parameters: Parameters | None = None,
) -> ModelVersion:
    """Return the unsigned version of `payload`, which must be a model of `algorithm` that fits the stream.

    Opens the model to find out: only for bytes that the caller trusts. Raises PenstockError with a sentence.
    """
    try:
        model = model_type(algorithm).load(payload)
    except ModelError as error:
        raise PenstockError(f"this is not a model that can be registered: {error}") from error
    if (model.n_features, model.classes) != (len(spec.features), len(spec.classes) or 1):
        raise PenstockError(
            f"the model takes {model.n_features} features and gives {model.classes} scores; stream {spec.name} "
            f"declares {len(spec.features)} features and {len(spec.classes)} classes"
        )
    names = tuple(getattr(model, "feature_names", None) or spec.features)
    if names != spec.features:
        raise PenstockError(
            f"the model was trained on the columns {', '.join(names)}; stream {spec.name} declares "
            f"{', '.join(spec.features)}: the order matters"
        )
    sha256 = hashlib.sha256(payload).hexdigest()
    created = datetime.fromtimestamp(now_ms / 1000, UTC)
    return ModelVersion(
        model_id=f"{spec.name}-{created:%Y%m%dT%H%M%S}-{sha256[:8]}",
        stream=spec.name,
        algorithm=algorithm,
        task=spec.task,
        created_time_ms=now_ms,
        sha256=sha256,
        signature="",
        size_bytes=len(payload),
        memory_bytes=model.memory_bytes,
        features=spec.features,
        classes=spec.classes,
        metrics=dict(metrics or {}),
        parameters=dict(parameters or {}),
        registered_by=registered_by,
    )


async def register(
    connection: KafkaConnection,
    spec: StreamSpec,
    store: ArtifactStore,
    signer: Signer,
    version: ModelVersion,
    payload: bytes,
) -> ModelVersion:
    """Store the bytes, sign the version and append it to `<s>.models`; return it as written."""
    await require_topics(connection, spec)
    await asyncio.to_thread(store.put, payload)
    signed = msgspec.structs.replace(version, signature=signer.sign(version))
    await record(connection, signed)
    return signed


async def record(connection: KafkaConnection, version: ModelVersion) -> None:
    """Append a version to `<s>.models`; an earlier record of the same id counts no more."""
    async with _producer(connection) as producer:
        topic = StreamTopics(version.stream).models
        await producer.send_and_wait(topic, encode(version), key=version.stream.encode(), partition=0)


async def require_topics(connection: KafkaConnection, spec: StreamSpec) -> None:
    """Raise SettingsError when a topic of the stream is missing: clients would wait long for it.

    Other differences do not stop a command, which may be a roll-back in an incident.
    """
    problems = await admin.check(connection, topics_of(spec))
    if missing := [problem for problem in problems if "does not exist" in problem]:
        raise SettingsError("\n".join(missing))


async def read_registry(connection: KafkaConnection, spec: StreamSpec) -> RegistryView:
    """Read the stream's models and deployments to the end of their logs."""
    await require_topics(connection, spec)
    models = LogView(StreamTopics(spec.name).models, ModelVersion)
    deployments = LogView(StreamTopics(spec.name).deployments, Deployment)
    views: ViewFollower = ViewFollower(log_reader(connection), [models, deployments])  # type: ignore[list-item]
    try:
        await views.start()
    finally:
        await views.stop()
    return RegistryView(spec, models, deployments)


async def ask_control(
    connection: KafkaConnection,
    spec: StreamSpec,
    action: Action,
    model_id: str,
    issued_by: str,
    now_ms: int,
    expected_revision: int | None = None,
    timeout_s: float = 30.0,
) -> AuditEvent:
    """Ask control to promote, shadow or unshadow `model_id` and return its answer.

    `expected_revision` defaults to the newest one. Raises PenstockError when no answer comes in time: then no
    worker with the role `learn` runs, and the command waits for one.
    """
    registry = await read_registry(connection, spec)
    version = registry.find(model_id)
    if action != "unshadow":  # that must work whatever became of the model
        require_match(spec, version)
    command = Command(
        stream=spec.name,
        action=action,
        model_id=model_id,
        expected_revision=registry.revision if expected_revision is None else expected_revision,
        issued_by=issued_by,
        issued_time_ms=now_ms,
        correlation_id=secrets.token_hex(16),
    )
    return await send_command(connection, command, timeout_s)


async def send_command(connection: KafkaConnection, command: Command, timeout_s: float) -> AuditEvent:
    """Send a command and return the audit event that answers it. Raises PenstockError when none comes in time."""
    topics = StreamTopics(command.stream)
    audit = TopicPartition(topics.audit, 0)
    reader = log_reader(connection)
    await reader.start()
    try:
        reader.assign([audit])
        await reader.seek_to_end(audit)  # before the command is sent, so that its answer comes after
        await reader.position(audit)
        async with _producer(connection) as producer:
            await producer.send_and_wait(topics.commands, encode(command), key=command.stream.encode(), partition=0)
        async with asyncio.timeout(timeout_s):
            return await _answer(reader, command.correlation_id)
    except TimeoutError as error:
        raise PenstockError(
            f"control did not answer within {timeout_s:.0f} s: is a worker with the role learn running? "
            "The command stays in its topic and is carried out when one starts."
        ) from error
    finally:
        await reader.stop()


async def _answer(reader: AIOKafkaConsumer, correlation_id: str) -> AuditEvent:
    while True:
        record: Any = await reader.getone()
        event = decode(AuditEvent, record.value)
        if event.correlation_id == correlation_id:
            return event


def log_reader(connection: KafkaConnection) -> AIOKafkaConsumer:
    """Return a consumer without a group, not started yet, that sees what is committed."""
    return AIOKafkaConsumer(
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",  # an answer that is not committed yet may still be taken back
        fetch_max_wait_ms=50,
        **connection.client_options(),
    )


@asynccontextmanager
async def _producer(connection: KafkaConnection) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(enable_idempotence=True, acks="all", **connection.client_options())
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()
