"""What several tests share: time that leaps, a Kafka in memory with a consumer and a producer on it, a model.

`MemoryKafka` knows what makes delivery exactly once: outputs and offsets become visible together, the newest producer
of a name fences the older ones, and a consumer hands over batches late and of any size.
"""

import asyncio
import itertools
import secrets
import selectors
import string
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np
from aiokafka.errors import ProducerFenced

from agents.blobs import Blobs
from ml.models.protocol import Matrix, Scores
from schemas.events import Checkpoint, Deployment, ModelVersion, Sample
from schemas.experiments import BUCKETS, Experiment, ExperimentPlan, Variant
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactStore
from stream.batches import Batch, Outbox, TopicPartition

T = TypeVar("T")
Offsets = Mapping[TopicPartition, int]
Pass = Callable[[str], Awaitable[None]]
"""Called at each point where a real client would wait for the broker, with the point's name; it may wait or raise."""


class _Leap(selectors.DefaultSelector):
    """Waits for nothing: the time of the next timer has come when nothing else is left to do."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set: nothing will ever happen again")
        self.now += max(timeout, 0.0)
        return super().select(0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour of sleep is over at once, and in which a deadlock is an error. No threads."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


def leap_through(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a LeapingLoop that starts at 0 s."""
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(main)


def now() -> float:
    """Return the running loop's time in seconds: the clock to give to whatever takes one."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it is consumed."""

    offset: int
    value: bytes | None = b""
    key: bytes | None = None
    timestamp: int = 0


def batch(source: TopicPartition, entries: Sequence[Entry], epoch: int = 0) -> Batch:
    """Return a fetched batch."""
    return Batch(source, entries, epoch)


class MemoryKafka:
    """Logs to read, what was written, and committed offsets. `written` is what a `read_committed` reader sees."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Entry]] = defaultdict(list)
        self.ends: dict[TopicPartition, int] = defaultdict(int)
        self.written: dict[TopicPartition, list[bytes]] = defaultdict(list)
        self.offsets: dict[TopicPartition, int] = {}
        self._newest: dict[str, int] = defaultdict(int)
        self._watchers: list[Callable[[], None]] = []

    def append(self, source: TopicPartition, values: Iterable[bytes], gap: int = 0) -> None:
        """Add records to an input; each is followed by `gap` offsets without one, as commit markers leave them."""
        for value in values:
            self.logs[source].append(Entry(self.ends[source], value))
            self.ends[source] += 1 + gap
        self._tell()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every change."""
        self._watchers.append(watcher)

    def fence(self, name: str) -> int:
        """Make the caller the newest producer called `name`; return its epoch."""
        self._newest[name] += 1
        return self._newest[name]

    def commit(self, name: str, epoch: int, outputs: Iterable[tuple[TopicPartition, bytes]], offsets: Offsets) -> None:
        """Make outputs and offsets visible, both or neither."""
        if epoch != self._newest[name]:
            raise ProducerFenced
        for target, value in outputs:
            self.written[target].append(value)
        self.offsets.update(offsets)
        self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher()


async def at_once(_: str) -> None:
    await asyncio.sleep(0)


CHECKPOINTS = TopicPartition("checkpoints", 0)


class LogMemory:
    """A stage's memory over logs. A checkpoint is saved into the outbox, and counts once that is committed here."""

    def __init__(self, logs: Mapping[TopicPartition, list[Entry]]) -> None:
        self.logs = logs
        self.committed: Checkpoint | None = None
        self.reads: list[tuple[TopicPartition, int, int]] = []

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        reached = {source.topic: offset for source, offset in committed.items()}
        if self.committed and all(at <= reached.get(topic, -1) for topic, at in self.committed.offsets.items()):
            return self.committed
        return None

    async def read(self, source: TopicPartition, start: int, stop: int) -> AsyncGenerator[Batch, None]:
        self.reads.append((source, start, stop))
        for piece in batch(source, [r for r in self.logs.get(source, []) if start <= r.offset < stop]).cut(3):
            yield piece

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        outbox.add(CHECKPOINTS.topic, CHECKPOINTS.partition, None, encode(checkpoint))

    def commit(self, outbox: Outbox) -> None:
        """Take the newest checkpoint out of what is committed, if there is one."""
        for _, value in outbox.targets.pop(CHECKPOINTS, []):
            self.committed = decode(Checkpoint, value)


def memory_blobs() -> Blobs:
    """Return blobs of a store in memory."""
    return Blobs(ArtifactStore(f"memory://{secrets.token_hex(4)}"), "tests")


class MemoryDelivery:
    """A transactional producer on a MemoryKafka."""

    hides_until_commit = True

    def __init__(self, kafka: MemoryKafka, name: str, wait: Pass = at_once) -> None:
        self.kafka = kafka
        self.name = name
        self.epoch = 0
        self.unsent: list[tuple[TopicPartition, bytes]] = []
        self.stopped = False
        self.wait = wait

    async def start(self) -> None:
        await self.wait("start")
        self.epoch = self.kafka.fence(self.name)
        await self.wait("started")

    async def send(self, outbox: Outbox) -> None:
        self.unsent += await self.hidden(outbox)

    async def hidden(self, outbox: Outbox) -> list[tuple[TopicPartition, bytes]]:
        """Send `outbox`; return what of it nobody can read before the commit."""
        await self.wait("send")
        sent = [(target, value) for target, records in outbox.targets.items() for _, value in records]
        await self.wait("sent")
        return sent

    def commit(self, saved: Outbox, offsets: Offsets) -> Awaitable[None]:
        closing, self.unsent = self.unsent, []
        return self._commit(closing, saved, offsets)

    async def _commit(self, closing: list[tuple[TopicPartition, bytes]], saved: Outbox, offsets: Offsets) -> None:
        if saved.targets:
            closing += await self.hidden(saved)
        await self.wait("commit")
        self.kafka.commit(self.name, self.epoch, closing, offsets)
        await self.wait("committed")

    async def stop(self) -> None:
        self.unsent.clear()
        self.stopped = True


