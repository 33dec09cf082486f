"""A partition task loses nothing and doubles nothing, whatever happens at any of the points where it waits."""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from enum import Enum

import pytest
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.tasks import PartitionTask, TaskLimits, TaskName
from stream.turns import Turns
from tests.support import MemoryDelivery, MemoryKafka, MemorySource, Offsets, Pass, leap_through, now

NAME = TaskName("group", "flights", "copy", 0)
LIMITS = TaskLimits(commit_interval_s=0.1, fenced_pause_s=12.0, prompt=True)
CLOSE_S = 30.0
HOUR_S = 3600.0


class Fault(Enum):
    """What can happen while a task waits for the broker."""

    SLOW = "the broker takes longer than a closing task waits"
    LOST = "the connection is lost"
    FENCED = "another producer has started under the task's name and is gone again"
    KILLED = "the process is killed"
    REVOKED = "the partition goes away and comes back"
    RIVAL = "another worker starts the task, and this one hears of it only later"


@dataclass(frozen=True)
class Plan:
    """How one run goes. Lists are repeated without end; `faults` are by the number of the point they strike at."""

    inputs: int
    arrivals: list[tuple[int, float]]
    gap: int
    batch_sizes: list[int]
    delays_s: list[float]
    steps_s: list[float]
    faults: dict[int, Fault]


PLANS = st.builds(
    Plan,
    inputs=st.integers(1, 2),
    arrivals=st.lists(st.tuples(st.integers(1, 20), st.sampled_from([0.0, 0.01, 0.5])), min_size=1, max_size=8),
    gap=st.integers(0, 2),
    batch_sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.2]), min_size=1, max_size=4),
    steps_s=st.lists(st.sampled_from([0.0, 0.01, 0.3]), min_size=1, max_size=4),
    faults=st.dictionaries(st.integers(0, 80), st.sampled_from(Fault), max_size=8),
)


class Copy(Stage):
    """A stage that writes what it reads, to the partition of the same number."""

    def __init__(self, wait: Pass) -> None:
        self._wait = wait

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        await self._wait("open")

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        await self._wait("process")
        for record in batch.records:
            target = output_of(batch.source)
            outbox.add(target.topic, target.partition, None, record.value or b"")

    async def save(self, outbox: Outbox) -> None:
        await self._wait("save")


def output_of(source: TopicPartition) -> TopicPartition:
    return TopicPartition(f"copy of {source.topic}", source.partition)


class AcknowledgedDelivery(MemoryDelivery):
    """A producer without transactions: what is sent can be read at once, and offsets only move for the owner."""

    hides_until_commit = False

    async def hidden(self, outbox: Outbox) -> list[tuple[TopicPartition, bytes]]:
        for target, value in await super().hidden(outbox):
            self.kafka.written[target].append(value)
        return []

    async def _commit(self, closing: list[tuple[TopicPartition, bytes]], saved: Outbox, offsets: Offsets) -> None:
        try:
            await super()._commit(closing, saved, offsets)
        except KafkaConnectionError:
            raise
        except Exception as error:
            raise CommitFailedError from error


class Life:
    """One worker process as far as the task is concerned: a consumer and the task, until the process ends."""

    def __init__(self, world: "World") -> None:
        self.dead = False
        self._world = world
        source = MemorySource(world.kafka, self._wait)
        self.task = world.make_task(
            NAME,
            Copy(self._wait),
            world.inputs,
            source,
            lambda name: world.make_delivery(world.kafka, str(name), self._wait),
            LIMITS,
            Metrics(),
            lambda _, error: world.fail(f"fatal: {error!r}"),
            Turns(),
            now,
        )
        self._polling = asyncio.create_task(source.run(self.task.accept, world.batch_sizes, world.delays_s))
        self.task.start()

    async def close(self) -> None:
        """Take the partition away."""
        before = now()
        await self.task.close(CLOSE_S)
        if now() - before > CLOSE_S + 1.0:
            self._world.fail(f"closing took {now() - before:.1f} s")
        self._polling.cancel()
        await asyncio.wait({self._polling})

    async def kill(self) -> None:
        """End at once: nothing that the task still does reaches anybody."""
        self.dead = True
        await self.task.close(0.0)
        self._polling.cancel()
        await asyncio.wait({self._polling})

    async def _wait(self, point: str) -> None:
        await self._world.strike(self, point)


