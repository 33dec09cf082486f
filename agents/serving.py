"""What a stream routes to right now: follows its logs, loads in the background, swaps between batches."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from agents.arms import Arm
from agents.baselines import OpenBaseline, Yardstick
from agents.registry import Registry
from agents.shadows import Shadow
from agents.shelf import ModelShelf
from agents.unusable import Complaints
from agents.yardsticks import Yardsticks
from ml.errors import SharesInvalid
from ml.experiments.assignment import expanded
from ml.models.protocol import Model
from schemas.errors import PenstockError, RetryableError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.experiments import Experiment, Variant
from schemas.streams import StreamSpec
from stream import metrics as m
from stream.metric_values import Metrics
from stream.views import LogView

log = logging.getLogger("penstock.serving")

RETRY_S: Final = 30.0  # a model that could not be loaded is tried again
SOON_S: Final = (1.0, 2.0, 4.0, 8.0)  # at first so soon, when its store did not answer
LOAD_S: Final = 45.0  # what is loaded beside a champion and takes longer must not keep the rest waiting
REST_S: Final = 1.0  # a new champion does not wait longer for what is to come beside it: most often it takes less
ARMS_S: Final = 30.0  # nor does an experiment for its models, whose events would get the champion's scores
FORGIVEN_S: Final = 300.0  # a store that is away for longer counts as its variant's failure


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

    The champion comes first. For the rest a deployment waits a moment, for the models of a new experiment longer; then
    it is put in force with what is there, and the rest joins it as it comes. Nothing of this holds a newer deployment
    up: it is given up when one comes.
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
        self._registry = Registry(models)
        self._metrics = metrics
        self._complaints = Complaints(spec.name, raise_alert, metrics, clock_ms)
        self._yardsticks = Yardsticks(spec, models, open_baseline, self._complaints)
        self._loads = loads
        self._coming: Served | None = None  # what is brought up, with as much as is there
        self._store_is_away = False  # something could not be loaded that may be there in a moment
        self._away_since: dict[str, float] = {}  # by model
        self._news = asyncio.Event()
        self._loaded = asyncio.Event()
        deployments.listen(self._news.set)
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
        blips = 0
        try:
            while True:
                self._news.clear()
                self._store_is_away = False
                done = await self._unless_news_come(self._bring_up_to_date() if self._loads else self._reserve())
                if self.current is not None and self.current.deployment is not ready_for:
                    ready_for = self.current.deployment
                    if getting_ready is not None:
                        getting_ready.cancel()
                    getting_ready = asyncio.create_task(self._get_ready_for_rollback(self.current))
                soon = self._store_is_away and blips < len(SOON_S)
                try:
                    async with asyncio.timeout(None if done else SOON_S[blips] if soon else RETRY_S):
                        await self._news.wait()
                    blips = 0
                except TimeoutError:  # something could not be loaded: try again
                    blips = blips + 1 if self._store_is_away else 0
        finally:
            if getting_ready is not None:
                getting_ready.cancel()

    async def _unless_news_come(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Return what `work` does. It is given up when news come; what it was loading is loaded to the end."""
        working, news = asyncio.create_task(work), asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait((working, news), return_when=asyncio.FIRST_COMPLETED)
            return working.done() and working.result()
        finally:
            working.cancel()
            news.cancel()
            await asyncio.gather(working, news, return_exceptions=True)

    async def _bring_up_to_date(self) -> bool:
        """Serve the newest deployment whose champion can be loaded; return whether nothing is left to try again."""
        for deployment in reversed(self._deployments.events):
            if self.current is not None and deployment.revision < self.current.deployment.revision:
                return False
            try:
                begun = await self._begin(deployment)
            except (PenstockError, KafkaError) as error:
                self._store_is_away |= _may_pass(error)
                on = f"model {self.current.version.model_id} serves on" if self.current else "an earlier one is tried"
                await self._complaints.of_champion(deployment, on, error)
            else:
                served = await self._complete(begun)
                measured = self._yardsticks.has_its_own(served.version, served.yardstick)
                return served.is_complete and measured and deployment is self._deployments.events[-1]
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
            await self._yardsticks.get_spare(previous)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it is told when somebody needs it
            log.info("stream %s: model %s is not ready for a roll-back: %s", self.spec.name, previous, error)

    async def _begin(self, deployment: Deployment) -> Served:
        """Return the deployment with its champion, and of the rest with what is at hand."""
        current = self.current
        if current is not None and current.deployment is deployment:
            return current
        version, model = await self._get(deployment.champion, ())
        experiment = deployment.experiment
        return Served(
            model,
            version,
            deployment,
            shadows=self._shadows_at_hand(deployment),
            yardstick=self._yardsticks.at_hand(version),
            arms=self._arms_at_hand(experiment, version, model) if experiment is not None else (),
            table=_table_of(experiment) if experiment is not None else None,
        )

    def _arms_at_hand(self, experiment: Experiment, version: ModelVersion, model: Model) -> tuple[Arm, ...]:
        first, *others = experiment.variants
        arms = [Arm(first.name, version.model_id, model, version)]
        known = {(arm.name, arm.model_id): arm for arm in self.current.arms} if self.current is not None else {}
        for variant in others:
            arm = known.get((variant.name, variant.model_id))
            if arm is None:
                self._away_since.pop(variant.model_id, None)
                its_version, its_model = self._taken_over(variant.model_id) or (None, None)
                arm = Arm(variant.name, variant.model_id, its_model, its_version, away=its_model is None)
            arms.append(arm)
        return tuple(arms)

    def _shadows_at_hand(self, deployment: Deployment) -> tuple[Shadow, ...]:
        known = {shadow.version.model_id: shadow for shadow in self.current.shadows} if self.current else {}
        at_hand = []
        for model_id in deployment.shadows:
            if model_id in known:
                at_hand.append(known[model_id])
            elif (found := self._taken_over(model_id)) is not None:
                at_hand.append(Shadow(found[1], found[0]))
        return tuple(at_hand)

    async def _complete(self, begun: Served) -> Served:
        """Put in force what is begun, and load what it lacks: what serves first. It waits as long as it may."""
        self._coming = begun
        in_time = asyncio.get_running_loop().call_later(self._patience_s(begun), self._join)
        try:
            await self._load_arms(begun)
            self._join_later(yardstick=await self._yardsticks.get(begun.version))
            await self._load_shadows(begun)
        finally:
            in_time.cancel()
        self._swap(self._coming)
        return self._coming

    def _patience_s(self, begun: Served) -> float:
        """Return how long a deployment may wait for what it lacks, while the one before serves on."""
        if self.current is None or any(arm.model is None and arm not in self.current.arms for arm in begun.arms):
            return ARMS_S
        return REST_S

    def _join(self) -> None:
        """Put in force what is there by now."""
        assert self._coming is not None
        self._swap(self._coming)

    def _join_later(self, **loaded: Any) -> None:
        """Add what was loaded to what comes; it is in force at once where the deployment is already."""
        assert self._coming is not None
        self._coming = replace(self._coming, **loaded)
        if self.current is not None and self.current.deployment is self._coming.deployment:
            self._join()

    async def _load_arms(self, begun: Served) -> None:
        arms = list(begun.arms)
        for place, arm in enumerate(arms):
            if arm.model is None and begun.experiment is not None:
                beside = [arm.version for arm in arms if arm.version is not None]
                arms[place] = await self._load_arm(begun.experiment, begun.experiment.variants[place], beside)
                self._join_later(arms=tuple(arms))

    async def _load_arm(self, experiment: Experiment, variant: Variant, beside: Sequence[ModelVersion]) -> Arm:
        try:
            version, model = await self._get_in_time(variant.model_id, beside)
        except (PenstockError, KafkaError) as error:
            away = self._is_forgiven(variant.model_id, error)
            await self._complaints.of_variant(experiment, variant, error)
            return Arm(variant.name, variant.model_id, away=away)
        self._away_since.pop(variant.model_id, None)
        return Arm(variant.name, variant.model_id, model, version)

    def _is_forgiven(self, model_id: str, error: Exception) -> bool:
        """Tell whether an error says nothing about the model, and has not for so long that it weighs on it."""
        if not _may_pass(error):
            self._away_since.pop(model_id, None)
            return False
        self._store_is_away = True
        now_s = asyncio.get_running_loop().time()
        return now_s - self._away_since.setdefault(model_id, now_s) < FORGIVEN_S

    async def _load_shadows(self, begun: Served) -> None:
        found = {shadow.version.model_id: shadow for shadow in begun.shadows}
        wanted = begun.deployment.shadows
        for model_id in [model_id for model_id in wanted if model_id not in found]:
            assert self._coming is not None
            try:
                version, model = await self._get_in_time(model_id, [version for version, _ in self._coming.loaded])
            except (PenstockError, KafkaError) as error:
                self._store_is_away |= _may_pass(error)
                await self._complaints.of_shadow(model_id, error)
            else:
                found[model_id] = Shadow(model, version)
                self._join_later(shadows=tuple(found[model_id] for model_id in wanted if model_id in found))

    async def _get_in_time(self, model_id: str, beside: Sequence[ModelVersion]) -> tuple[ModelVersion, Model]:
        try:
            async with asyncio.timeout(LOAD_S):
                return await self._get(model_id, beside)
        except TimeoutError as error:
            raise RetryableError(f"the model store did not give it within {LOAD_S:g} s") from error

    async def _get(self, model_id: str, beside: Sequence[ModelVersion]) -> tuple[ModelVersion, Model]:
        if (known := self._taken_over(model_id)) is not None:
            return known
        version = await self._find(model_id)
        return version, await self._shelf.get(self.spec, version, beside)

    def _taken_over(self, model_id: str) -> tuple[ModelVersion, Model] | None:
        """Return a model that `current` has: it is taken over, whatever became of its file."""
        loaded = self.current.loaded if self.current is not None else ()
        return next(((version, model) for version, model in loaded if version.model_id == model_id), None)

    def _hear_of_baselines(self) -> None:
        if self._yardsticks.is_outdated:
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


def _table_of(experiment: Experiment) -> NDArray[np.int16]:
    """Return the experiment's table, shape (10,000,). Raises PenstockError where it is none."""
    try:
        table = expanded(experiment.table)
    except SharesInvalid as error:
        raise PenstockError(f"experiment {experiment.experiment_id}: {error}") from error
    if table.max() >= len(experiment.variants):
        raise PenstockError(f"the bucket table of experiment {experiment.experiment_id} has variants that it has not")
    return table


def _may_pass(error: Exception) -> bool:
    """Tell whether an error is of the world around, which may answer in a moment, and not of what was asked for."""
    return isinstance(error, (RetryableError, KafkaError))


def _scorers(served: Served) -> tuple[object, ...]:
    arms = [(arm.name, arm.model_id, arm.model is not None, arm.away) for arm in served.arms]
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
