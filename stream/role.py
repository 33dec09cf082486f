"""A role on this worker: one consumer group, the stages it runs, and a task per partition it owns.

This is where Faust's wiring meets the partition tasks: Faust subscribes and hands batches to agents, the
agents pass them here, and each goes to the task of its partition.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

from stream import metrics as m
from stream.assignor import StreamAssignor
from stream.batches import Batch, TopicPartition
from stream.connection import KafkaConnection
from stream.delivery import AtLeastOnce, Delivery, ExactlyOnce
from stream.links import Links
from stream.metric_values import Metrics
from stream.records import plain
from stream.stage import Stage
from stream.tasks import PartitionTask, TaskLimits, TaskName
from stream.transport import BatchApp, Consumer
from stream.turns import Turns

log = logging.getLogger("penstock.role")

REBALANCE_S = 60.0
FETCH_BYTES = 2 * 1024 * 1024  # of one partition at a time: about 6,000 events


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of one stream: `topics` are its inputs, co-partitioned; `make` builds it for a partition.

    `group` names the consumer group that runs it: stages that read the same topic need different ones. `make` takes
    the partition number and how many partitions the inputs have. A stage that needs one order has a `single`
    partition: others, which only the embedded broker can have, are left alone. Somebody waits for what a `prompt` stage
    writes; the others save the broker many small fetches and transactions.
    """

    stream: str
    group: str
    name: str
    topics: tuple[str, ...]
    make: Callable[[int, int], Stage]
    single: bool = False
    prompt: bool = False


class Fetching(NamedTuple):
    """A broker answers a fetch when it has `min_bytes`, or after `max_wait_ms`."""

    max_wait_ms: int
    min_bytes: int = 1


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """How the role talks to Kafka. `exactly_once` needs a broker with transactions."""

    connection: KafkaConnection
    group: str
    exactly_once: bool
    commit_interval_s: float
    session_timeout_ms: int
    fetching: Fetching