class World:
    """One run of a plan, with a watch on what a reader of committed records sees."""

    def __init__(
        self, plan: Plan, make_task: type[PartitionTask], make_delivery: type[MemoryDelivery], once: bool
    ) -> None:
        self.kafka = MemoryKafka()
        self.inputs = tuple(TopicPartition(f"input {number}", 0) for number in range(plan.inputs))
        self.batch_sizes = itertools.cycle(plan.batch_sizes)
        self.delays_s = itertools.cycle(plan.delays_s)
        self.make_task = make_task
        self.make_delivery = make_delivery
        self.failures: list[str] = []
        self._plan = plan
        self._once = once
        self._steps_s = itertools.cycle(plan.steps_s)
        self._points = itertools.count()
        self._blows: deque[tuple[Life, Fault]] = deque()
        self._news = asyncio.Event()
        self.kafka.watch(self._look)

    def fail(self, why: str) -> None:
        self.failures.append(why)
        self._news.set()

    async def run(self) -> None:
        """Live through the plan until all input is committed."""
        producing = asyncio.create_task(self._produce())
        life = Life(self)
        try:
            async with asyncio.timeout(HOUR_S):
                while not self.failures and not (producing.done() and self._drained):
                    await self._news.wait()
                    self._news.clear()
                    while self._blows:
                        life = await self._take(life, *self._blows.popleft())
        except TimeoutError:
            self.fail(f"stuck: {self.kafka.offsets} of {dict(self.kafka.ends)}")
        await life.close()
        producing.cancel()

    async def strike(self, life: Life, point: str) -> None:
        """Do to `life` what the plan has for this moment."""
        if life.dead:
            await asyncio.Future()
        if point == "process":
            await asyncio.sleep(next(self._steps_s))
        fault = self._plan.faults.get(next(self._points))
        if fault in (Fault.KILLED, Fault.REVOKED, Fault.RIVAL):
            self._blows.append((life, fault))
            self._news.set()
            life.dead = life.dead or fault is Fault.KILLED
        if life.dead:
            await asyncio.Future()
        if fault is Fault.FENCED:
            self.kafka.fence(str(NAME))
        if fault is Fault.LOST:
            raise KafkaConnectionError
        await asyncio.sleep(2 * CLOSE_S if fault is Fault.SLOW else 0)

    async def _take(self, current: Life, struck: Life, fault: Fault) -> Life:
        """Carry out a blow; return the life that goes on."""
        if struck is not current:
            return current
        if fault is Fault.KILLED:
            await current.kill()
            return Life(self)
        if fault is Fault.REVOKED:
            await current.close()
            return Life(self)
        rival = Life(self)
        await asyncio.sleep(5.0)
        await current.close()
        return rival

    async def _produce(self) -> None:
        numbers = itertools.count()
        for count, pause_s in self._plan.arrivals:
            for source in self.inputs:
                self.kafka.append(source, [b"%d" % next(numbers) for _ in range(count)], self._plan.gap)
            await asyncio.sleep(pause_s)
        self._news.set()

    @property
    def _drained(self) -> bool:
        return all(self.kafka.offsets.get(tp, 0) > self.kafka.logs[tp][-1].offset for tp in self.inputs)

    def _look(self) -> None:
        """Compare what can be read with what the offsets say is done: they must agree at every moment."""
        for source in self.inputs:
            offset = self.kafka.offsets.get(source, 0)
            done = [entry.value for entry in self.kafka.logs[source] if entry.offset < offset]
            seen = self.kafka.written[output_of(source)]
            if self._once and seen != done:
                self.fail(f"{source.topic} is done up to {done[-1:]}, but these were written: {seen}")
            if not set(done) <= set(seen):
                self.fail(f"of {source.topic} these are done, but were never written: {set(done) - set(seen)}")
        self._news.set()


def live(
    plan: Plan,
    make_task: type[PartitionTask] = PartitionTask,
    make_delivery: type[MemoryDelivery] = MemoryDelivery,
    once: bool = True,
) -> None:
    """Run `plan` and assert that nothing failed."""

    async def run() -> list[str]:
        world = World(plan, make_task, make_delivery, once)
        await world.run()
        return world.failures

    assert leap_through(run()) == []


@settings(max_examples=300, deadline=None, database=None)
@given(PLANS)
def test_every_input_is_committed_exactly_once_and_in_order(plan: Plan) -> None:
    live(plan)


@settings(max_examples=150, deadline=None, database=None)
@given(PLANS)
def test_without_transactions_no_offset_passes_what_was_written(plan: Plan) -> None:
    live(plan, make_delivery=AcknowledgedDelivery, once=False)


class SkippingDelivery(MemoryDelivery):
    """Moves the offsets although its outputs are lost, once in a while."""

    def commit(self, saved: Outbox, offsets: Offsets) -> Awaitable[None]:
        if len(self.unsent) > 5:
            self.unsent.pop()
        return super().commit(saved, offsets)


class RepeatingDelivery(MemoryDelivery):
    """Does not give up what an earlier owner had sent: it comes out with the next commit."""

    left: list[tuple[TopicPartition, bytes]] = []  # noqa: RUF012  # shared on purpose

    async def start(self) -> None:
        await super().start()
        self.unsent += type(self).left
        type(self).left = []

    async def stop(self) -> None:
        type(self).left = self.unsent


class CredulousTask(PartitionTask):
    """Takes batches that were fetched before it opened."""

    def accept(self, batch: Batch) -> None:
        epoch = self._epochs.get(batch.source, batch.epoch)
        super().accept(Batch(batch.source, batch.records, epoch))


class HastyTask(PartitionTask):
    """Reads where to go on before the previous owner is fenced."""

    async def _open_and_run(self) -> None:
        read = {source: await self._source.resume_offset(source) for source in self._inputs}
        truth, self._source.resume_offset = self._source.resume_offset, lambda source: _later(read[source])  # type: ignore[method-assign]
        try:
            await super()._open_and_run()
        finally:
            self._source.resume_offset = truth  # type: ignore[method-assign]


async def _later(offset: int) -> int:
    return offset


class ForgetfulTask(PartitionTask):
    """Keeps waiting batches over a new opening."""

    def _abandon(self) -> None:
        kept = {source: list(lane) for source, lane in self._lanes._lanes.items()}
        super()._abandon()
        for source, batches in kept.items():
            self._lanes._lanes[source].extend(batches)


@pytest.mark.parametrize(
    ("task", "delivery"),
    [
        (PartitionTask, SkippingDelivery),
        (PartitionTask, RepeatingDelivery),
        (CredulousTask, MemoryDelivery),
        (HastyTask, MemoryDelivery),
        (ForgetfulTask, MemoryDelivery),
    ],
)
def test_a_planted_skip_or_double_is_caught(task: type[PartitionTask], delivery: type[MemoryDelivery]) -> None:
    @settings(max_examples=1000, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(PLANS)
    def check(plan: Plan) -> None:
        live(plan, task, delivery)

    with pytest.raises(AssertionError, match="but these were written"):
        check()
