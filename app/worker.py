"""The worker: assembles the roles from the settings, runs them until told to stop, and ends with an exit code."""

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import Coroutine, Iterable
from functools import partial
from itertools import groupby
from typing import Any, get_args

from aiokafka import AIOKafkaConsumer

from agents.serving import Serving
from agents.shelf import ModelShelf
from app.clock import now_ms
from app.embedded import PARTITIONS as EMBEDDED_PARTITIONS
from app.embedded_redis import open_views
from app.garbage import rarely_collected
from app.health import Pages, Report
from app.local_checks import check_learners
from app.page.audience import Audience
from app.page.following import Following
from app.page.server import PageServer
from app.registry import model_opener
from app.roles import ROLES, RoleName
from app.settings import Settings
from app.stages import StreamStages
from app.training import resources_of
from schemas.errors import SettingsError
from schemas.events import Status
from stream import admin
from stream import metrics as m
from stream.announcer import Announcer
from stream.closing import together
from stream.connection import KafkaConnection
from stream.metric_values import Metrics
from stream.role import Fetching, Role, RoleSettings, StageSpec
from stream.tasks import PartitionTask
from stream.views import LogView, ViewFollower
from stream.watchdog import LoopGuard, ProgressWatch, measure_loop_lag
from topics.specs import topics_of

log = logging.getLogger("penstock.worker")

ALIVE_STALL_S = 10.0  # with lag and an answering broker; the watchdog itself waits for stall_timeout_ms
VIEWS_FETCH_WAIT_MS = 500  # news are answered at once; asking more often costs some per cent of a core
# The embedded broker answers a fetch only when the wait is over, and then with one batch of each partition. Whoever
# waits for a score waits for the first; asking often costs a tenth of a core for each consumer.
EMBEDDED_FETCH_WAIT_MS = {"score": 5, "learn": 50, "archive": 100, "views": 100, "notify": 100, "train": 100}
EMBEDDED_OTHERS_WAIT_MS = 10
UNHURRIED_FETCHING = Fetching(max_wait_ms=100, min_bytes=65_536)  # of a group that nobody waits for