class MemorySource:
    """A consumer on a MemoryKafka. As in the real one, `poll` carries out the seeks, and batches arrive later."""

    def __init__(self, kafka: MemoryKafka, wait: Pass = at_once) -> None:
        self.kafka = kafka
        self.open_now: set[TopicPartition] = set()
        self._wait = wait
        self._seeks: dict[TopicPartition, tuple[int, int]] = {}
        self._epochs: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._next_epoch = itertools.count(1)
        self._wake = asyncio.Event()
        kafka.watch(self._wake.set)

    def open(self, source: TopicPartition, offset: int) -> int:
        epoch = next(self._next_epoch)
        self._seeks[source] = (epoch, offset)
        self.resume(source)
        return epoch

    def resume(self, source: TopicPartition) -> None:
        self.open_now.add(source)
        self._wake.set()

    def hold(self, source: TopicPartition) -> None:
        self.open_now.discard(source)

    def end(self, source: TopicPartition) -> int:
        return self.kafka.ends[source]

    def unread(self, source: TopicPartition) -> int:
        return self.kafka.ends[source] - self._positions.get(source, 0)

    async def resume_offset(self, source: TopicPartition) -> int:
        await self._wait("resume_offset")
        return self.kafka.offsets.get(source, 0)

    def poll(self, records: int) -> list[Batch]:
        """Return the next batch of each open partition that has one, of at most `records` each."""
        for source, (epoch, offset) in self._seeks.items():
            self._epochs[source], self._positions[source] = epoch, offset
        self._seeks.clear()
        return [found for source in sorted(self.open_now) if (found := self._next(source, records))]

    def _next(self, source: TopicPartition, records: int) -> Batch | None:
        unread = [entry for entry in self.kafka.logs[source] if entry.offset >= self._positions[source]]
        self._positions[source] = unread[records].offset if len(unread) > records else self.kafka.ends[source]
        return batch(source, unread[:records], self._epochs[source]) if unread else None

    async def run(self, deliver: Callable[[Batch], None], sizes: Iterator[int], delays_s: Iterator[float]) -> None:
        """Poll for ever; each batch of the next size reaches `deliver` after the next delay, in order."""
        on_their_way: deque[Batch] = deque()
        while True:
            self._wake.clear()
            on_their_way += self.poll(next(sizes))
            if not on_their_way:
                await self._wake.wait()
                continue
            await asyncio.sleep(next(delays_s))
            deliver(on_their_way.popleft())


class Model:
    """A model whose score is the sum of a row, cut to 0 to 1; a missing value counts as 0."""

    algorithm: ClassVar[str] = "sum"
    classes = 1

    def __init__(self, n_features: int = 2, memory_bytes: int = 100) -> None:
        self.n_features = n_features
        self.memory_bytes = memory_bytes
        self.seen: list[Matrix] = []

    def predict(self, matrix: Matrix) -> Scores:
        self.seen.append(matrix)
        scores: Scores = np.clip(np.nansum(matrix, axis=1), 0.0, 1.0).astype(np.float32)
        return scores

    def dump(self) -> bytes:
        return b"sum"

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        return cls()


def version_of(spec: StreamSpec, model_id: str, memory_bytes: int = 100) -> ModelVersion:
    """Return the registration of a model that fits `spec`. Its artifact does not exist."""
    return ModelVersion(
        model_id=model_id,
        stream=spec.name,
        algorithm="sum",
        task=spec.task,
        created_time_ms=0,
        sha256="0" * 64,
        signature="",
        size_bytes=3,
        memory_bytes=memory_bytes,
        features=spec.features,
        classes=spec.classes,
    )


def deployment_of(spec: StreamSpec, model_id: str, revision: int) -> Deployment:
    """Return the deployment that routes the stream to `model_id`."""
    return Deployment(
        stream=spec.name,
        revision=revision,
        champion=model_id,
        changed_time_ms=0,
        changed_by="somebody",
        correlation_id=f"command-{revision}",
    )


def experiment_of(champion: str, *challengers: str, experiment_id: str = "x", **changes: Any) -> Experiment:
    """Return an experiment of which each challenger, called b, c and so on, has a tenth of the buckets."""
    names = ["champion", *string.ascii_lowercase[1 : len(challengers) + 1]]
    counts = [BUCKETS - 1_000 * len(challengers), *(1_000 for _ in challengers)]
    variants = zip(names, (champion, *challengers), counts, strict=True)
    experiment = Experiment(
        experiment_id=experiment_id,
        kind="experiment",
        plan=ExperimentPlan(metric="brier"),
        salt=f"flights/{experiment_id}",
        variants=tuple(Variant(name=name, model_id=model_id, buckets=count) for name, model_id, count in variants),
        table=tuple(enumerate(counts)),
    )
    return msgspec.structs.replace(experiment, **changes)


def sample_of(number: int, **changes: Any) -> Sample:
    """Return the sample of event `number`, which comes in second `number` and gets its label half a second later."""
    fields: dict[str, Any] = {
        "event_id": f"e{number}",
        "entity_id": "N1",
        "revision": 0,
        "event_time_ms": 1_000 * number,
        "label_time_ms": 1_000 * number + 500,
        "features": (1.0,),
        "label": 1,
        "weight": 1.0,
        "score": 0.5,
        "predicted": 1,
        "model_id": "m1",
        "variant": "champion",
        "deployment_revision": 1,
        "scored_time_ms": 0,
    }
    return Sample(**(fields | changes))
