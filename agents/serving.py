"""What a stream routes to right now: follows its logs, loads in the background, swaps between batches."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from agents.arms import Arm
from agents.baselines import Ancestry, BaselineUnusable, OpenBaseline, Yardstick, require_columns
from agents.registry import Registry
from agents.shadows import Shadow
from agents.shelf import ModelShelf
from agents.unusable import Complaints
from ml.drift.counting import Counter
from ml.errors import SharesInvalid
from ml.experiments.assignment import expanded
from ml.models.protocol import Model
from schemas.errors import PenstockError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.experiments import Experiment, Variant
from schemas.streams import StreamSpec
from stream import metrics as m
from stream.metrics import Metrics
from stream.views import LogView

log = logging.getLogger("penstock.serving")

RETRY_S = 30.0  # a model that could not be loaded is tried again: its store may have been away
BASELINE_S = 10.0  # a new champion does not wait longer for its baseline


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A deployment, its champion, and those of its shadows that could be loaded. A batch is scored by one of these.

    `yardstick` is what the batch is counted against; None when the champion has no baseline, or none that is usable.
    While there is an experiment, `arms` are its variants in their order, the champion's first, and `table` (10,000,)
    gives each bucket to one of them.
    """

    model: Model
    version: ModelVersion
    deployment: Deployment
    shadows: tuple[Shadow, ...] = ()
    yardstick: Yardstick | None = None
    arms: tuple[Arm, ...] = ()
    table: NDArray[np.int16] | None = None

    @property
    def experiment(self) -> Experiment | None:
        """The experiment that runs, if one does."""
        return self.deployment.experiment

    @property
    def is_complete(self) -> bool:
        """Whether every shadow and every variant of the deployment is there."""
        return len(self.shadows) == len(self.deployment.shadows) and all(arm.model is not None for arm in self.arms)

    @property
    def loaded(self) -> Iterator[tuple[ModelVersion, Model]]:
        """What is there: the champion first, then variants and shadows."""
        yield self.version, self.model
        for arm in self.arms[1:]:
            if arm.version is not None and arm.model is not None:
                yield arm.version, arm.model
        for shadow in self.shadows:
            yield shadow.version, shadow.model


