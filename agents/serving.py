"""What a stream routes to right now: follows its logs, loads in the background, swaps between batches."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from agents.baselines import Ancestry, BaselineUnusable, OpenBaseline, Yardstick, require_columns
from agents.shadows import Shadow
from agents.shelf import ModelShelf
from ml.drift.counting import Counter
from ml.models.protocol import Model
from schemas.errors import PenstockError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.streams import StreamSpec
from stream import metrics as m
from stream.metrics import Metrics
from stream.views import LogView

log = logging.getLogger("penstock.serving")

RETRY_S = 30.0  # a model that could not be loaded is tried again: its store may have been away
BASELINE_S = 10.0  # a new champion does not wait longer for its baseline


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment, its champion, and those of its shadows that could be loaded. A batch is scored by one of these.

    `yardstick` is what the batch is counted against; None when the champion has no baseline, or none that is usable.
    """

    model: Model
    version: ModelVersion
    deployment: Deployment
    shadows: tuple[Shadow, ...] = ()
    yardstick: Yardstick | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every shadow of the deployment is there."""
        return len(self.shadows) == len(self.deployment.shadows)


class Serving:
    """Keeps `current` at the newest deployment whose champion can be loaded; the previous one stays until then.

    A shadow that cannot be loaded is left out until it can, and so is the champion's baseline; one that was read, and
    is not for this stream, is not tried again. Where nothing is scored, `loads` is false: models only get their room
    reserved on the shelf, so that control refuses what would not fit a worker that scores.
    """

    def __init__(
        self,
        spec: StreamSpec,
        models: LogView[ModelVersion],
        deployments: LogView[Deployment],
        caught_up: Callable[[], Awaitable[None]],
        shelf: ModelShelf,
        open_baseline: OpenBaseline,
        metrics: Metrics,
        raise_alert: Callable[[Alert], Awaitable[None]],
        clock_ms: Callable[[], int],
        loads: bool = True,
    ) -> None:
        self.spec = spec
        self.current: Served | None = None
        self._models = models
        self._deployments = deployments
        self._caught_up = caught_up
        self._shelf = shelf
        self._open_baseline = open_baseline
        self._ancestry = Ancestry(models)
        self._metrics = metrics
        self._raise_alert = raise_alert
        self._clock_ms = clock_ms
        self._loads = loads
        self._news = asyncio.Event()
        self._loaded = asyncio.Event()
        self._alerted: set[tuple[str, str]] = set()
        deployments.listen(self._news.set)
        self._looked_up = ("", "")  # a champion, and the SHA-256 of the baseline that counts for it
        self._given_up = ("", "")  # the same, of a baseline that will never be of use
        models.listen(self._hear_of_baselines)

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
            done = await (self._bring_up_to_date() if self._loads else self._reserve())
            try:
                async with asyncio.timeout(None if done else RETRY_S):
                    await self._news.wait()
            except TimeoutError:
                pass  # something could not be loaded: try again

    async def _bring_up_to_date(self) -> bool:
        """Serve the newest deployment whose champion can be loaded; return whether nothing is left to try again."""
        for deployment in reversed(self._deployments.events):
            if self.current is not None and deployment.revision < self.current.deployment.revision:
                return False
            try:
                served = await self._load(deployment)
            except (PenstockError, KafkaError) as error:
                await self._report(self._champion_unusable(deployment, error), error)
            else:
                self._swap(served)
                return (
                    served.is_complete and self._has_its_baseline(served) and deployment is self._deployments.events[-1]
                )
        return not self._deployments.events

    async def _reserve(self) -> bool:
        """Reserve room for the newest deployment; return whether all of its models are registered."""
        if not self._deployments.events:
            return True
        newest = self._deployments.events[-1]
        try:
            champion, *shadows = [await self._find(model_id) for model_id in (newest.champion, *newest.shadows)]
        except (PenstockError, KafkaError) as error:
            log.warning("stream %s: no room is reserved for revision %d: %s", self.spec.name, newest.revision, error)
            return False
        self._shelf.route(champion, shadows)
        return True

    async def _load(self, deployment: Deployment) -> Served:
        """Load what the deployment names. What `current` has of it is taken over, whatever became of its file."""
        if self.current is not None and self.current.version.model_id == deployment.champion:
            version, model = self.current.version, self.current.model
        else:
            version = await self._find(deployment.champion)
            model = await self._shelf.get(self.spec, version)
        shadows: list[Shadow] = []
        for model_id in deployment.shadows:
            try:
                shadows.append(await self._load_shadow(model_id, [version, *(shadow.version for shadow in shadows)]))
            except (PenstockError, KafkaError) as error:
                await self._report(self._shadow_unusable(model_id, error), error)
        return Served(model, version, deployment, tuple(shadows), await self._load_yardstick(version))

    async def _load_shadow(self, model_id: str, beside: Sequence[ModelVersion]) -> Shadow:
        known = self.current.shadows if self.current is not None else ()
        for shadow in known:
            if shadow.version.model_id == model_id:
                return shadow
        version = await self._find(model_id)
        return Shadow(await self._shelf.get(self.spec, version, beside), version)

    def _has_its_baseline(self, served: Served) -> bool:
        """Tell whether it has one, or nothing would come of trying again."""
        if served.yardstick is not None or self._looked_up == self._given_up:
            return True
        return self._ancestry.baseline_of(served.version.model_id) is None

    async def _load_yardstick(self, champion: ModelVersion) -> Yardstick | None:
        """Return what counts against the champion's baseline, made once; None without one that can be used."""
        source = self._ancestry.baseline_of(champion.model_id)
        self._looked_up = (champion.model_id, source.baseline if source is not None else "")
        if source is None or self._looked_up == self._given_up:
            return None
        known = self.current.yardstick if self.current is not None else None
        if known is not None and known.sha256 == source.baseline:
            return known
        try:
            async with asyncio.timeout(BASELINE_S):
                baseline = await self._open_baseline(source.baseline, source.baseline_bytes)
            require_columns(self.spec, baseline)
            return Yardstick(source.baseline, baseline, Counter(baseline))
        except TimeoutError:
            error: Exception = PenstockError(f"the model store did not give it within {BASELINE_S:g} s")
        except Exception as raised:  # noqa: BLE001  # whatever is wrong with a baseline, scoring goes on
            error = raised if isinstance(raised, PenstockError) else PenstockError(f"{type(raised).__name__}: {raised}")
        told = await self._tell(self._baseline_unusable(champion, source, error), error)
        if told and isinstance(error, BaselineUnusable):
            self._given_up = (champion.model_id, source.baseline)
        return None

    def _hear_of_baselines(self) -> None:
        """Look again when a new record says that the champion has a baseline, or another one."""
        model_id, sha256 = self._looked_up
        source = self._ancestry.baseline_of(model_id)
        if source is not None and source.baseline != sha256:
            self._news.set()

    async def _find(self, model_id: str) -> ModelVersion:
        version = find_version(self._models, model_id)
        if version is None:  # the two logs are followed side by side; a deployment can be seen first
            await self._caught_up()
            version = find_version(self._models, model_id)
        if version is None:
            raise PenstockError(f"model {model_id} is not in {self._models.topic}")
        return version

    def _swap(self, served: Served) -> None:
        if self.current is not None and _scorers(self.current) == _scorers(served):
            return
        self.current = served
        self._loaded.set()
        self._metrics.set(m.DRIFT_MEASURED, float(served.yardstick is not None), self.spec.name)
        self._shelf.route(served.version, [shadow.version for shadow in served.shadows])
        measured = f"drift is measured by baseline {served.yardstick.sha256[:8]}" if served.yardstick else "no baseline"
        model_id, revision = served.version.model_id, served.deployment.revision
        beside = ", ".join(shadow.version.model_id for shadow in served.shadows) or "no shadow"
        log.info(
            "stream %s: model %s serves (revision %d) beside %s; %s",
            *(self.spec.name, model_id, revision, beside, measured),
        )

    def _champion_unusable(self, deployment: Deployment, error: Exception) -> Alert:
        serving = f"model {self.current.version.model_id} serves on" if self.current else "an earlier one is tried"
        return Alert(
            id=_alert_id("champion-unusable", f"{self.spec.name}/{deployment.revision}/{deployment.champion}"),
            stream=self.spec.name,
            kind="champion_unusable",
            severity="critical",
            subject=deployment.champion,
            message=f"champion {deployment.champion} cannot be loaded: {error}; {serving}",
            recommendation="Restore the artifact, or promote another model.",
            raised_time_ms=self._clock_ms(),
        )

    def _shadow_unusable(self, model_id: str, error: Exception) -> Alert:
        return Alert(
            id=_alert_id("shadow-unusable", f"{self.spec.name}/{model_id}"),
            stream=self.spec.name,
            kind="shadow_unusable",
            severity="low",
            subject=model_id,
            message=f"shadow {model_id} cannot be loaded: {error}; events are scored without it",
            recommendation=f"Restore the artifact, or run `penstock models unshadow {model_id}`.",
            raised_time_ms=self._clock_ms(),
        )

    def _baseline_unusable(self, champion: ModelVersion, source: ModelVersion, error: Exception) -> Alert:
        whose = "" if source.model_id == champion.model_id else f" of {source.model_id}"
        return Alert(
            id=_alert_id("baseline-unusable", f"{self.spec.name}/{champion.model_id}/{source.baseline}"),
            stream=self.spec.name,
            kind="baseline_unusable",
            severity="low",
            subject=champion.model_id,
            message=f"the baseline{whose} for champion {champion.model_id} cannot be used: {error}; "
            "events are scored, and nobody watches their drift",
            recommendation="Restore the artifact, or make another: "
            f"`penstock drift baseline {champion.model_id} --stream {self.spec.name} --data FILE` (or --events N).",
            raised_time_ms=self._clock_ms(),
        )

    async def _report(self, alert: Alert, error: Exception) -> None:
        self._metrics.count(m.MODEL_LOAD_FAILURES, 1, self.spec.name)
        await self._tell(alert, error)

    async def _tell(self, alert: Alert, error: Exception) -> bool:
        """Raise the alert, once for each error; return whether it is out."""
        key = (alert.id, str(error))
        if key in self._alerted:
            return True
        log.log(
            logging.ERROR if alert.severity == "critical" else logging.WARNING, "%s: %s", alert.stream, alert.message
        )
        try:
            await self._raise_alert(alert)
        except KafkaError as refused:
            log.warning("the alert will be raised again: %s", refused)
            return False
        self._alerted.add(key)
        return True


def find_version(models: LogView[ModelVersion], model_id: str) -> ModelVersion | None:
    """Return the newest record of a model, or None: a later one says what became of it."""
    return next((version for version in reversed(models.events) if version.model_id == model_id), None)


def _scorers(served: Served) -> tuple[int, tuple[Shadow, ...], Yardstick | None]:
    return served.deployment.revision, served.shadows, served.yardstick


def _alert_id(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}/{subject}".encode()).hexdigest()[:32]