class Worker:
    """Everything one worker process runs, for the given roles of all declared streams."""

    def __init__(self, settings: Settings, connection: KafkaConnection, roles: Iterable[RoleName]) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._connection = connection
        self._role_names = tuple(roles)
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._roles: list[Role] = []
        self._started = False
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
        self._require_training()
        cluster = await self._connection.reachable()
        if not self._settings.streams:
            raise SettingsError("no stream is declared: write a [streams.<name>] table, or run `penstock stream init`")
        await self._check_topics(cluster.embedded)
        self._require_sinks()
        if "learn" in self._role_names:  # imports their libraries while the event loop has nothing else to do
            await asyncio.to_thread(self._require_learners)
            if any(stream.archive.enabled for stream in self._settings.streams):
                await asyncio.to_thread(importlib.import_module, "agents.archive.stage")
        pages = Pages(self.metrics, self._refresh_gauges, self.health)
        address = await pages.start(self._settings.metrics_host, self._settings.metrics_port)
        closing.push_async_callback(pages.stop)
        guard = LoopGuard(asyncio.get_running_loop(), self._settings.stall_timeout_ms / 1000)
        guard.start()
        closing.callback(guard.stop)
        closing.push_async_callback(self._stop_background)
        await self._start_streams(cluster.embedded, closing)
        stages = [stage for stream in self._streams for name in self._role_names for stage in stream.stages(name)]
        by_group = {group: list(of_it) for group, of_it in groupby(sorted(stages, key=_group), _group)}
        await together(
            *(self._start_role(group, of_it, cluster.embedded, closing) for group, of_it in by_group.items())
        )
        page = await self._start_page(closing)
        self._started = True
        self._spawn(measure_loop_lag(self.metrics))
        self._spawn(self._progress.run())
        log.info("the worker runs %s; metrics and health are at %s%s", ", ".join(self._role_names), address, page)

    async def _start_page(self, closing: contextlib.AsyncExitStack) -> str:
        """Serve the live page, and return where it is, for the log; without a port the worker does without it."""
        following = Following(self._connection, self._settings.streams, now_ms, self._pending)
        server = PageServer(Audience(following.run, now_ms), [stream.name for stream in self._settings.streams])
        try:
            address = await server.start(self._settings.page_host, self._settings.page_port)
        except SettingsError as error:
            log.warning("this worker serves no page: %s", error)
            return ""
        closing.push_async_callback(server.stop)
        return f"; the page is at {address}"

    def _pending(self, stream: str) -> int | None:
        """Return how many predictions wait for their label; None unless this worker joins all partitions."""
        spec = next(spec for spec in self._settings.streams if spec.name == stream)
        waiting = self.metrics.values(m.JOIN_PENDING, stream)
        return int(sum(waiting)) if len(waiting) == spec.partitions else None

    async def _check_topics(self, embedded: bool) -> None:
        if embedded:
            self._require_partitions()
            return
        wanted = [spec for stream in self._settings.streams for spec in topics_of(stream)]
        if problems := await admin.check(self._connection, wanted):
            raise SettingsError("\n".join(problems))

    def _require_partitions(self) -> None:
        problems = [
            f"stream {stream.name!r}: partitions is {stream.partitions}, and the embedded broker gives every topic "
            f"{EMBEDDED_PARTITIONS}: set it to that, or use a Kafka"
            for stream in self._settings.streams
            if stream.partitions != EMBEDDED_PARTITIONS
        ]
        if problems:
            raise SettingsError("\n".join(problems))

    def _require_training(self) -> None:
        """Refuse the role train, named among others or alone, where it would do nothing."""
        streams, named = self._settings.streams, set(self._role_names) < set(ROLES)
        if named and streams and "train" in self._role_names and all(stream.training is None for stream in streams):
            tables = " or ".join(f"[streams.{stream.name}.training]" for stream in streams)
            raise SettingsError(f"the role train has nothing to do: write a table {tables}, or leave out --role train")

    def _require_sinks(self) -> None:
        if "learn" in self._role_names and (wrong := self._settings.sink_problems()):
            raise SettingsError("\n".join(wrong))

    def _require_learners(self) -> None:
        found = check_learners(self._settings)
        if wrong := [f"{finding.subject}: {finding.sentence}" for finding in found if finding.status == "problem"]:
            raise SettingsError("\n".join(wrong))

    async def _start_streams(self, embedded: bool, closing: contextlib.AsyncExitStack) -> None:
        shelf = ModelShelf(model_opener(self._settings), self._settings.model_memory_bytes)
        self._shelf = shelf
        announcer = Announcer(self._connection)

        def open_consumer(fetch_max_wait_ms: int = self._settings.kafka_fetch_max_wait_ms) -> AIOKafkaConsumer:
            return AIOKafkaConsumer(
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                isolation_level="read_uncommitted" if embedded else "read_committed",
                fetch_max_wait_ms=EMBEDDED_OTHERS_WAIT_MS if embedded else fetch_max_wait_ms,
                **self._connection.client_options(),
            )

        resources = partial(resources_of, self._settings, self._connection, embedded)
        # Views are kept where the stage of that name runs.
        redis = await closing.enter_async_context(open_views(self._settings)) if "learn" in self._role_names else None
        self._streams = [
            StreamStages(spec, self._settings, shelf, self.metrics, announcer, open_consumer, resources, redis)
            for spec in self._settings.streams
        ]
        logs: list[LogView[Any]] = [view for stream in self._streams for view in (stream.models, stream.deployments)]
        views: ViewFollower = ViewFollower(open_consumer(VIEWS_FETCH_WAIT_MS), logs)
        for stream in self._streams:
            stream.attach(views, scores="score" in self._role_names)
        closing.push_async_callback(views.stop)
        await views.start()
        self._spawn(views.followed())
        for stream in self._streams:
            self._spawn(stream.serving.follow())

    async def _start_role(
        self, group: str, stages: list[StageSpec], embedded: bool, closing: contextlib.AsyncExitStack
    ) -> None:
        settings = RoleSettings(
            connection=self._connection,
            group=f"{self._settings.kafka_group_prefix}-{group}",
            exactly_once=self._settings.delivery == "exactly_once" and not embedded,
            commit_interval_s=self._settings.commit_interval_ms / 1000,
            session_timeout_ms=self._settings.kafka_session_timeout_ms,
            fetching=self._fetching(group, embedded, prompt=any(stage.prompt for stage in stages)),
        )
        role = Role(settings, stages, self.metrics, self.end)
        self._roles.append(role)
        closing.push_async_callback(role.stop)
        await role.start()
        self._spawn(self._crash_of(role))

    def _fetching(self, group: str, embedded: bool, *, prompt: bool) -> Fetching:
        if embedded:
            return Fetching(EMBEDDED_FETCH_WAIT_MS.get(group, EMBEDDED_OTHERS_WAIT_MS))
        if prompt:
            return Fetching(self._settings.kafka_fetch_max_wait_ms)
        return UNHURRIED_FETCHING

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
        scoring = "score" not in self._role_names or all(stream.serving.current for stream in self._streams)
        ready = self._started and scoring and all(role.ready for role in self._roles)
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
                self.metrics.set(m.CONSUMER_LAG, lag, task.name.group, source.topic, str(source.partition))
        self.metrics.clear(m.MODEL_MEMORY)
        for stream, model_id, size_bytes in self._shelf.loaded:
            self.metrics.set(m.MODEL_MEMORY, size_bytes, stream, model_id)
        self.metrics.clear(m.MODEL_INFO)
        for served in (stream.serving.current for stream in self._streams):
            if served is not None:
                revision = str(served.deployment.revision)
                arms = [arm.version for arm in served.arms[1:] if arm.model is not None and arm.version is not None]
                for version in (served.version, *arms):
                    self.metrics.set(m.MODEL_INFO, 1, version.stream, version.model_id, version.algorithm, revision)
        if "learn" in self._role_names:
            self._refresh_registry_gauges()

    def _refresh_registry_gauges(self) -> None:
        self.metrics.clear(m.MODEL_FILE_SIZE)
        for stream in self._streams:
            name, statuses = stream.spec.name, stream.statuses
            for status in get_args(Status):
                self.metrics.set(m.MODELS_REGISTERED, statuses[status], name, status)
            for version in stream.routed:
                self.metrics.set(m.MODEL_FILE_SIZE, version.size_bytes, name, version.model_id)

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


def _group(stage: StageSpec) -> str:
    return stage.group


def _serving_report(serving: Serving) -> Report:
    served = serving.current
    if served is None:
        return {"champion": None, "shadows": [], "revision": 0}
    return {
        "champion": served.version.model_id,
        "shadows": [shadow.version.model_id for shadow in served.shadows],
        "revision": served.deployment.revision,
    }


async def run_worker(settings: Settings, connection: KafkaConnection, roles: Iterable[RoleName] = ROLES) -> None:
    """Run a worker until SIGTERM or SIGINT. Raises the error that ended it otherwise."""
    with rarely_collected():
        worker = Worker(settings, connection, roles)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.end)
        await worker.run()
