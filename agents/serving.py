"""What serves a stream right now: follows models and deployments, loads in the background, swaps between batches."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from agents.shelf import ModelShelf
from ml.models.protocol import Model
from schemas.errors import PenstockError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.streams import StreamSpec
from stream import metrics as m
from stream.metrics import Metrics
from stream.views import LogView

log = logging.getLogger("penstock.serving")

RETRY_S = 30.0  # a model that could not be loaded is tried again: its store may have been away


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded champion and the deployment that named it. One batch is scored by one of these."""

    model: Model
    version: ModelVersion
    deployment: Deployment


class Serving:
    """Keeps `current` at the newest deployment whose champion can be loaded; the previous one stays until then."""

    def __init__(
        self,
        spec: StreamSpec,
        models: LogView[ModelVersion],
        deployments: LogView[Deployment],
        caught_up: Callable[[], Awaitable[None]],
        shelf: ModelShelf,
        metrics: Metrics,
        raise_alert: Callable[[Alert], Awaitable[None]],
        clock_ms: Callable[[], int],
    ) -> None:
        self.spec = spec
        self.current: Served | None = None
        self._models = models
        self._deployments = deployments
        self._caught_up = caught_up
        self._shelf = shelf
        self._metrics = metrics
        self._raise_alert = raise_alert
        self._clock_ms = clock_ms
        self._news = asyncio.Event()
        self._loaded = asyncio.Event()
        self._alerted: set[tuple[int, str]] = set()
        deployments.listen(self._news.set)

    async def ready(self) -> Served:
        """Wait until a champion is loaded and return it."""
        if not self._loaded.is_set():
            log.info("stream %s waits for a champion: register and promote a model", self.spec.name)
        await self._loaded.wait()
        assert self.current is not None
        return self.current

    async def follow(self) -> None:
        """Bring `current` up to date for ever; cancel to stop."""
        while True:
            self._news.clear()
            newest = await self._bring_up_to_date()
            try:
                async with asyncio.timeout(None if newest else RETRY_S):
                    await self._news.wait()
            except TimeoutError:
                pass  # the newest could not be loaded: try again

    async def _bring_up_to_date(self) -> bool:
        """Serve the newest deployment that can be loaded; return whether that is the newest of all."""
        for deployment in reversed(self._deployments.events):
            if self.current is not None and deployment.revision <= self.current.deployment.revision:
                return deployment is self._deployments.events[-1]
            try:
                self._swap(await self._load(deployment))
            except (PenstockError, KafkaError) as error:
                await self._report(deployment, error)
            else:
                return deployment is self._deployments.events[-1]
        return not self._deployments.events

    async def _load(self, deployment: Deployment) -> Served:
        version = find_version(self._models, deployment.champion)
        if version is None:  # the two logs are followed side by side; a deployment can be seen first
            await self._caught_up()
            version = find_version(self._models, deployment.champion)
        if version is None:
            raise PenstockError(f"model {deployment.champion} is not in {self._models.topic}")
        return Served(await self._shelf.get(self.spec, version), version, deployment)

    def _swap(self, served: Served) -> None:
        self.current = served
        self._loaded.set()
        self._shelf.route(served.version)
        version, revision = served.version, served.deployment.revision
        log.info("stream %s: model %s serves (revision %d)", self.spec.name, version.model_id, revision)

    async def _report(self, deployment: Deployment, error: Exception) -> None:
        self._metrics.count(m.MODEL_LOAD_FAILURES, 1, self.spec.name)
        key = (deployment.revision, str(error))
        if key in self._alerted:
            return
        serving = f"model {self.current.version.model_id} serves on" if self.current else "an earlier one is tried"
        message = f"champion {deployment.champion} cannot be loaded: {error}; {serving}"
        log.error("stream %s: %s", self.spec.name, message)
        subject = f"{self.spec.name}/{deployment.revision}/{deployment.champion}"
        alert = Alert(
            id=hashlib.sha256(f"champion-unusable/{subject}".encode()).hexdigest()[:32],
            stream=self.spec.name,
            kind="champion_unusable",
            severity="critical",
            subject=deployment.champion,
            message=message,
            recommendation="Restore the artifact, or promote another model.",
            raised_time_ms=self._clock_ms(),
        )
        try:
            await self._raise_alert(alert)
        except KafkaError as refused:
            log.warning("the alert will be raised again: %s", refused)
        else:
            self._alerted.add(key)


def find_version(models: LogView[ModelVersion], model_id: str) -> ModelVersion | None:
    """Return the registered version, or None. The first record of an id counts: the registry is append-only."""
    return next((version for version in models.events if version.model_id == model_id), None)
