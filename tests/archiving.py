"""What the tests of the archive share: a stage on a log in memory, a store that can be away, and what is archived."""

import asyncio
import itertools
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from agents.archive.stage import ArchiveStage
from schemas.events import Alert, Sample
from schemas.streams import StreamSpec
from schemas.training import ArchiveSpec
from schemas.wire import decode, encode
from stores.archive import Archive, ArchiveFile
from stores.artifacts import ArtifactUnavailable
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry, LogMemory, sample_of

SAMPLES = TopicPartition("s.samples", 0)
DAY_MS = 24 * 60 * 60_000
NOON_MS = 1_700_049_600_000  # 2023-11-15 12:00 UTC
PATIENCE_S = 10.0


def spec_of(samples: int = 100, minutes: int = 60, **changes: Any) -> StreamSpec:
    """Return a stream of one feature whose log is cut so."""
    archive = ArchiveSpec(samples=samples, minutes=minutes)
    return StreamSpec(**{"name": "s", "features": ("a",), "archive": archive} | changes)


def entry(number: int, offset: int | None = None, **changes: Any) -> Entry:
    """Return sample `number` as a record, taken by Kafka `number` ms after noon, as is the event's time."""
    timestamp = changes.pop("timestamp", NOON_MS + number)
    sample: Sample = sample_of(number, **{"event_time_ms": NOON_MS + number} | changes)
    return Entry(number if offset is None else offset, encode(sample), b"s", timestamp)


class Store(Archive):
    """An archive that fails as long as it is `away`, and whose writer is killed after so many more files."""

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__(str(root or f"memory://{secrets.token_hex(4)}"))
        self.away = False
        self.files_left = -1

    def write(self, file: ArchiveFile, table: pa.Table) -> None:
        if self.away:
            raise ArtifactUnavailable("the disk is full")
        if self.files_left == 0:
            raise Killed
        self.files_left -= 1
        super().write(file, table)


class Killed(Exception):
    """The process has ended here."""


class Bench:
    """A worker's stage on a log, with what was committed. A new bench on the same log is the next worker."""

    def __init__(self, spec: StreamSpec, log: list[Entry], store: Store, memory: LogMemory | None = None) -> None:
        self.spec = spec
        self.log = log
        self.store = store
        self.memory = memory or LogMemory({SAMPLES: log})
        self.metrics = Metrics()
        self.now_ms = 7
        self.pauses: list[float] = []
        self.alerts: list[Alert] = []
        self.woken = asyncio.Event()
        self.stage = ArchiveStage(spec, store, self.memory, self.metrics, lambda: self.now_ms, self._pause)
        self.stage.wake = self.woken.set  # type: ignore[method-assign]

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.001)

    async def open(self, committed: int) -> "Bench":
        await self.stage.open({SAMPLES: committed})
        return self

    async def take(self, entries: Sequence[Entry]) -> None:
        """Process a batch; no state is committed with it."""
        await self.stage.process(Batch(SAMPLES, entries), Outbox())

    async def commit(self) -> None:
        """Do as the task does when it commits."""
        outbox = Outbox()
        await self.stage.save(outbox)
        self.memory.commit(outbox)
        for _, value in outbox.targets.pop(TopicPartition("s.alerts", 0), []):
            self.alerts.append(decode(Alert, value))
        assert not outbox.targets

    async def archived(self, stop: int) -> None:
        """Wait, committing whatever there is to commit, until everything below `stop` is archived."""
        async with asyncio.timeout(PATIENCE_S):
            while self.offset < stop:
                if self.stage.has_news:
                    await self.commit()
                await asyncio.sleep(0.001)

    @property
    def offset(self) -> int:
        checkpoint = self.memory.committed
        return 0 if checkpoint is None else checkpoint.offsets[SAMPLES.topic]

    @property
    def log_name(self) -> str:
        assert self.memory.committed is not None
        name: str = msgspec.json.decode(self.memory.committed.state)["log"]
        return name

    def files(self) -> list[ArchiveFile]:
        """Return what is in the archive, of this log."""
        return self.store.files(self.spec.name, self.log_name)

    def offsets(self) -> list[int]:
        """Return the offset of every archived row, sorted."""
        return sorted(self.store.read(self.files(), ["offset"])["offset"].to_pylist())


def chunks_of(files: Iterable[ArchiveFile]) -> list[tuple[int, int]]:
    """Return the offsets of the chunks that the files are of."""
    return [chunk for chunk, _ in itertools.groupby((file.first, file.stop) for file in sorted(files))]
