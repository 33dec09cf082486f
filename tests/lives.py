"""The lives of a stage on a Kafka in memory: a task that reads its input, and is closed or killed in the end."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from schemas.events import Checkpoint
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.delivery import Delivery
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.tasks import PartitionTask, TaskLimits, TaskName
from stream.turns import Turns
from tests.support import MemoryKafka, MemorySource, now
from tests.tasks import INTERVAL_S, PAUSE_S


class CheckpointLog:
    """A stage's memory of its checkpoints alone, in a topic that no other stage writes to."""

    def __init__(self, kafka: MemoryKafka, topic: TopicPartition) -> None:
        self._kafka = kafka
        self._topic = topic

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        reached = {source.topic: offset for source, offset in committed.items()}
        for value in reversed(self._kafka.written[self._topic]):
            checkpoint = decode(Checkpoint, value)
            if all(offset <= reached.get(topic, -1) for topic, offset in checkpoint.offsets.items()):
                return checkpoint
        return None

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        outbox.add(self._topic.topic, self._topic.partition, None, encode(checkpoint))

    def read(self, *_: Any) -> Any:
        raise AssertionError("records are not read again")


class Life:
    """One life of a stage that reads one partition."""

    def __init__(
        self,
        name: TaskName,
        stage: Stage,
        source: TopicPartition,
        fetching: MemorySource,
        new_delivery: Callable[[TaskName], Delivery],
        metrics: Metrics,
    ) -> None:
        self.metrics = metrics
        self.fatal: list[BaseException] = []
        self.task = PartitionTask(
            name,
            stage,
            (source,),
            fetching,
            new_delivery,
            TaskLimits(commit_interval_s=INTERVAL_S, fenced_pause_s=PAUSE_S, prompt=False),
            metrics,
            lambda _, error: self.fatal.append(error),
            Turns(),
            now,
        )
        self._polling = asyncio.create_task(fetching.run(self.task.accept, itertools.repeat(3), itertools.repeat(0.0)))
        self.task.start()

    async def end(self, timeout_s: float = 30.0) -> None:
        """Close the task, as SIGTERM does; with no time for it, as a kill does to whoever waits."""
        await self.task.close(timeout_s)
        self._polling.cancel()
        await asyncio.wait({self._polling})