class Role:
    """Runs `stages` as one member of the consumer group. `on_fatal` hears of errors that must stop the worker."""

    def __init__(
        self,
        settings: RoleSettings,
        stages: list[StageSpec],
        metrics: Metrics,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.tasks: dict[TaskName, PartitionTask] = {}
        self.assigned_once = False
        self._stopping = False
        self._settings = settings
        self._stages = stages
        self._metrics = metrics
        self._on_fatal = on_fatal
        self._turns = Turns()
        self._by_source: dict[TopicPartition, PartitionTask] = {}
        self._links = Links(settings.connection)
        self._app = self._new_app()

    @property
    def consumer(self) -> Consumer:
        """The role's consumer; there is one once `start` has returned."""
        consumer: Consumer = self._app.consumer
        return consumer

    @property
    def ready(self) -> bool:
        """Whether the group has assigned partitions and every task on them has recovered."""
        return self.assigned_once and all(task.running for task in self.tasks.values())

    async def start(self) -> None:
        """Join the group and begin to work."""
        await self._links.start()
        await self._app.start()

    async def stop(self) -> None:
        """Finish and commit the work at hand, then leave the group."""
        self._stopping = True
        await self._close(list(self.tasks.values()))
        await self._app.stop()
        await self._links.stop()

    async def crashed(self) -> BaseException:
        """Wait until Faust itself fails, and return why."""
        await self._app._crashed.wait()
        return self._app.crash_reason or RuntimeError("Faust ended without a reason")

    # Called by the transport

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Open a task for every stage and partition that this worker owns with all its inputs."""
        self.assigned_once = True
        if self._stopping:
            return
        for stage in self._stages:
            owned = {tp.partition for tp in partitions if tp.topic in stage.topics}
            for partition in sorted(owned & {0} if stage.single else owned):
                inputs = tuple(TopicPartition(topic, partition) for topic in stage.topics)
                if partitions.issuperset(inputs):
                    self._open(stage, inputs)

    async def revoked(self, partitions: set[TopicPartition]) -> None:
        """Close the tasks of `partitions`."""
        await self._close([task for source, task in self._by_source.items() if source in partitions])

    def out_of_range(self, source: TopicPartition) -> None:
        """Open the task of `source` anew, which finds out what is left of it."""
        if (task := self._by_source.get(source)) is not None:
            task.reopen(f"the broker no longer has the records of {source.topic}/{source.partition} that come next")

    async def _deliver(self, batch: Batch) -> None:
        if (task := self._by_source.get(batch.source)) is not None:
            task.accept(batch)

    def _open(self, stage: StageSpec, inputs: tuple[TopicPartition, ...]) -> None:
        partition = inputs[0].partition
        name = TaskName(self._settings.group, stage.stream, stage.name, partition)
        if name in self.tasks:
            return
        task = PartitionTask(
            name,
            stage.make(partition, self.consumer.topic_partitions(inputs[0].topic) or 1),
            inputs,
            self.consumer,
            self._new_delivery,
            TaskLimits(
                commit_interval_s=self._settings.commit_interval_s,
                fenced_pause_s=self._settings.session_timeout_ms / 1000 + 2,
                prompt=stage.prompt,
            ),
            self._metrics,
            self._failed,
            self._turns,
        )
        self.tasks[name] = task
        self._by_source.update(dict.fromkeys(inputs, task))
        task.start()
        self._count_tasks()

    async def _close(self, tasks: list[PartitionTask]) -> None:
        tasks = list(dict.fromkeys(tasks))
        await asyncio.gather(*(task.close(REBALANCE_S / 2) for task in tasks))
        for task in tasks:
            self.tasks.pop(task.name, None)
        self._by_source = {source: task for source, task in self._by_source.items() if task not in tasks}
        self._count_tasks()

    def _count_tasks(self) -> None:
        for stage in {stage.name for stage in self._stages}:
            self._metrics.set(m.TASKS, sum(name.stage == stage for name in self.tasks), self._settings.group, stage)

    def _failed(self, name: TaskName, error: BaseException) -> None:
        log.error("%s failed: %s", name, error)
        self._on_fatal(error)

    def _expired(self, source: TopicPartition, events: int) -> None:
        self._metrics.count(m.EVENTS_EXPIRED, events, source.topic)
        log.error("retention removed %d records of %s/%d before they were read", events, source.topic, source.partition)

    def _new_delivery(self, name: TaskName) -> Delivery:
        if self._settings.exactly_once:
            return ExactlyOnce(self._links, str(name), self._settings.group)
        return AtLeastOnce(self._links, str(name), self.consumer.commit_offsets)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            group_id=self._settings.group,
            partition_assignment_strategy=[StreamAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            value_deserializer=plain,
            isolation_level="read_committed" if self._settings.exactly_once else "read_uncommitted",
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=self._settings.session_timeout_ms // 5,
            rebalance_timeout_ms=int(REBALANCE_S * 1000),
            max_poll_interval_ms=2**31 - 1,  # held partitions are not polled; the watchdog judges progress
            fetch_max_wait_ms=self._settings.fetching.max_wait_ms,
            fetch_min_bytes=self._settings.fetching.min_bytes,
            max_partition_fetch_bytes=FETCH_BYTES,
            **self._settings.connection.client_options(),
        )

    def _new_app(self) -> BatchApp:
        app = BatchApp(
            self._settings.group,
            broker=f"penstock://{self._settings.connection.bootstrap}",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            autodiscover=False,
            datadir=Path(tempfile.gettempdir(), "penstock-faust"),  # Faust makes folders for tables; we have none
            store="memory://",
            reply_create_topic=False,
        )
        app.owner = self
        app.open_consumer = self._new_consumer
        app.on_expired = self._expired
        for topic in sorted({topic for stage in self._stages for topic in stage.topics}):
            app.batch_agent(topic, self._deliver)
        return app
