"""The worker: assembles the roles from the settings, runs them until told to stop, and ends with an exit code."""

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer

from agents import control, score
from agents.serving import Serving
from agents.shelf import ModelShelf
from app.health import Pages, Report
from app.registry import model_opener
from app.settings import Settings
from schemas.errors import SettingsError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream import admin
from stream import metrics as m
from stream.announcer import Announcer
from stream.connection import KafkaConnection
from stream.deadletters import DeadLetterGate
from stream.intake import FeatureIntake
from stream.metrics import Metrics
from stream.placement import Placement
from stream.role import Role, RoleSettings, StageSpec
from stream.tasks import PartitionTask, Stage
from stream.views import LogView, ViewFollower
from stream.watchdog import LoopGuard, ProgressWatch, measure_loop_lag
from topics.specs import StreamTopics, topics_of

log = logging.getLogger("penstock.worker")

RoleName = Literal["score", "learn"]
ROLES: tuple[RoleName, ...] = ("score", "learn")
ALIVE_STALL_S = 10.0  # with lag and an answering broker; the watchdog itself waits for stall_timeout_ms
EMBEDDED_FETCH_WAIT_MS = 5  # the embedded broker answers a fetch only when the wait is over


def now_ms() -> int:
    """Return the wall clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class StreamStages:
    """One stream's views and serving model on this worker, and the stages made from them."""

    def __init__(
        self, spec: StreamSpec, settings: Settings, shelf: ModelShelf, metrics: Metrics, announcer: Announcer
    ) -> None:
        self.spec = spec
        self.models = LogView(StreamTopics(spec.name).models, ModelVersion)
        self.deployments = LogView(StreamTopics(spec.name).deployments, Deployment)
        self._settings = settings
        self._shelf = shelf
        self._metrics = metrics
        self._announcer = announcer
        self._topics = StreamTopics(spec.name)
        self._reader = FeatureReader(spec)

    def attach(self, views: ViewFollower) -> None:
        """Use `views`, which follows this stream's logs."""
        self._views = views
        self.serving = Serving(
            self.spec,
            self.models,
            self.deployments,
            views.caught_up,
            self._shelf,
            self._metrics,
            self._raise_alert,
            now_ms,
        )

    def stages(self, role: RoleName) -> list[StageSpec]:
        """Return the stages of `role` for this stream."""
        if role == "score":
            return [StageSpec(self.spec.name, score.STAGE, (self._topics.features,), self._score)]
        return [StageSpec(self.spec.name, control.STAGE, (self._topics.commands,), self._control, single=True)]

    def _score(self, partition: int, partitions: int) -> Stage:
        intake = FeatureIntake(
            self._reader, Placement(self._topics.features, partition, partitions), self._settings.max_event_bytes
        )
        gate = DeadLetterGate(self._settings.dead_letter_share, self._settings.dead_letter_window)
        return score.Score(self.serving, intake, gate, self._metrics, now_ms)

    def _control(self, partition: int, partitions: int) -> Stage:
        return control.Control(
            self.spec, self.models, self.deployments, self._views.caught_up, self._shelf, self._metrics, now_ms
        )

    async def _raise_alert(self, alert: Alert) -> None:
        await self._announcer.say(self._topics.alerts, self.spec.name, encode(alert))


