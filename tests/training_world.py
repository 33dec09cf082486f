"""The train stage in its task, on a Kafka in memory, with runs that follow a script and faults where it waits."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import msgspec

from agents.train.job import Job, Made, Said
from agents.train.stage import Train, TrainState
from agents.train.world import Doing, World
from schemas.events import Alert, Checkpoint, Command, Deployment, ModelVersion, RetrainRequest
from schemas.experiments import Experiment, ExperimentPlan
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.tasks import TaskName
from stream.views import LogView
from tests.lives import CheckpointLog, Life
from tests.support import (
    MemoryDelivery,
    MemoryKafka,
    MemorySource,
    Pass,
    at_once,
    deployment_of,
    leap_through,
    now,
    version_of,
)
from tests.training import DAY_MS, made_of, resources_of, spec_of
from topics.specs import StreamTopics

TOPICS = StreamTopics("flights")
REQUESTS = TopicPartition(TOPICS.retrain, 0)
CHECKPOINTS = TopicPartition(TOPICS.checkpoints, 0)
NAME = TaskName("train", "flights", "train", 0)
PLAN = ExperimentPlan(metric="brier", steps=(0.1, 1.0))
KAFKA_MS = 1000 * DAY_MS
PASSES, FAILS_GATES = "passes", "fails its gates"
Script = Iterable[Said | float | str]
"""What an attempt does: says something, waits so many seconds, or makes a candidate that passes, or does not."""


class EagerDelivery(MemoryDelivery):
    """A producer without transactions: each record can be read at once, and a crash leaves any number of them."""

    hides_until_commit = False

    async def hidden(self, outbox: Outbox) -> list[tuple[TopicPartition, bytes]]:
        for target, records in outbox.targets.items():
            for _, value in records:
                await self.wait("send")
                self.kafka.written[target].append(value)
        await self.wait("sent")
        return []


class TrainingWorld:
    """What outlives a worker: Kafka, and the script of the next attempts.

    `jobs` are those that began, `cleared` those of which nothing is left, and `followers` are told of new deployments.
    """

    def __init__(self, spec: StreamSpec, delivery: type[MemoryDelivery] = MemoryDelivery) -> None:
        self.spec = spec
        self.kafka = MemoryKafka()
        self.jobs: list[Job] = []
        self.scripts: list[Script] = []
        self.faults: list[str] = []
        self.cleared: list[Job] = []
        self.followers: list[Callable[[], None]] = []
        self._make_delivery = delivery

    def ask(self, *requests: RetrainRequest) -> None:
        """Append requests to the log, which Kafka takes in long after the times that they carry."""
        self.kafka.append(REQUESTS, map(encode, requests))
        log = self.kafka.logs[REQUESTS]
        log[-len(requests) :] = [replace(entry, timestamp=KAFKA_MS) for entry in log[-len(requests) :]]

    def route(self, experiment: Experiment | None = None, champion: ModelVersion | None = None) -> None:
        """Deploy a champion, registered with it, else the one of that name; perhaps with an experiment."""
        written = self.kafka.written[TopicPartition(TOPICS.deployments, 0)]
        if champion is not None or not written:
            version = champion or version_of(self.spec, "champion")
            self.kafka.written[TopicPartition(TOPICS.models, 0)].append(encode(version))
        model_id = champion.model_id if champion is not None else "champion"
        deployment = deployment_of(self.spec, model_id, len(written) + 1)
        written.append(encode(msgspec.structs.replace(deployment, experiment=experiment)))
        for follower in self.followers:
            follower()

    def said(self, topic: str, kind: type[msgspec.Struct]) -> list[Any]:
        """Return what readers see of a topic."""
        return [decode(kind, value) for value in self.kafka.written[TopicPartition(topic, 0)]]

    @property
    def events(self) -> list[TrainingEvent]:
        return self.said(TOPICS.training, TrainingEvent)

    @property
    def ended(self) -> list[TrainingEvent]:
        return [event for event in self.events if event.phase == "ended"]

    @property
    def models(self) -> list[ModelVersion]:
        return self.said(TOPICS.models, ModelVersion)

    @property
    def alerts(self) -> list[Alert]:
        return self.said(TOPICS.alerts, Alert)

    @property
    def commands(self) -> list[Command]:
        return self.said(TOPICS.commands, Command)

    @property
    def state(self) -> TrainState:
        """The newest checkpoint that is durable."""
        return decode(TrainState, decode(Checkpoint, self.kafka.written[CHECKPOINTS][-1]).state)

    def begin(self, job: Job) -> Script:
        """Note that an attempt begins, which must be durable by then; return its script."""
        run = self.state.queue.run
        if run is None or (run.run_id, run.attempt) != (job.run_id, job.attempt):
            self.faults.append(f"attempt {job.attempt} of {job.run_id} began before it was counted: {run}")
        self.jobs.append(job)
        return self.scripts.pop(0) if self.scripts else [PASSES]


class Worker(Life):
    """One life of the stage: a task that fetches requests, until it is closed or killed."""

    def __init__(self, world: TrainingWorld, wait: Pass = at_once) -> None:
        self.world = world
        self.wait = wait
        self._models = LogView(TOPICS.models, ModelVersion)
        self._deployments = LogView(TOPICS.deployments, Deployment)
        metrics = Metrics()
        stage = Train(
            world.spec,
            CheckpointLog(world.kafka, CHECKPOINTS),
            World(self._models, self._deployments, self._caught_up, self._samples_end),
            PLAN,
            Doing(resources_of(), self._run, self._clear),
            metrics,
            lambda: int(1000 * now()),
            now,
        )
        world.followers.append(self._fold)
        source = MemorySource(world.kafka, wait)
        super().__init__(
            NAME, stage, REQUESTS, source, lambda name: world._make_delivery(world.kafka, str(name), wait), metrics
        )

    async def end(self, timeout_s: float = 30.0) -> None:
        await super().end(timeout_s)
        self.world.followers.remove(self._fold)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the stream."""
        return self.metrics.registry.get_sample_value(name, {"stream": "flights"} | labels) or 0.0

    @property
    def listeners(self) -> int:
        """How many are told of new deployments."""
        return len(self._deployments._listeners)

    async def _run(self, job: Job) -> AsyncGenerator[Said, None]:
        for step in self.world.begin(job):
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            said = made_of(job, passed=step == PASSES) if isinstance(step, str) else step
            await self.wait("said")
            yield said
            if isinstance(said, Made):
                return

    async def _clear(self, job: Job) -> None:
        await self.wait("clear")
        self.world.cleared.append(job)

    async def _caught_up(self) -> None:
        await self.wait("caught up")
        self._fold()

    def _fold(self) -> None:
        for view in (self._models, self._deployments):
            written = self.world.kafka.written[TopicPartition(view.topic, 0)]
            if news := written[len(view.events) :]:
                view.fold(news)

    async def _samples_end(self) -> int:
        await self.wait("samples end")
        return 1000 + int(now())


def in_world(**training: Any) -> Callable[[Callable[[TrainingWorld], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Run a scenario in leaping time, in a world of its own."""

    def decorate(scenario: Callable[[TrainingWorld], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def wrapped() -> None:
            world = TrainingWorld(spec_of(**training))
            leap_through(scenario(world))
            assert world.faults == []

        return wrapped

    return decorate


async def settle(seconds: float = 1.0) -> None:
    """Let so much time pass."""
    await asyncio.sleep(seconds)


def outcomes(world: TrainingWorld) -> list[tuple[str | None, tuple[str, ...]]]:
    """Return how runs ended, and which requests each of them answers."""
    return [(event.outcome, event.request_ids) for event in world.ended]
