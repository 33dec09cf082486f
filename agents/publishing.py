"""Publishing: a learner's snapshot becomes a version of its lineage, serves or is kept back, and is pruned in time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from agents.serving import find_version
from ml.learning.comparison import Standing
from ml.learning.online import Snapshot
from schemas.errors import RetryableError
from schemas.events import Command, Deployment, ModelUpdate, ModelVersion
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import encode
from stores.artifacts import ArtifactStore, Signer
from stream.batches import Outbox
from stream.views import LogView
from topics.specs import StreamTopics

log = logging.getLogger("penstock.learn")


def model_id_of(lineage: str, samples_offset: int) -> str:
    """Return the id of the snapshot that has learnt all samples before `samples_offset`."""
    return f"{lineage}@{samples_offset}"


def is_snapshot(lineage: str, model_id: str) -> bool:
    """Whether `model_id` is one that `model_id_of` gives for the lineage."""
    name, _, offset = model_id.rpartition("@")
    return name == lineage and offset.isdigit()


def routed(deployment: Deployment) -> tuple[str, ...]:
    """Return the ids of all models that the deployment names."""
    return (deployment.champion, *deployment.shadows)


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
        self._spec = spec
        self._lineage = lineage
        self._learner = learner
        self._models = models
        self._deployments = deployments
        self._store = store
        self._signer = signer
        self._clock_ms = clock_ms
        self._topics = StreamTopics(spec.name)

    async def starting_payload(self) -> bytes | None:
        """Return the bytes of the version that the lineage starts from, verified; None without one.

        Raises RetryableError while it is not registered, another PenstockError when it is not signed or damaged.
        """
        if self._learner.start_from is None:
            return None
        version = find_version(self._models, self._learner.start_from)
        if version is None:
            raise RetryableError(
                f"learner {self._lineage!r} of stream {self._spec.name!r} waits for model "
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
        version = self._describe(snapshot, await prepared.storing, metrics)
        outbox.add(self._topics.models, 0, self._key, encode(version))
        told = ModelUpdate(
            stream=self._spec.name,
            lineage=self._lineage,
            action="published",
            reason=f"{self._learner.publish_every} more samples were taken",
            samples=snapshot.learnt,
            first_offset=0,
            last_offset=snapshot.next_offset - 1,
            event_time_ms=prepared.event_time_ms,
            model_id=version.model_id,
            metrics=metrics,
        )
        if standing is not None and standing.own > standing.served + self._learner.publish_margin:
            told = msgspec.structs.replace(told, action="kept_back", reason=self._worse(standing))
            log.warning("stream %s: snapshot %s is kept back: %s", self._spec.name, version.model_id, told.reason)
        else:
            self._ask_to_serve(version, outbox)
        why = f"it never served, and {self._learner.keep_snapshots} newer snapshots did not either"
        pruned = await self._prune(outbox)
        return [told, *(msgspec.structs.replace(told, action="pruned", reason=why, model_id=gone) for gone in pruned)]

    def _worse(self, standing: Standing) -> str:
        return (
            f"over the newest {standing.samples} mature samples its Brier score {standing.own:.4f} is worse than "
            f"{standing.served:.4f} of the version in use by more than {self._learner.publish_margin}"
        )

    def _describe(self, snapshot: Snapshot, sha256: str, metrics: Mapping[str, float]) -> ModelVersion:
        earlier = self._versions()
        version = ModelVersion(
            model_id=model_id_of(self._lineage, snapshot.next_offset),
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
            parent=earlier[-1].model_id if earlier else self._learner.start_from,
            registered_by=self._name,
            lineage=self._lineage,
            samples_offset=snapshot.next_offset,
        )
        return msgspec.structs.replace(version, signature=self._signer.sign(version))

    def _ask_to_serve(self, version: ModelVersion, outbox: Outbox) -> None:
        """Ask control to put the version where its lineage is, or to make it the shadow that it is to begin as."""
        action: Literal["succeed", "shadow"]
        if self._is_routed():
            action = "succeed"
        elif self._learner.shadow and not self._was_ever_routed():
            action = "shadow"
        else:
            return
        command = Command(
            stream=self._spec.name,
            action=action,
            model_id=version.model_id,
            expected_revision=None,
            issued_by=self._name,
            issued_time_ms=self._clock_ms(),
            correlation_id=f"{version.model_id}-{action}",
        )
        outbox.add(self._topics.commands, 0, self._key, encode(command))

    def _is_routed(self) -> bool:
        """Whether a version of the lineage, or the one that it started from, is champion or shadow by now."""
        newest = self._deployments.events[-1:]
        return any(self._is_ours(model_id) for deployment in newest for model_id in routed(deployment))

    def _was_ever_routed(self) -> bool:
        """Whether one was at any time: then somebody has ended that."""
        return any(
            self._is_ours(model_id) for deployment in self._deployments.events for model_id in routed(deployment)
        )

    def _is_ours(self, model_id: str) -> bool:
        return model_id == self._learner.start_from or is_snapshot(self._lineage, model_id)

    async def _prune(self, outbox: Outbox) -> list[str]:
        """Delete snapshots that never served, but the newest `keep_snapshots` of them; return the ids of the deleted.

        A shadow does not serve, but stays while it is one. The registrations stay, marked as pruned.
        """
        history = self._deployments.events
        served = {deployment.champion for deployment in history} | {i for d in history[-1:] for i in d.shadows}
        spare = [version for version in self._versions() if version.model_id not in served]
        pruned = spare[: -self._learner.keep_snapshots]
        ids = {version.model_id for version in pruned}
        needed = {version.sha256 for version in self._alive() if version.model_id not in ids}
        for version in pruned:
            if version.sha256 not in needed:
                await asyncio.to_thread(self._store.remove, version.sha256)
            gone = msgspec.structs.replace(version, status="pruned")
            outbox.add(self._topics.models, 0, self._key, encode(gone))
        return [version.model_id for version in pruned]

    def _versions(self) -> list[ModelVersion]:
        """Return the lineage's versions that are not pruned, oldest first."""
        own = [version for version in self._alive() if version.lineage == self._lineage]
        return sorted(own, key=lambda version: version.samples_offset or 0)

    def _alive(self) -> list[ModelVersion]:
        newest = {version.model_id: version for version in self._models.events}
        return [version for version in newest.values() if version.status == "registered"]

    @property
    def _name(self) -> str:
        return f"learner {self._lineage}"

    @property
    def _key(self) -> bytes:
        return self._spec.name.encode()
