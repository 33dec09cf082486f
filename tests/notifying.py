"""The notify stage in its task, on a Kafka in memory, with sinks that follow a script."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents.notify import Notify, Outlet
from agents.notify.queue import NotifyState
from schemas.errors import RetryableError
from schemas.events import Alert, Checkpoint, DeadLetter
from schemas.sinks import SinkSpec, SlackSpec
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.tasks import TaskName
from tests.lives import CheckpointLog, Life
from tests.support import Entry, MemoryDelivery, MemoryKafka, MemorySource, Pass, at_once, leap_through, now
from topics.specs import StreamTopics

SPEC = StreamSpec(name="flights", features=("a",))
TOPICS = StreamTopics("flights")
ALERTS = TopicPartition(TOPICS.alerts, 0)
CHECKPOINTS = TopicPartition(TOPICS.checkpoints, 0)
NAME = TaskName("notify", "flights", "notify", 0)
TAKES = "takes"
Step = str | float | BaseException
"""What a sink does with an attempt: it takes the alert, waits so many seconds and takes it, or raises."""


def alert_of(number: int, **changes: Any) -> Alert:
    """Return an alert of the stream."""
    fields: dict[str, Any] = {
        "id": f"a{number}",
        "stream": "flights",
        "kind": "drift",
        "severity": "high",
        "subject": "air_time",
        "message": f"message {number}",
        "recommendation": "Look.",
        "raised_time_ms": number,
    }
    return Alert(**(fields | changes))


class ScriptedSink:
    """A sink that follows `script`, one step for each attempt, and then takes all. `tried` are ids with their times."""

    def __init__(self, script: Iterable[Step] = ()) -> None:
        self.script = iter(script)
        self.tried: list[tuple[float, str]] = []
        self.got: list[str] = []

    async def send(self, alert: Alert) -> None:
        self.tried.append((now(), alert.id))
        step = next(self.script, TAKES)
        if isinstance(step, BaseException):
            raise step
        await asyncio.sleep(step if isinstance(step, float) else 0.0)
        self.got.append(alert.id)


class World:
    """What outlives a worker: Kafka and the sinks. `clock_off_s` is how far the workers' clock is ahead of Kafka's."""

    def __init__(self) -> None:
        self.kafka = MemoryKafka()
        self.clock_off_s = 0.0
        self.readings = self.records_read = self.failing_readings = 0
        self.sinks: dict[str, ScriptedSink] = {}
        self.specs: dict[str, SinkSpec] = {}
        self.with_transactions = True

    def sink(self, name: str, *script: Step, **fields: Any) -> ScriptedSink:
        """Declare a sink."""
        self.specs[name] = SlackSpec(name=name, **fields)
        self.sinks[name] = ScriptedSink(script)
        return self.sinks[name]

    def raise_alerts(self, *alerts: Alert, time_ms: int | None = None) -> None:
        """Append alerts to the log, with Kafka's time."""
        self.append(*map(encode, alerts), time_ms=time_ms)

    def append(self, *values: bytes, time_ms: int | None = None) -> None:
        self.kafka.append(ALERTS, values)
        log, timestamp = self.kafka.logs[ALERTS], int(1000 * now()) if time_ms is None else time_ms
        before = len(log) - len(values)
        log[before:] = [replace(entry, timestamp=timestamp) for entry in log[before:]]

    def clock_ms(self) -> int:
        return int(1000 * (now() + self.clock_off_s))

    async def read_back(self, source: TopicPartition) -> AsyncGenerator[Sequence[Entry], None]:
        """Yield the log in pieces, the newest first, as `stream.tail` does."""
        if self.failing_readings:
            self.failing_readings -= 1
            raise broker_away()
        self.readings += 1
        log = list(self.kafka.logs[source])
        while log:
            await asyncio.sleep(0.001)
            self.records_read += len(log[-4:])
            yield log[-4:]
            del log[-4:]

    @property
    def state(self) -> NotifyState:
        """What is written down."""
        return decode(NotifyState, decode(Checkpoint, self.kafka.written[CHECKPOINTS][-1]).state)

    @property
    def letters(self) -> list[DeadLetter]:
        return [decode(DeadLetter, value) for value in self.kafka.written[TopicPartition(TOPICS.alerts_dead, 0)]]


class EagerDelivery(MemoryDelivery):
    """A producer without transactions: what is sent can be read at once, whatever becomes of the commit."""

    hides_until_commit = False

    async def hidden(self, outbox: Outbox) -> list[tuple[TopicPartition, bytes]]:
        for target, records in outbox.targets.items():
            for _, value in records:
                await self.wait("send")
                self.kafka.written[target].append(value)
        return []


class Worker(Life):
    """One life of the stage: a task that reads alerts, until it is closed or killed."""

    def __init__(self, world: World, wait: Pass = at_once) -> None:
        metrics = Metrics()
        outlets = [Outlet(world.specs[name], sink) for name, sink in world.sinks.items()]
        memory = CheckpointLog(world.kafka, CHECKPOINTS)
        self.stage = Notify(SPEC, outlets, memory, world.read_back, metrics, world.clock_ms, now)
        delivery = MemoryDelivery if world.with_transactions else EagerDelivery
        super().__init__(
            NAME,
            self.stage,
            ALERTS,
            MemorySource(world.kafka),
            lambda name: delivery(world.kafka, str(name), wait),
            metrics,
        )

    async def end(self, timeout_s: float = 30.0) -> None:
        await super().end(timeout_s)
        assert self.fatal == []

    def count(self, sink: str, outcome: str) -> float:
        labels = {"stream": "flights", "sink": sink, "outcome": outcome}
        return self.metrics.registry.get_sample_value("ml_notifications_total", labels) or 0.0

    def waiting(self, sink: str) -> float | None:
        labels = {"stream": "flights", "sink": sink}
        return self.metrics.registry.get_sample_value("ml_notifications_waiting", labels)


def in_world(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a scenario in leaping time, in a world of its own."""

    def wrapped() -> None:
        leap_through(scenario(World()))

    return wrapped


def broker_away() -> BaseException:
    """Return what a stage meets when the broker goes away."""
    return RetryableError("the broker is away")
