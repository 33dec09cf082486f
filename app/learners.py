"""What people ask of the learners: which there are, how far they are, and to learn now."""

import secrets
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from agents.samplelog import TRIGGER_KEY
from app.models import read_registry
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Trigger
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.connection import KafkaConnection
from topics import StreamTopics


@dataclass(frozen=True, slots=True)
class LearnerStanding:
    """A declared learner, its newest version (None before the first), and how that is used."""

    lineage: str
    algorithm: str
    versions: int
    newest: ModelVersion | None
    routed: str


async def read_learners(connection: KafkaConnection, spec: StreamSpec) -> list[LearnerStanding]:
    """Return the declared learners of `spec`, in the order of their declaration."""
    registry = await read_registry(connection, spec)
    newest = registry.deployments[-1] if registry.deployments else None
    found = []
    for lineage, learner in spec.learners.items():
        versions = {version.model_id: version for version in registry.models if version.lineage == lineage}
        champion = newest is not None and newest.champion in versions
        shadow = newest is not None and not versions.keys().isdisjoint(newest.shadows)
        found.append(
            LearnerStanding(
                lineage=lineage,
                algorithm=learner.algorithm,
                versions=len(versions),
                newest=max(versions.values(), key=lambda version: version.samples_offset or 0, default=None),
                routed="champion" if champion else "shadow" if shadow else "",
            )
        )
    return found


async def trigger_update(
    connection: KafkaConnection, spec: StreamSpec, lineage: str, issued_by: str, now_ms: int
) -> int:
    """Write into the log of samples that the learner is to learn what waits; return the record's offset.

    Raises PenstockError when no learner is called so.
    """
    if lineage not in spec.learners:
        declared = ", ".join(spec.learners) or "none"
        raise PenstockError(f"stream {spec.name!r} declares no learner {lineage!r}; declared: {declared}")
    trigger = Trigger(
        stream=spec.name,
        lineage=lineage,
        issued_by=issued_by,
        issued_time_ms=now_ms,
        correlation_id=secrets.token_hex(16),
    )
    async with AIOKafkaProducer(enable_idempotence=True, acks="all", **connection.client_options()) as producer:
        topic = StreamTopics(spec.name).samples
        sent = await producer.send_and_wait(topic, encode(trigger), key=TRIGGER_KEY, partition=0)
    offset: int = sent.offset
    return offset