class Serving:
    """Keeps `current` at the newest deployment whose champion can be loaded; the previous one stays until then.

    A shadow that cannot be loaded is left out until it can, and so is the champion's baseline; one that was read, and
    is not for this stream, is not tried again. A variant whose model cannot be loaded keeps its entities, and has none
    until it can. What a roll-back would bring back is loaded last, if there is room, so that it takes effect at once.
    Where nothing is scored, `loads` is false: models only get their room reserved on the shelf, so that control refuses
    what would not fit a worker that scores.
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
        self._registry = Registry(models)
        self._metrics = metrics
        self._complaints = Complaints(spec.name, raise_alert, metrics, clock_ms)
        self._loads = loads
        self._news = asyncio.Event()
        self._loaded = asyncio.Event()
        deployments.listen(self._news.set)
        self._looked_up = ("", "")  # a champion, and the SHA-256 of the baseline that counts for it
        self._given_up = ("", "")  # the same, of a baseline that will never be of use
        self._spare: Yardstick | None = None  # that of what a roll-back would bring back
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
        ready_for: Deployment | None = None
        getting_ready: asyncio.Task[None] | None = None
        try:
            while True:
                self._news.clear()
                done = await (self._bring_up_to_date() if self._loads else self._reserve())
                if self.current is not None and self.current.deployment is not ready_for:
                    ready_for = self.current.deployment
                    if getting_ready is not None:
                        getting_ready.cancel()
                    getting_ready = asyncio.create_task(self._get_ready_for_rollback(self.current))
                try:
                    async with asyncio.timeout(None if done else RETRY_S):
                        await self._news.wait()
                except TimeoutError:
                    pass  # something could not be loaded: try again
        finally:
            if getting_ready is not None:
                getting_ready.cancel()

    async def _bring_up_to_date(self) -> bool:
        """Serve the newest deployment whose champion can be loaded; return whether nothing is left to try again."""
        for deployment in reversed(self._deployments.events):
            if self.current is not None and deployment.revision < self.current.deployment.revision:
                return False
            try:
                served = await self._load(deployment)
            except (PenstockError, KafkaError) as error:
                on = f"model {self.current.version.model_id} serves on" if self.current else "an earlier one is tried"
                await self._complaints.of_champion(deployment, on, error)
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
        variants = [variant.model_id for variant in newest.experiment.variants[1:]] if newest.experiment else []
        try:
            champion = await self._find(newest.champion)
            beside = [await self._find(model_id) for model_id in (*variants, *newest.shadows)]
        except (PenstockError, KafkaError) as error:
            log.warning("stream %s: no room is reserved for revision %d: %s", self.spec.name, newest.revision, error)
            return False
        self._shelf.route(champion, beside)
        return True

    async def _get_ready_for_rollback(self, served: Served) -> None:
        """Load what a roll-back would bring back, as long as it fits beside what serves; nobody needs it yet.

        The shelf keeps the model, until others need its room; its baseline is kept here.
        """
        beside = [version for version, _ in served.loaded]
        previous = served.deployment.previous
        if not previous:
            return
        try:
            if previous not in {version.model_id for version in beside}:
                await self._shelf.get(self.spec, await self._find(previous), beside)
            source = self._ancestry.baseline_of(previous)
            if source is not None and self._known_yardstick(source.baseline) is None:
                self._spare = await self._open_yardstick(source)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it is told when somebody needs it
            log.info("stream %s: model %s is not ready for a roll-back: %s", self.spec.name, previous, error)

    async def _load(self, deployment: Deployment) -> Served:
        """Load what the deployment names: what serves first. Only a champion is indispensable."""
        version, model = await self._get(deployment.champion, ())
        beside = [version]
        arms = await self._load_arms(deployment.experiment, model, beside)
        shadows = await self._load_shadows(deployment.shadows, beside)
        table = _table_of(deployment.experiment) if deployment.experiment is not None else None
        return Served(model, version, deployment, shadows, await self._load_yardstick(version), arms, table)

    async def _load_arms(
        self, experiment: Experiment | None, champion: Model, beside: list[ModelVersion]
    ) -> tuple[Arm, ...]:
        """Load the variants, and add their versions to `beside`, which begins with the champion's."""
        if experiment is None:
            return ()
        first, *others = experiment.variants
        arms = [Arm(first.name, beside[0].model_id, champion, beside[0])]
        for variant in others:
            arm = await self._load_arm(experiment, variant, beside)
            arms.append(arm)
            if arm.version is not None:
                beside.append(arm.version)
        return tuple(arms)

    async def _load_arm(self, experiment: Experiment, variant: Variant, beside: Sequence[ModelVersion]) -> Arm:
        for arm in self.current.arms if self.current is not None else ():
            if (arm.name, arm.model_id) == (variant.name, variant.model_id) and arm.model is not None:
                return arm
        try:
            version, model = await self._get(variant.model_id, beside)
        except (PenstockError, KafkaError) as error:
            await self._complaints.of_variant(experiment, variant, error)
            return Arm(variant.name, variant.model_id)
        return Arm(variant.name, variant.model_id, model, version)

    async def _load_shadows(self, model_ids: Sequence[str], beside: list[ModelVersion]) -> tuple[Shadow, ...]:
        """Load the shadows that can be had, and add their versions to `beside`."""
        known = {shadow.version.model_id: shadow for shadow in self.current.shadows} if self.current else {}
        shadows = []
        for model_id in model_ids:
            try:
                shadow = known.get(model_id)
                if shadow is None:
                    version, model = await self._get(model_id, beside)
                    shadow = Shadow(model, version)
            except (PenstockError, KafkaError) as error:
                await self._complaints.of_shadow(model_id, error)
            else:
                shadows.append(shadow)
                beside.append(shadow.version)
        return tuple(shadows)

    async def _get(self, model_id: str, beside: Sequence[ModelVersion]) -> tuple[ModelVersion, Model]:
        """Return a model. What `current` has is taken over, whatever became of its file."""
        for version, model in self.current.loaded if self.current is not None else ():
            if version.model_id == model_id:
                return version, model
        version = await self._find(model_id)
        return version, await self._shelf.get(self.spec, version, beside)

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
        if (known := self._known_yardstick(source.baseline)) is not None:
            return known
        try:
            return await self._open_yardstick(source)
        except TimeoutError:
            error: Exception = PenstockError(f"the model store did not give it within {BASELINE_S:g} s")
        except Exception as raised:  # noqa: BLE001  # whatever is wrong with a baseline, scoring goes on
            error = raised if isinstance(raised, PenstockError) else PenstockError(f"{type(raised).__name__}: {raised}")
        told = await self._complaints.of_baseline(champion, source, error)
        if told and isinstance(error, BaselineUnusable):
            self._given_up = (champion.model_id, source.baseline)
        return None

    def _known_yardstick(self, sha256: str) -> Yardstick | None:
        in_use = self.current.yardstick if self.current is not None else None
        return next((known for known in (in_use, self._spare) if known is not None and known.sha256 == sha256), None)

    async def _open_yardstick(self, source: ModelVersion) -> Yardstick:
        async with asyncio.timeout(BASELINE_S):
            baseline = await self._open_baseline(source.baseline, source.baseline_bytes)
        require_columns(self.spec, baseline)
        return Yardstick(source.baseline, baseline, Counter(baseline))

    def _hear_of_baselines(self) -> None:
        """Look again when a new record says that the champion has a baseline, or another one."""
        model_id, sha256 = self._looked_up
        source = self._ancestry.baseline_of(model_id)
        if source is not None and source.baseline != sha256:
            self._news.set()

    async def _find(self, model_id: str) -> ModelVersion:
        version = self._registry.find(model_id)
        if version is None:  # the two logs are followed side by side; a deployment can be seen first
            await self._caught_up()
            version = self._registry.find(model_id)
        if version is None:
            raise PenstockError(f"model {model_id} is not in {self._models.topic}")
        return version

    def _swap(self, served: Served) -> None:
        if self.current is not None and _scorers(self.current) == _scorers(served):
            return
        self.current = served
        self._loaded.set()
        self._metrics.set(m.DRIFT_MEASURED, float(served.yardstick is not None), self.spec.name)
        champion, *beside = [version for version, _ in served.loaded]
        self._shelf.route(champion, beside)
        log.info("stream %s: %s", self.spec.name, _told(served))


