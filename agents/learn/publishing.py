"""Publishing: a learner's snapshot becomes a version of its lineage, serves or is kept back, and is pruned in time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from agents.learn.lineage import Lineage, model_id_of, sender_of
from agents.registry import next_version
from ml.learning.comparison import Standing
from ml.learning.online import Snapshot
from schemas.errors import RetryableError
from schemas.events import AuditEvent, Command, Deployment, ModelUpdate, ModelVersion
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import encode
from stores.artifacts import ArtifactStore, Signer
from stream.batches import Outbox
from stream.views import LogView
from topics.specs import StreamTopics

log = logging.getLogger("penstock.learn")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A snapshot that is on its way into the store; `storing` gives its SHA-256."""

    snapshot: Snapshot
    standing: Standing | None
    event_time_ms: int
    storing: asyncio.Future[str]


class Publisher:
    """Registers the snapshots of one lineage. What it writes goes out with the learner's own commit.

    An id follows from lineage and offset, so that a snapshot that is made again after a crash is the same version.
    """

    def __init__(
        self,
        spec: StreamSpec,
        lineage: str,
        learner: LearnerSpec,
        models: LogView[ModelVersion],
        deployments: LogView[Deployment],
        store: ArtifactStore,
        signer: Signer,
        clock_ms: Callable[[], int],
    ) -> None:
        founders = {learner.start_from for learner in spec.learners.values() if learner.start_from}
        self._spec = spec
        self._name = lineage
        self._learner = learner
        self._lineage = Lineage(lineage, learner.start_from, founders, models, deployments)
        self._store = store
        self._signer = signer
        self._clock_ms = clock_ms
        self._topics = StreamTopics(spec.name)

    def reset(self) -> None:
        """Forget what was published and perhaps not committed."""
        self._lineage.reset()

    async def starting_payload(self) -> bytes | None:
        """Return the bytes of the version that the lineage starts from, verified; None without one.

        Raises RetryableError while it is not registered, another PenstockError when it is not signed or damaged.
        """
        if self._learner.start_from is None:
            return None
        version = self._lineage.find(self._learner.start_from)
        if version is None:
            raise RetryableError(
                f"learner {self._name!r} of stream {self._spec.name!r} waits for model "
                f"{self._learner.start_from!r}, which it is to start from: register it"
            )
        self._signer.verify(version)
        return await asyncio.to_thread(self._store.get, version.sha256, version.size_bytes)

    def prepare(self, snapshot: Snapshot, standing: Standing | None, event_time_ms: int) -> Prepared:
        """Begin to store a snapshot, taken after an event of that time."""
        storing = asyncio.ensure_future(asyncio.to_thread(self._store.put, snapshot.payload))
        return Prepared(snapshot, standing, event_time_ms, storing)

    async def publish(self, prepared: Prepared, outbox: Outbox) -> list[ModelUpdate]:
        """Register a snapshot, ask for it to serve unless it became worse, prune what has no use any more.

        Returns what is to be told of it.
        """
        snapshot, standing = prepared.snapshot, prepared.standing
        metrics = {} if standing is None else {"brier": standing.own, "brier_in_use": standing.served}
        worse = standing is not None and standing.own > standing.served + self._learner.publish_margin
        version = self._describe(snapshot, await prepared.storing, metrics)
        if standing is not None and worse:
            version = self._archived(version, self._worse(standing))
        self._write(version, outbox)
        self._audit(version, outbox)
        told = ModelUpdate(
            stream=self._spec.name,
            lineage=self._name,
            action="published",
            reason=f"{self._learner.publish_every} more samples were taken",
            samples=snapshot.learnt,
            first_offset=0,
            last_offset=snapshot.next_offset - 1,
            event_time_ms=prepared.event_time_ms,
            model_id=version.model_id,
            metrics=metrics,
        )
        if worse:
            told = msgspec.structs.replace(told, action="kept_back", reason=version.reason)
            log.warning("stream %s: snapshot %s is kept back: %s", self._spec.name, version.model_id, told.reason)
        else:
            self._ask_to_serve(version, outbox)
        why = f"it never served, and {self._learner.keep_snapshots} newer snapshots did not either"
        pruned = await self._prune(why, outbox)
        return [told, *(msgspec.structs.replace(told, action="pruned", reason=why, model_id=gone) for gone in pruned)]

    def _worse(self, standing: Standing) -> str:
        return (
            f"over the newest {standing.samples} mature samples its Brier score {standing.own:.4f} is worse than "
            f"{standing.served:.4f} of the version in use by more than {self._learner.publish_margin}"
        )

    def _describe(self, snapshot: Snapshot, sha256: str, metrics: Mapping[str, float]) -> ModelVersion:
        version = ModelVersion(
            model_id=model_id_of(self._name, snapshot.next_offset),
            stream=self._spec.name,
            algorithm=self._learner.algorithm,
            task=self._spec.task,
            created_time_ms=self._clock_ms(),
            sha256=sha256,
            signature="",
            size_bytes=len(snapshot.payload),
            memory_bytes=snapshot.memory_bytes,
            features=self._spec.features,
            classes=self._spec.classes,
            metrics=dict(metrics),
            parameters=dict(self._learner.parameters),
            parent=self._lineage.newest,
            registered_by=sender_of(self._name),
            lineage=self._name,
            samples_offset=snapshot.next_offset,
            training_from_offset=0,  # a learner begins with the first sample that there is
            training_to_offset=snapshot.next_offset,
        )
        number = next_version(self._lineage.versions, version)
        return msgspec.structs.replace(version, version=number, signature=self._signer.sign(version))

    def _archived(self, version: ModelVersion, reason: str, *, pruned: bool = False) -> ModelVersion:
        """Return the version put away. It counts as no change, so that whatever control decides of it weighs more."""
        return msgspec.structs.replace(
            version,
            status="archived",
            changed_by=sender_of(self._name),
            changed_time_ms=self._clock_ms(),
            reason=reason,
            pruned=pruned,
        )

    def _audit(self, version: ModelVersion, outbox: Outbox) -> None:
        """Say in the audit log that the version was registered."""
        event = AuditEvent(
            stream=self._spec.name,
            correlation_id=version.model_id,
            action="register",
            issued_by=version.registered_by,
            outcome="done",
            reason=version.reason or f"version {version.version}: a snapshot of learner {self._name}",
            model_id=version.model_id,
            revision=self._lineage.revision,
            decided_time_ms=self._clock_ms(),
        )
        outbox.add(self._topics.audit, 0, self._key, encode(event))

    def _ask_to_serve(self, version: ModelVersion, outbox: Outbox) -> None:
        """Ask control to put the version where its lineage is, or to make it the shadow that it is to begin as."""
        action: Literal["succeed", "shadow"]
        if self._lineage.is_routed:
            action = "succeed"
        elif self._learner.shadow and not self._lineage.was_routed:
            action = "shadow"
        else:
            return
        command = Command(
            stream=self._spec.name,
            action=action,
            model_id=version.model_id,
            expected_revision=None,
            issued_by=sender_of(self._name),
            issued_time_ms=self._clock_ms(),
            correlation_id=f"{version.model_id}-{action}",
        )
        outbox.add(self._topics.commands, 0, self._key, encode(command))

    async def _prune(self, why: str, outbox: Outbox) -> list[str]:
        """Mark the snapshots that have no use any more; return their ids. The next time their files are deleted."""
        for version in self._lineage.to_remove():
            await asyncio.to_thread(self._store.remove, version.sha256)
        pruned = self._lineage.to_prune(self._learner.keep_snapshots)
        for version in pruned:
            self._write(self._archived(version, why, pruned=True), outbox)
        return [version.model_id for version in pruned]

    def _write(self, version: ModelVersion, outbox: Outbox) -> None:
        self._lineage.note(version)
        outbox.add(self._topics.models, 0, self._key, encode(version))

    @property
    def _key(self) -> bytes:
        return self._spec.name.encode()
