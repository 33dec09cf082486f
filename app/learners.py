"""What people ask of the learners: which there are, how far they are, and to learn now."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from agents.samplelog import TRIGGER_KEY
from app.models import RegistryView, read_registry, require_topics
from app.partitions import lag_of
from app.roles import learner_group
from app.settings import Settings
from app.stages import learner_of
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Trigger
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import encode
from stream.connection import KafkaConnection
from topics import StreamTopics


@dataclass(frozen=True, slots=True)
class LearnerStanding:
    """A declared learner, its newest version (None before the first), how that is used, and what is not learnt yet.

    `behind` is how many records of the samples log it has not taken, at most: some may be transactions' ends.
    """

    lineage: str
    learner: LearnerSpec
    newest: ModelVersion | None
    routed: str
    behind: int


async def read_learners(connection: KafkaConnection, settings: Settings, spec: StreamSpec) -> list[LearnerStanding]:
    """Return the declared learners of `spec`, in the order of their declaration."""
    registry = await read_registry(connection, spec)
    found = []
    for lineage, declared in spec.learners.items():
        versions = [version for version in registry.models if version.lineage == lineage]
        group = f"{settings.kafka_group_prefix}-{learner_group(lineage)}"
        behind, _ = await lag_of(connection, group, StreamTopics(spec.name).samples)
        found.append(
            LearnerStanding(
                lineage=lineage,
                learner=learner_of(settings, declared),
                newest=max(versions, key=lambda version: version.samples_offset or 0, default=None),
                routed=_routed(registry, (version.model_id for version in versions)),
                behind=behind,
            )
        )
    return found


def _routed(registry: RegistryView, model_ids: Iterable[str]) -> str:
    own = set(model_ids)
    if registry.champion in own:
        return "champion"
    if not own.isdisjoint(registry.variants):
        return "variant"
    return "" if own.isdisjoint(registry.shadows) else "shadow"


async def trigger_update(
    connection: KafkaConnection, settings: Settings, spec: StreamSpec, lineage: str, issued_by: str, now_ms: int
) -> int:
    """Write into the log of samples that the learner is to learn what waits; return the record's offset.

    Raises PenstockError when no learner is called so, or nothing ever waits in it.
    """
    await require_topics(connection, spec)
    if lineage not in spec.learners:
        declared = ", ".join(spec.learners) or "none"
        raise PenstockError(f"stream {spec.name!r} declares no learner {lineage!r}; declared: {declared}")
    if learner_of(settings, spec.learners[lineage]).strategy == "incremental":
        raise PenstockError(f"learner {lineage!r} is incremental: it learns each sample at once, so nothing waits")
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
