"""Partition tasks: the unit of work, recovery and exactly-once.

A task is one stage of one stream on one partition. It opens (fence the previous owner, then read where it
stopped), folds batches, commits, and closes; whatever goes wrong in between, it is opened again from what
was last committed. So there is one way to recover, and it is used every time a task starts.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aiokafka.errors import ProducerFenced

from schemas.errors import RetryableError
from stream import lanes
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.delivery import Delivery, Offsets
from stream.failures import describe, is_retryable
from stream.lanes import LITTLE_ROWS, Lanes
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.turns import Turns

log = logging.getLogger("penstock.tasks")

ALIGN_S = 0.02  # between looks at an input that seemed to have more; behind the last record there may be markers only
STEP_S = 0.010  # aim of one step; it must stay under 20 ms
REST = 2  # times what a commit took that readers wait for: so long a task rests after it
STEP_REST = 10  # times what a step took: so long it rests where readers wait for no commit
MOST_REST_S = 0.02
OPEN_TIMEOUT_S = 60.0  # for the broker's part of opening; then it is tried again
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Source(lanes.Source, Protocol):
    """Where batches come from: the worker's consumer."""

    def open(self, source: TopicPartition, offset: int) -> int: ...
    def end(self, source: TopicPartition) -> int: ...
    async def resume_offset(self, source: TopicPartition) -> int: ...


@dataclass(frozen=True, slots=True)
class TaskName:
    """What makes a task the same task on any worker; its text is the task's transactional id."""

    group: str
    stream: str
    stage: str
    partition: int

    def __str__(self) -> str:
        return f"{self.group}.{self.stream}.{self.stage}.{self.partition}"


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """`fenced_pause_s` must outlast the group's session time-out: by then a wrong owner has been told.

    A `prompt` task commits as soon as it has rested and little is left to read, where readers wait for that; others
    once in an interval.
    """

    commit_interval_s: float
    fenced_pause_s: float
    prompt: bool