def find_version(models: LogView[ModelVersion], model_id: str) -> ModelVersion | None:
    """Return what the registry says of a model by now, or None; 0.5 µs per record."""
    return Registry(models).find(model_id)


def _table_of(experiment: Experiment) -> NDArray[np.int16]:
    """Return the experiment's table, shape (10,000,). Raises PenstockError where it is none."""
    try:
        table = expanded(experiment.table)
    except SharesInvalid as error:
        raise PenstockError(f"experiment {experiment.experiment_id}: {error}") from error
    if table.max() >= len(experiment.variants):
        raise PenstockError(f"the bucket table of experiment {experiment.experiment_id} has variants that it has not")
    return table


def _scorers(served: Served) -> tuple[object, ...]:
    arms = [(arm.name, arm.model_id, arm.model is not None) for arm in served.arms]
    return served.deployment.revision, served.shadows, served.yardstick, arms


def _told(served: Served) -> str:
    """Return what serves, for the log."""
    told = [f"model {served.version.model_id} serves (revision {served.deployment.revision})"]
    if served.experiment is not None:
        arms = ", ".join(f"{variant.name} {variant.buckets / 100:g}%" for variant in served.experiment.variants)
        told.append(f"in {served.experiment.kind} {served.experiment.experiment_id} ({arms})")
    told.append(f"beside {', '.join(shadow.version.model_id for shadow in served.shadows) or 'no shadow'}")
    measured = f"drift is measured by baseline {served.yardstick.sha256[:8]}" if served.yardstick else "no baseline"
    return f"{' '.join(told)}; {measured}"
