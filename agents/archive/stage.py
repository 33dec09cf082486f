"""The stage on `<s>.samples` that cuts the log into chunks and has them written, each exactly once.

Its checkpoint is the first offset that is not archived yet, committed once the files are there. Offsets are committed
as fast as records come: what is not archived by then is read from the log again after a restart, and after the archive
could not be written for so long that there was no more room to wait.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final

from agents.archive.chunks import Chunk, Chunker, rules_of
from agents.archive.mark import Hole, Mark, checkpoint_of, mark_of, recognised
from agents.archive.telling import away_alert, back_alert, waiting_alert
from agents.archive.writing import ChunkWriter, log_name
from schemas.events import Alert
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import encode
from stores.archive import Archive
from stores.artifacts import ArtifactUnavailable
from stream import metrics as m
from stream.batches import Batch, Outbox, Record, TopicPartition
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

HELD_CHUNKS: Final = 2  # of the largest size: one is written while the next one fills
REPEATED_RECORDS: Final = 1_024  # in one go, before others get a turn
RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
CLOSE_S: Final = 5.0
TOLD_AFTER: Final = 3  # attempts that failed in a row
LOOK_S: Final = 60.0  # how often it is looked for samples that wait in a silent stream

log = logging.getLogger("penstock.archive")


class ArchiveStage(Stage):
    """The stage. It holds the records that are not archived yet: about 30 MB for 50,000 samples with ten features.

    A record costs the event loop about 0.2 µs; the rest, some 10 µs, is done in a thread.
    """

    def __init__(
        self,
        spec: StreamSpec,
        archive: Archive,
        memory: Memory,
        metrics: Metrics,
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._spec = spec
        self._archive = archive
        self._memory = memory
        self._metrics = metrics
        self._now_ms = now_ms
        self._sleep = sleep
        self._topics = StreamTopics(spec.name)
        self._source = TopicPartition(self._topics.samples, 0)
        self._most_held = HELD_CHUNKS * spec.archive.samples
        self._retention_ms = spec.retention_hours * 60 * MINUTE_MS
        self._worker: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[int] | None = None
        self._begin(Mark(), 0)

    def _begin(self, mark: Mark, end: int, *, unbroken: bool = False) -> None:
        """Forget everything but how far the archive is complete, and that what comes next is from offset `end`.

        `unbroken` is whether nothing between the two was forgotten, as far as is known.
        """
        self._chunker = Chunker(rules_of(self._spec.archive))
        self._ended: deque[Chunk] = deque()
        self._writer: ChunkWriter | None = None
        self._mark = self._saved = mark
        self._taken = mark.offset
        self._end = end
        self._last_taken = mark.offset - 1
        self._lost_from = None if unbroken else mark.offset
        self._holes = list(mark.holes)
        self._told_offset = -1
        self._samples = 0
        self._failed_attempts = 0
        self._alerts: list[Alert] = []
        self._failure: Exception | None = None
        self._news = asyncio.Event()

    @property
    def has_news(self) -> bool:
        """Whether more is archived than the checkpoint says, or there is something to tell."""
        return self._mark != self._saved or bool(self._alerts) or self._failure is not None

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Find out how far the archive is complete; what was committed behind that is read in the background."""
        mark = mark_of(await self._memory.newest(committed), self._source.topic)
        known, unbroken = await recognised(mark, self._memory, self._source)
        if known != mark:
            log.warning("stream %s: its samples are another log than %s now", self._spec.name, mark.log)
        self._begin(known, committed[self._source], unbroken=unbroken)
        self._worker = asyncio.create_task(self._work(), name=f"archive of {self._spec.name}")

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take the records; or leave them in the log for later, when others wait there or too many wait here."""
        if self._taken == self._end and self._held < self._most_held:
            self._take(batch.records)
            self._taken = batch.next_offset
        self._end = batch.next_offset
        self._news.set()

    async def save(self, outbox: Outbox) -> None:
        """Put the checkpoint into `outbox` when more is archived, and the alerts. Raises what ended the work."""
        if self._failure is not None:
            raise self._failure
        for alert in self._alerts:
            outbox.add(self._topics.alerts, 0, self._spec.name.encode(), encode(alert))
        self._alerts = []
        if self._mark != self._saved:
            self._memory.save(checkpoint_of(self._mark, *self._source), outbox)
            self._metrics.count(m.SAMPLES_ARCHIVED, self._samples, self._spec.name)
            self._saved, self._samples = self._mark, 0

    async def close(self) -> None:
        """Stop, after the chunk that is being written, unless that takes long. The next owner writes it again."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None
        if self._writing is not None:
            self._writing.add_done_callback(lambda writing: writing.cancelled() or writing.exception())
            await asyncio.wait({self._writing}, timeout=CLOSE_S)
            self._writing = None

    @property
    def _held(self) -> int:
        return len(self._chunker) + sum(len(chunk.records) for chunk in self._ended)

    def _take(self, records: Sequence[Record]) -> None:
        first = records[0]
        if self._lost_from is not None and self._lost_from < first.offset:
            self._holes.append(Hole(self._lost_from, first.offset, first.timestamp))
        self._lost_from = None
        self._ended += self._chunker.add(records)
        self._last_taken = records[-1].offset

    async def _work(self) -> None:
        """Write the chunks that ended, and read what was left in the log, for ever."""
        try:
            while True:
                await self._write_ended()
                if self._taken < self._end:
                    await self._catch_up()
                else:
                    self._news.clear()
                    await self._wait_for_news()
        except Exception as error:  # noqa: BLE001  # the task sorts it into what can be retried and what cannot
            self._failure = error
            self.wake()

    async def _wait_for_news(self) -> None:
        """Wait for records. Tell of those that wait so long for others that Kafka may forget them."""
        while not self._news.is_set():
            oldest = self._chunker.oldest
            if oldest is not None and oldest.offset != self._told_offset:
                now_ms, forgotten_ms = self._now_ms(), oldest.timestamp + self._retention_ms
                if now_ms > forgotten_ms - self._retention_ms // 2:
                    self._alerts.append(waiting_alert(self._spec.name, oldest.offset, forgotten_ms, now_ms))
                    self._told_offset = oldest.offset
                    self.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()

    async def _catch_up(self) -> None:
        """Read from the log what was left there up to now.

        The last record that was taken is read again: when it is gone, so may be others behind it.
        """
        stop = self._end
        self._lost_from = self._last_taken + 1
        async with aclosing(self._memory.read(self._source, max(self._last_taken, 0), stop)) as batches:
            async for batch in batches:
                for piece in batch.cut(REPEATED_RECORDS):
                    records = piece.records
                    if records[0].offset == self._last_taken:
                        self._lost_from, records = None, records[1:]
                    if records:
                        self._take(records)
                    await asyncio.sleep(0)
                await self._write_ended()
        self._taken = stop

    async def _write_ended(self) -> None:
        while self._ended:
            chunk = self._ended[0]
            first, stop, last_ms = chunk.first, chunk.stop, chunk.records[-1].timestamp
            log_of_files = self._mark.log or log_name(chunk.records[0].timestamp)  # the first chunk gives the name
            if self._writer is None:
                self._writer = ChunkWriter(self._spec, self._archive, Mark(log_of_files, self._mark.offset))
            try:
                self._writing = asyncio.ensure_future(asyncio.to_thread(_write, self._writer, chunk))
                samples = await asyncio.shield(self._writing)
            except ArtifactUnavailable as error:
                await self._wait_for_store(chunk, error)
                continue
            self._ended.popleft()
            holes = tuple(hole for hole in self._holes if hole.stop <= stop)
            self._mark = Mark(log_of_files, stop, last_ms, holes)
            self._samples += samples
            if self._failed_attempts >= TOLD_AFTER:
                self._alerts.append(back_alert(self._spec.name, first, self._now_ms()))
            self._failed_attempts = 0
            self.wake()

    async def _wait_for_store(self, chunk: Chunk, error: ArtifactUnavailable) -> None:
        pause_s = RETRY_S[min(self._failed_attempts, len(RETRY_S) - 1)]
        self._failed_attempts += 1
        log.warning("stream %s: archiving is tried again in %.0f s: %s", self._spec.name, pause_s, error)
        if self._failed_attempts == TOLD_AFTER:
            self._alerts.append(away_alert(self._spec.name, chunk.first, str(error), self._now_ms()))
            self.wake()
        await self._sleep(pause_s)


def _write(writer: ChunkWriter, chunk: Chunk) -> int:
    """Write the chunk and let go of it; return how many samples it has."""
    samples = writer.write(chunk)
    chunk.release()
    return samples