class Pace:
    """How many records make one step, learnt from how long the last steps took."""

    def __init__(self) -> None:
        self.rows = 256

    def learn(self, rows: int, seconds: float) -> None:
        """Move to the number of rows that takes STEP_S, within 16 and 8,192: down at once, up by doubling at most."""
        if rows < self.rows and seconds < STEP_S:
            return  # a small piece that was quick says nothing of larger ones
        ideal = rows * STEP_S / max(seconds, 1e-6)
        self.rows = int(min(max(ideal, 16), self.rows * 2, 8192))

    def cut(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batch in steps, each as large as the pace is by then."""
        start = 0
        while start < len(batch.records):
            records = batch.records[start : start + self.rows]
            yield Batch(batch.source, records, batch.epoch)
            start += len(records)


class PartitionTask:
    """Runs a stage on its partitions until closed. `on_fatal` hears of an error that must stop the worker."""

    def __init__(
        self,
        name: TaskName,
        stage: Stage,
        inputs: tuple[TopicPartition, ...],
        source: Source,
        new_delivery: Callable[[TaskName], Delivery],
        limits: TaskLimits,
        metrics: Metrics,
        on_fatal: Callable[[TaskName, BaseException], None],
        turns: Turns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.committed: dict[TopicPartition, int] = {}
        self.running = False
        self.progress_at = clock()
        self._stage = stage
        self._inputs = inputs
        self._source = source
        self._new_delivery = new_delivery
        self._limits = limits
        self._metrics = metrics
        self._on_fatal = on_fatal
        self._turns = turns
        self._clock = clock
        self._lanes = Lanes(inputs, source)
        self._working = False
        self._epochs: dict[TopicPartition, int] = {}
        self._wake = asyncio.Event()
        stage.wake = self._wake.set
        self._closing = self._letting_go = False
        self._failure: RetryableError | None = None
        self._pace = Pace()
        self._uncommitted: dict[TopicPartition, int] = {}
        self._commit_due = self._rested_at = 0.0
        self._commit: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    @property
    def lag_events(self) -> dict[TopicPartition, int]:
        """Records between what is committed and the end of each input, as last heard from the broker."""
        idle = not (self._working or self._lanes or self._uncommitted or self._commit)
        return {
            source: 0 if idle and not self._source.unread(source) else max(0, self._source.end(source) - offset)
            for source, offset in self.committed.items()
        }

    def start(self) -> None:
        """Begin to open and run in the background."""
        self._runner = asyncio.create_task(self._supervise(), name=f"task {self.name}")

    def accept(self, batch: Batch) -> None:
        """Take a fetched batch."""
        if batch.epoch != self._epochs.get(batch.source):
            return  # fetched before this task last opened: it will come again
        self._lanes.put(batch)
        self._wake.set()

    def reopen(self, reason: str) -> None:
        """Finish what was fetched, which may be nowhere else any more, and open again, because of `reason`."""
        self._failure = RetryableError(reason)
        self._lanes.end()
        self._wake.set()

    async def close(self, timeout_s: float) -> None:
        """Finish the step at hand and commit it, or abort when that takes longer than `timeout_s`."""
        self._closing = True
        self._wake.set()
        if self._runner is None:
            return
        if not (self.running or self._letting_go):
            self._runner.cancel()  # still opening, or waiting to open again: nothing to finish
        _, late = await asyncio.wait({self._runner}, timeout=timeout_s)
        if late:
            log.warning("%s did not finish within %.0f s and is aborted", self.name, timeout_s)
            self._runner.cancel()
            await asyncio.wait({self._runner})

    async def _supervise(self) -> None:
        failures = 0
        while not self._closing:
            started = self._clock()
            try:
                await self._open_and_run()
                return
            except Exception as error:  # noqa: BLE001  # sorted into what can be retried and what cannot
                if isinstance(error, ProducerFenced):
                    # Normal when another worker took the partition over: a rebalance will close this task. If
                    # none comes, nobody else owns it, and it is taken back.
                    reason, pause = "fenced", self._limits.fenced_pause_s
                    log.info("%s was fenced by another owner; it waits for the rebalance or comes back", self.name)
                elif is_retryable(error):
                    failures = 0 if self._clock() - started > 60 else failures
                    reason, pause = "retry", RETRY_S[min(failures, len(RETRY_S) - 1)]
                    failures += 1
                    log.warning("%s is opened again in %.1f s: %s", self.name, pause, describe(error))
                else:
                    self._on_fatal(self.name, error)
                    return
            if self._closing:
                return
            self._metrics.count(m.TASK_RESTARTS, 1, self.name.stage, reason)
            await asyncio.sleep(pause)

    async def _open_and_run(self) -> None:
        delivery = self._new_delivery(self.name)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await delivery.start()
                committed = {source: await self._source.resume_offset(source) for source in self._inputs}
            await self._stage.open(committed)
            self.committed.update(committed)
            for source, offset in committed.items():
                self._metrics.count(m.COMMITTED_RECORDS, 0, self.name.group, source.topic)  # rates begin at nothing
                self._epochs[source] = self._source.open(source, offset)
            self.progress_at = self._clock()
            self.running = True
            await self._run(delivery)
        finally:
            self.running = False
            self._letting_go = True
            self._abandon()
            try:
                await self._stage.close()
            finally:
                await delivery.stop()
                self._letting_go = False

    async def _run(self, delivery: Delivery) -> None:
        while (batch := await self._next(delivery)) is not None:
            self._working = True
            for piece in self._pace.cut(batch):
                outbox = Outbox()
                seconds = await self._step(piece, outbox)
                if not delivery.hides_until_commit:
                    self._rest(STEP_REST * seconds)
                if self._commit is not None and self._commit.done():
                    await self._settle()
                if outbox.targets:
                    await delivery.send(outbox)
                self._note(piece)
                if self._commit is None and self._clock() >= self._due_at(delivery):
                    await self._begin_commit(delivery)
                if self._closing:
                    break
            self._working = False
        await self._settle()
        if self._closing:
            await self._stage.finish()
        if self._uncommitted or self._stage.has_news:
            await self._begin_commit(delivery)
            await self._settle()
        if self._failure is not None and not self._closing:
            raise self._failure

    async def _step(self, piece: Batch, outbox: Outbox) -> float:
        await self._turns.take()
        started = self._clock()
        await self._stage.process(piece, outbox)
        seconds = self._clock() - started
        self._pace.learn(len(piece.records), seconds)
        self._metrics.observe(m.STEP_SECONDS, seconds, self.name.stage)
        return seconds

    async def _next(self, delivery: Delivery) -> Batch | None:
        """Return the next batch, or None when closing or about to reopen. While there is none, commit what is due."""
        while not self._closing:
            if self._commit is not None and self._commit.done():
                await self._settle()
            resting_s = self._resting_s(delivery)
            if not resting_s and (batch := self._lanes.take(aligned=self._stage.aligned)) is not None:
                return batch
            if self._failure is not None and not self._lanes:
                return None
            due = self._uncommitted and self._clock() >= self._due_at(delivery)
            if self._commit is None and (due or self._stage.has_news):
                await self._begin_commit(delivery)
            self._wake.clear()
            try:
                async with asyncio.timeout(self._patience_s(delivery, resting_s)):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a commit is due, or an input that is waited for may have nothing more to give
        return None

    def _resting_s(self, delivery: Delivery) -> float:
        """Return how long what waits had better wait for more, as it is little; `inf` is until the commit is done."""
        if not self._limits.prompt or self._closing or self._failure is not None:
            return 0.0
        if not 0 < self._lanes.rows < min(self._pace.rows, LITTLE_ROWS):
            return 0.0
        if delivery.hides_until_commit and self._commit is not None:
            return math.inf
        return max(0.0, self._rested_at - self._clock())

    def _rest(self, seconds: float) -> None:
        self._rested_at = self._clock() + min(seconds, MOST_REST_S)

    def _patience_s(self, delivery: Delivery, resting_s: float) -> float | None:
        """Return how long to wait for news: until the next commit, or shortly if other inputs are waited for."""
        if resting_s:
            due_s = self._due_at(delivery) - self._clock() if self._uncommitted and not self._commit else math.inf
            return None if resting_s == due_s == math.inf else max(0.0, min(resting_s, due_s))
        if self._lanes:
            return ALIGN_S
        return max(0.0, self._due_at(delivery) - self._clock()) if self._uncommitted and not self._commit else None

    def _due_at(self, delivery: Delivery) -> float:
        """Return when what is processed is to be committed."""
        early = self._limits.prompt and delivery.hides_until_commit and self._keeps_up()
        return min(self._rested_at, self._commit_due) if early else self._commit_due

    def _note(self, piece: Batch) -> None:
        if not self._uncommitted:
            self._commit_due = self._clock() + self._limits.commit_interval_s
        self._uncommitted[piece.source] = piece.next_offset

    def _keeps_up(self) -> bool:
        """Whether no more than a little is left to fetch of what the broker has told us of."""
        return sum(map(self._source.unread, self._uncommitted)) < LITTLE_ROWS

    async def _begin_commit(self, delivery: Delivery) -> None:
        """Commit in the background; the next steps go on meanwhile, and belong to the next commit."""
        saved = Outbox()
        await self._stage.save(saved)
        offsets, self._uncommitted = self._uncommitted, {}
        self._commit = asyncio.create_task(
            self._committed(delivery.commit(saved, offsets), offsets, delivery.hides_until_commit)
        )
        self._commit.add_done_callback(lambda _: self._wake.set())

    async def _committed(self, commit: Awaitable[None], offsets: Offsets, hides: bool) -> None:
        started = self._clock()
        await commit
        for source, offset in offsets.items():
            forward = max(0, offset - self.committed[source])  # a log that was cut off goes back
            self._metrics.count(m.COMMITTED_RECORDS, forward, self.name.group, source.topic)
        self.committed.update(offsets)
        self.progress_at = self._clock()
        self._metrics.observe(m.COMMIT_SECONDS, self.progress_at - started, self.name.stage)
        if hides:
            self._rest(REST * (self.progress_at - started))

    async def _settle(self) -> None:
        """Wait for the commit under way, if any, and raise what it raised."""
        if self._commit is not None:
            commit, self._commit = self._commit, None
            await commit

    def _abandon(self) -> None:
        """Forget what is not committed; it will be fetched again."""
        self._failure = None
        self._working = False
        self._epochs.clear()
        self._lanes.clear()
        self._uncommitted.clear()
        if self._commit is not None:
            self._commit.cancel()
            self._commit.add_done_callback(lambda commit: commit.cancelled() or commit.exception())
            self._commit = None
