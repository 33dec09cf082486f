"""A partition task on a Kafka in memory, with a bench for its stage."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.tasks import PartitionTask, TaskLimits, TaskName
from stream.turns import Turns
from tests.support import MemoryDelivery, MemoryKafka, MemorySource, leap_through, now

INPUT = TopicPartition("in", 0)
OUTPUT = TopicPartition("out", 0)
STATE = TopicPartition("state", 0)
NAME = TaskName("group", "flights", "copy", 0)
PAUSE_S = 12.0
INTERVAL_S = 0.1

Scenario = Callable[["Bench"], Coroutine[None, None, None]]


class Bench:
    """One task on a Kafka in memory; the bench is its stage. `log` is what happened, each with its time."""

    aligned = True
    has_news = False
    wake: Callable[[], None]

    def __init__(self, *inputs: TopicPartition, prompt: bool = True) -> None:
        self.kafka = MemoryKafka()
        self.log: list[tuple[float, str]] = []
        self.errors: dict[str, list[BaseException]] = {}
        self.waits_s: dict[str, float] = {}
        self.fatal: list[BaseException] = []
        self.hides_until_commit = True
        self.opened_at: dict[TopicPartition, int] = {}
        self.processed: list[bytes] = []
        self.saves = False
        self.writes = True
        self.metrics = Metrics()
        self.source = MemorySource(self.kafka, self.at)
        self.task = PartitionTask(
            NAME,
            self,
            inputs or (INPUT,),
            self.source,
            self._new_delivery,
            TaskLimits(INTERVAL_S, PAUSE_S, prompt),
            self.metrics,
            lambda _, error: self.fatal.append(error),
            Turns(),
            now,
        )

    def _new_delivery(self, name: TaskName) -> MemoryDelivery:
        self.delivery = MemoryDelivery(self.kafka, str(name), self.at)
        self.delivery.hides_until_commit = self.hides_until_commit
        return self.delivery

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        self.opened_at = dict(committed)
        await self.at("open")

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        await self.at("process")
        for record in batch.records if self.writes else ():
            outbox.add(OUTPUT.topic, OUTPUT.partition, None, record.value or b"")
        self.processed += [record.value or b"" for record in batch.records]

    async def save(self, outbox: Outbox) -> None:
        await self.at("save")
        if self.saves:
            outbox.add(STATE.topic, STATE.partition, None, b",".join(self.processed))

    async def finish(self) -> None:
        await self.at("finish")

    async def close(self) -> None:
        await self.at("close")

    async def at(self, point: str) -> None:
        """Note the moment, then wait or fail as the test wants."""
        self.log.append((now(), point))
        await asyncio.sleep(self.waits_s.get(point, 0.0))
        if errors := self.errors.get(point):
            raise errors.pop(0)

    def times(self, point: str) -> list[float]:
        return [time for time, what in self.log if what == point]

    def points(self) -> list[str]:
        return [what for _, what in self.log]

    def restarts(self, reason: str) -> float:
        labels = {"stage": "copy", "reason": reason}
        return self.metrics.registry.get_sample_value("ml_task_restarts_total", labels) or 0.0

    async def settle(self, seconds: float = 0.001) -> None:
        """Let everything happen that can happen within `seconds`."""
        await asyncio.sleep(seconds)

    async def begin(self, *values: bytes) -> None:
        """Start the task with `values` in its input, and let it open."""
        self.kafka.append(INPUT, values)
        self.task.start()
        await self.settle()
        self.log.clear()

    def deliver(self, records: int = 100) -> list[Batch]:
        """Hand the task what one poll of its open inputs gives."""
        polled = self.source.poll(records)
        for batch in polled:
            self.task.accept(batch)
        return polled


def on_bench(scenario: Scenario, *, prompt: bool = True) -> Callable[[], None]:
    """Run a scenario in leaping time, with a bench whose task is closed at the end."""

    async def run() -> None:
        bench = Bench(prompt=prompt)
        try:
            await scenario(bench)
        finally:
            await bench.task.close(0.0)

    def wrapped() -> None:
        leap_through(run())

    return wrapped


def on_unhurried_bench(scenario: Scenario) -> Callable[[], None]:
    """The same of a task that is not prompt."""
    return on_bench(scenario, prompt=False)
