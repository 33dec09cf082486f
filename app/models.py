"""The registry of a stream, as the command line reads it and adds to it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.baselines import baseline_of
from agents.registry import Registry, next_version
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import AuditEvent, Deployment, ModelVersion
from schemas.experiments import Experiment
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactStore, Signer
from stream import admin
from stream.connection import KafkaConnection
from stream.views import LogView, ViewFollower
from topics import StreamTopics, topics_of


class RegistryView:
    """The models and deployments of one stream, as they were when it was read."""

    def __init__(self, spec: StreamSpec, models: LogView[ModelVersion], deployments: LogView[Deployment]) -> None:
        self.spec = spec
        self.deployments: Sequence[Deployment] = deployments.events
        self._records = models.events
        self._registry = Registry(models)

    @property
    def models(self) -> list[ModelVersion]:
        """Every version as it is now, in the order in which they were first registered."""
        return list(self._registry.versions.values())

    @property
    def newest(self) -> Deployment | None:
        """The deployment in force, if any."""
        return self.deployments[-1] if self.deployments else None

    @property
    def champion(self) -> str | None:
        """The id of the model that is routed to, if any."""
        return self.newest.champion if self.newest else None

    @property
    def shadows(self) -> tuple[str, ...]:
        """The ids of the models that score beside the champion."""
        return self.newest.shadows if self.newest else ()

    @property
    def previous(self) -> str:
        """The id of the model that a roll-back would bring back; empty when there is none."""
        return self.newest.previous if self.newest else ""

    @property
    def experiment(self) -> Experiment | None:
        """The experiment or rollout that runs, if any."""
        return self.newest.experiment if self.newest else None

    @property
    def variants(self) -> dict[str, str]:
        """The name of each variant of the experiment that runs, by its model's id; the champion is none of them."""
        return {v.model_id: v.name for v in self.experiment.variants[1:]} if self.experiment else {}

    @property
    def revision(self) -> int:
        """The newest deployment's revision; 0 before the first."""
        return self.newest.revision if self.newest else 0

    def find(self, model_id: str) -> ModelVersion:
        """Return the version with this id. Raises PenstockError when there is none."""
        version = self._registry.find(model_id)
        if version is None:
            raise PenstockError(f"stream {self.spec.name} has no model {model_id!r}; see `penstock models list`")
        return version

    def history_of(self, model_id: str) -> list[ModelVersion]:
        """Return the record that first gave a model each of its statuses, oldest first: its registration comes first.

        A record that came with no more changes than one before it changed something else.
        """
        found: list[ModelVersion] = []
        for record in self._records:
            if record.model_id == model_id and (not found or record.changes > found[-1].changes):
                found.append(record)
        return found

    def baseline_of(self, model_id: str) -> ModelVersion | None:
        """Return the version whose baseline counts for a model: itself, or an ancestor. None without one."""
        return baseline_of(self._registry.versions, model_id)


async def register(
    connection: KafkaConnection,
    spec: StreamSpec,
    store: ArtifactStore,
    signer: Signer,
    version: ModelVersion,
    payload: bytes,
) -> ModelVersion:
    """Store the bytes, sign the version, append it to `<s>.models` and tell `<s>.audit`; return it as written.

    A version without a number gets the next one. Raises PenstockError when another model has the number that it has, or
    it is none that could be read back.
    """
    registry = await read_registry(connection, spec)
    numbered = msgspec.structs.replace(version, version=_number_of(version, registry.models))
    try:
        decode(ModelVersion, encode(numbered))
    except InvalidEvent as error:
        raise PenstockError(f"this cannot be recorded of a model: {error}") from error
    await asyncio.to_thread(store.put, payload)
    signed = msgspec.structs.replace(numbered, signature=signer.sign(numbered))
    await record(connection, signed)
    await _audit(connection, signed, registry.revision)
    return signed


def _number_of(version: ModelVersion, known: Sequence[ModelVersion]) -> str:
    """Return the semantic version that `version` gives itself, else the next one after the `known`."""
    others = [other for other in known if other.version == version.version and other.model_id != version.model_id]
    if version.version and others:
        raise PenstockError(
            f"version {version.version} of stream {version.stream} is model {others[0].model_id} already; "
            "leave --version out to have the next one"
        )
    return version.version or next_version(known, version)


async def record(connection: KafkaConnection, version: ModelVersion) -> None:
    """Append a version to `<s>.models`; of an earlier record of the same id only a newer status counts any more."""
    async with producer(connection) as sending:
        topic = StreamTopics(version.stream).models
        await sending.send_and_wait(topic, encode(version), key=version.stream.encode(), partition=0)


async def _audit(connection: KafkaConnection, version: ModelVersion, revision: int) -> None:
    """Append to `<s>.audit` that `version` was registered."""
    event = AuditEvent(
        stream=version.stream,
        correlation_id=secrets.token_hex(16),
        action="register",
        issued_by=version.registered_by,
        outcome="done",
        reason=f"model {version.model_id} is registered as version {version.version}",
        model_id=version.model_id,
        revision=revision,
        decided_time_ms=version.created_time_ms,
    )
    async with producer(connection) as sending:
        topic = StreamTopics(version.stream).audit
        await sending.send_and_wait(topic, encode(event), key=version.stream.encode(), partition=0)


async def require_topics(connection: KafkaConnection, spec: StreamSpec) -> None:
    """Raise SettingsError when a topic of the stream is missing: clients would wait long for it.

    Other differences do not stop a command, which may be a roll-back in an incident.
    """
    await admin.require(connection, [topic.name for topic in topics_of(spec)])


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
async def producer(connection: KafkaConnection) -> AsyncIterator[AIOKafkaProducer]:
    """A producer without transactions that writes each record once; it waits for all replicas."""
    sending = AIOKafkaProducer(enable_idempotence=True, acks="all", **connection.client_options())
    await sending.start()
    try:
        yield sending
    finally:
        await sending.stop()