class Worker:
    """Everything one worker process runs, for the given roles of all declared streams."""

    def __init__(self, settings: Settings, connection: KafkaConnection, roles: Iterable[RoleName]) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._connection = connection
        self._role_names = tuple(roles)
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._roles: list[Role] = []
        self._streams: list[StreamStages] = []
        self._background: set[asyncio.Task[None]] = set()
        self._progress = ProgressWatch(self.tasks, connection.reachable, settings.stall_timeout_ms / 1000)

    def end(self, error: BaseException | None = None) -> None:
        """Ask the worker to end: cleanly, or with `error`. The first call counts."""
        if self._ending.done():
            return
        if error is None:
            self._ending.set_result(None)
        else:
            self._ending.set_exception(error)

    async def run(self) -> None:
        """Run until `end` is called; then finish and commit the work at hand. Raises what ended it."""
        async with contextlib.AsyncExitStack() as closing:
            await self._start(closing)
            await self._ending

    async def _start(self, closing: contextlib.AsyncExitStack) -> None:
        cluster = await self._connection.reachable()
        if not self._settings.streams:
            raise SettingsError("no stream is declared: write a [streams.<name>] table, or run `penstock stream init`")
        await self._check_topics(cluster.embedded)
        pages = Pages(self.metrics, self._refresh_gauges, self.health)
        address = await pages.start(self._settings.metrics_host, self._settings.metrics_port)
        closing.push_async_callback(pages.stop)
        guard = LoopGuard(asyncio.get_running_loop(), self._settings.stall_timeout_ms / 1000)
        guard.start()
        closing.callback(guard.stop)
        closing.push_async_callback(self._stop_background)
        await self._start_streams(cluster.embedded, closing)
        async with asyncio.TaskGroup() as starting:
            for role in self._role_names:
                starting.create_task(self._start_role(role, cluster.embedded, closing))
        self._spawn(measure_loop_lag(self.metrics))
        self._spawn(self._progress.run())
        log.info("the worker runs %s; metrics and health are at %s", ", ".join(self._role_names), address)

    async def _check_topics(self, embedded: bool) -> None:
        if embedded:
            return
        wanted = [spec for stream in self._settings.streams for spec in topics_of(stream)]
        if problems := await admin.check(self._connection, wanted):
            raise SettingsError("\n".join(problems))

    async def _start_streams(self, embedded: bool, closing: contextlib.AsyncExitStack) -> None:
        shelf = ModelShelf(model_opener(self._settings), self._settings.model_memory_bytes)
        self._shelf = shelf
        announcer = Announcer(self._connection)
        self._streams = [
            StreamStages(spec, self._settings, shelf, self.metrics, announcer) for spec in self._settings.streams
        ]
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_uncommitted" if embedded else "read_committed",
            fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS if embedded else self._settings.kafka_fetch_max_wait_ms,
            **self._connection.client_options(),
        )
        logs: list[LogView[Any]] = [view for stream in self._streams for view in (stream.models, stream.deployments)]
        views: ViewFollower = ViewFollower(consumer, logs)
        for stream in self._streams:
            stream.attach(views)
        closing.push_async_callback(views.stop)
        await views.start()
        self._spawn(views.followed())
        for stream in self._streams:
            self._spawn(stream.serving.follow())

    async def _start_role(self, name: RoleName, embedded: bool, closing: contextlib.AsyncExitStack) -> None:
        settings = RoleSettings(
            connection=self._connection,
            group=f"{self._settings.kafka_group_prefix}-{name}",
            exactly_once=self._settings.delivery == "exactly_once" and not embedded,
            commit_interval_s=self._settings.commit_interval_ms / 1000,
            session_timeout_ms=self._settings.kafka_session_timeout_ms,
            fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS if embedded else self._settings.kafka_fetch_max_wait_ms,
        )
        stages = [stage for stream in self._streams for stage in stream.stages(name)]
        role = Role(settings, stages, self.metrics, self.end)
        self._roles.append(role)
        closing.push_async_callback(role.stop)
        await role.start()
        self._spawn(self._crash_of(role))

    async def _crash_of(self, role: Role) -> None:
        raise await role.crashed()

    def tasks(self) -> list[PartitionTask]:
        """Return the partition tasks of all roles."""
        return [task for role in self._roles for task in role.tasks.values()]

    def health(self) -> Report:
        """Return whether the worker is ready and alive, and what each stream is at.

        Ready: partitions assigned, tasks recovered, champions loaded. Alive: offsets move while there is lag and the
        broker answers.
        """
        started = bool(self._roles) and len(self._roles) == len(self._role_names)
        scoring = "score" not in self._role_names or all(stream.serving.current for stream in self._streams)
        ready = started and scoring and all(role.ready for role in self._roles)
        return {
            "ready": ready,
            "alive": self._progress.stalled_s <= ALIVE_STALL_S,
            "roles": list(self._role_names),
            "tasks": {str(task.name): "running" if task.running else "recovering" for task in self.tasks()},
            "streams": {stream.spec.name: _serving_report(stream.serving) for stream in self._streams},
        }

    def _refresh_gauges(self) -> None:
        self.metrics.set(m.READY, float(bool(self.health()["ready"])))
        self.metrics.clear(m.CONSUMER_LAG)
        for task in self.tasks():
            for source, lag in task.lag_events.items():
                self.metrics.set(m.CONSUMER_LAG, lag, source.topic, str(source.partition))
        self.metrics.clear(m.MODEL_MEMORY)
        for stream, model_id, size_bytes in self._shelf.loaded:
            self.metrics.set(m.MODEL_MEMORY, size_bytes, stream, model_id)
        self.metrics.clear(m.MODEL_INFO)
        for served in (stream.serving.current for stream in self._streams):
            if served is not None:
                version, revision = served.version, str(served.deployment.revision)
                self.metrics.set(m.MODEL_INFO, 1, version.stream, version.model_id, version.algorithm, revision)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the roles; if it fails, the worker ends with its error."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    async def _stop_background(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


def _serving_report(serving: Serving) -> Report:
    served = serving.current
    if served is None:
        return {"champion": None}
    return {"champion": served.version.model_id, "revision": served.deployment.revision}


async def run_worker(settings: Settings, connection: KafkaConnection, roles: Iterable[RoleName] = ROLES) -> None:
    """Run a worker until SIGTERM or SIGINT. Raises the error that ended it otherwise."""
    _relax_garbage_collection()
    worker = Worker(settings, connection, roles)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.end)
    await worker.run()


def _relax_garbage_collection() -> None:
    """Let whole batches live and die by reference counts: the default looks through every 700 new objects."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
