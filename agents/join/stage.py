"""Join: predictions and labels of the same events meet and become samples.

A label is inside when its time is at most the window after its event's. A prediction waits for labels until the clock
has passed its event time, the window and the lateness; a label waits for its prediction until the clock has passed
its own time and the lateness (whatever comes later than that waits for the next sweep). Deadlines believe no time
that is more than a day ahead of its record's timestamp. A waiting label is judged when its prediction comes, as if it
had come then: so the order in which the two inputs are read makes no difference between two sweeps, and reading the
logs again from sweep to sweep rebuilds the state exactly. The checkpoint holds the clock, the sweeps and the offsets
from which to read. Where very much expires at once, as when the clock leaps after a pause, the sweep goes on with the
next records: until then what is left is still there to be met. An event is known by (event_id, entity_id).
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import numpy as np

from agents.join.clock import Clock, Side, SweepLog
from agents.join.matching import MOST_EXPIRED, STEP_ROWS, Matcher
from agents.join.pending import SMALLEST, Ints
from agents.join.reader import Hasher, LabelReader, Labels, PredictionReader, Predictions, Refused
from agents.join.writer import JoinOutput
from schemas.events import Checkpoint
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import encode
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.placement import Placement
from stream.stage import Stage
from topics.specs import StreamTopics

log = logging.getLogger("penstock.join")

STAGE: Final = "join"
FORMAT: Final = 1
_PREDICTIONS: Final = 0  # the numbers of the inputs
_LABELS: Final = 1
NO_RECORDS: Final = np.empty(0, dtype=np.int64)


class JoinState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says: the clock, the sweeps (see SweepLog), and from where to read the inputs again."""

    sides: tuple[Side, Side]
    time_ms: int
    swept_ms: int
    grid_ms: int
    base_ms: int
    sweeps: list[int]
    resume: tuple[int, int]


class Join(Stage):
    """The stage on one partition of `<s>.predictions` and `<s>.labels`.

    `placement` checks the labels' keys. Only labels that are bad in themselves count for `gate`: one that comes too
    late, or for an event that nobody scored, is a dead letter but no sign that its producer is broken.
    """

    def __init__(
        self,
        spec: StreamSpec,
        partition: int,
        placement: Placement,
        gate: DeadLetterGate,
        memory: Memory,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        max_event_bytes: int,
        hasher: Hasher = hash,
        smallest_segment: int = SMALLEST,
        most_expired: int = MOST_EXPIRED,
    ) -> None:
        topics = StreamTopics(spec.name)
        self._spec = spec
        self._partition = partition
        self._sources = (TopicPartition(topics.predictions, partition), TopicPartition(topics.labels, partition))
        self._samples = TopicPartition(topics.samples, 0)
        self._letters = TopicPartition(topics.labels_dead, partition)
        self._gate = gate
        self._memory = memory
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._smallest_segment = smallest_segment
        self._most_expired = most_expired
        self._predictions = PredictionReader(spec, hasher)
        self._labels = LabelReader(spec, placement, max_event_bytes, hasher)
        self._reset()

    @property
    def pending(self) -> int:
        """The number of predictions that wait for their label."""
        return self._matcher.unlabelled

    def _reset(self) -> None:
        self._matcher = Matcher(self._spec, self._labels, self._smallest_segment, self._most_expired)
        self._clock = Clock(grid_ms=self._matcher.grid_ms, idle_wait_ms=self._spec.join.idle_wait_minutes * MINUTE_MS)
        self._sweeps = SweepLog()
        self._next = [0, 0]

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Rebuild the state from the newest checkpoint and the logs; at least 200,000 records/s and Kafka's part.

        Without a checkpoint that can be used, all that is left of the committed records is read, in no known order.
        """
        self._reset()
        self._next = [committed.get(source, 0) for source in self._sources]
        state = self._restorable(await self._memory.newest(committed))
        self._sweeps = SweepLog(state.base_ms, state.sweeps, state.grid_ms) if state else SweepLog()
        await self._replay(state.resume if state else (0, 0))
        if state:
            self._clock.sides, self._clock.time_ms = state.sides, state.time_ms
            self._clock.swept_ms = state.swept_ms
        else:
            self._clock.settle()
        await self._sweep(self._clock.swept_ms)
        self._matcher.counts.clear()
        self._metrics.set(m.JOIN_PENDING, self.pending, self._spec.name, str(self._partition))

    def _restorable(self, checkpoint: Checkpoint | None) -> JoinState | None:
        if checkpoint is None:
            return None
        reached = [checkpoint.offsets.get(source.topic, 0) for source in self._sources]
        if checkpoint.format != FORMAT or any(a > b for a, b in zip(reached, self._next, strict=True)):
            log.warning("%s/%d: the checkpoint is of another format or not committed: ignored", STAGE, self._partition)
            return None
        return msgspec.json.decode(checkpoint.state, type=JoinState)

    async def _replay(self, resume: tuple[int, int]) -> None:
        """Read both inputs again from sweep to sweep, up to what is committed."""
        async with AsyncExitStack() as closing:
            tapes = [Tape(self._memory.read(self._sources[i], resume[i], self._next[i])) for i in (0, 1)]
            for tape in tapes:
                closing.push_async_callback(tape.close)
            moment = self._sweeps.base_ms
            for sweep in self._sweeps.sweeps:
                for number, tape in enumerate(tapes):
                    await self._refold(number, tape, sweep.offsets[number], moment)
                moment = sweep.time_ms
                await self._sweep(moment)
            for number, tape in enumerate(tapes):
                await self._refold(number, tape, self._next[number], moment)

    async def _refold(self, number: int, tape: "Tape", stop: int, moment: int) -> None:
        async for batch in tape.until(stop):
            taken = self._read(number, batch)[0]
            if taken is not None:
                self._clock.advance(number, taken.times_ms, taken.timestamps_ms)
                self._fold(taken, np.full(taken.offsets.size, moment), None)
            await asyncio.sleep(0)

    def _read(self, number: int, batch: Batch) -> tuple[Predictions | Labels | None, Refused]:
        if number == _LABELS:
            return self._labels.read(batch)
        predictions, unusable = self._predictions.read(batch)
        self._matcher.counts["unusable"] += unusable
        return predictions, ()

    def _fold(self, taken: Predictions | Labels, moments: Ints, out: JoinOutput | None) -> None:
        if isinstance(taken, Predictions):
            self._matcher.take_predictions(taken, moments, out)
        else:
            self._matcher.take_labels(taken, moments, out)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Let the records of one input meet what is there of the other, then let expire what is too old."""
        number = self._sources.index(batch.source)
        out = JoinOutput(self._sources[_LABELS], STAGE, self._clock_ms)
        taken, refused = self._read(number, batch)
        for record, error in refused:
            out.letter(record.offset, record, error)
        if taken is not None:
            before = self._clock.swept_ms
            after = self._clock.advance(number, taken.times_ms, taken.timestamps_ms)
            if after[-1] != before:
                after = self._clock.restrain(after, self._matcher.limit(int(after[-1])))
            self._fold(taken, np.append(before, after[:-1]), out)
            if after[-1] != before:
                self._sweeps.note(number, before, after, taken.offsets + 1, self._next[1 - number])
                await self._sweep(int(after[-1]), after, taken.offsets, out)
        self._next[number] = batch.next_offset
        samples = out.write(outbox, self._samples, self._spec.name.encode(), self._letters)
        self._count(samples, out)
        if number == _LABELS:
            self._gate.pass_through(len(batch.records), len(refused), str(refused[-1][1]) if refused else "")

    async def _sweep(
        self, moment: int, after: Ints = NO_RECORDS, offsets: Ints = NO_RECORDS, out: JoinOutput | None = None
    ) -> None:
        for _ in self._matcher.sweep(moment, after, offsets, out):
            await asyncio.sleep(0)

    def _count(self, samples: int, out: JoinOutput) -> None:
        stream, counts = self._spec.name, self._matcher.counts
        self._metrics.count(m.SAMPLES, samples, stream)
        self._metrics.count(m.LABELS_DUPLICATE, counts["duplicate"], stream)
        self._metrics.count(m.JOIN_UNLABELLED, counts["unlabelled"], stream)
        for reason in ("repeated", "unusable"):
            self._metrics.count(m.JOIN_IGNORED, counts[reason], stream, reason)
        for reason, count in out.reasons.items():
            self._metrics.count(m.DEAD_LETTERS, count, stream, STAGE, reason)
        self._metrics.set(m.JOIN_PENDING, self.pending, stream, str(self._partition))
        counts.clear()

    async def save(self, outbox: Outbox) -> None:
        """Write the checkpoint, some kilobytes at most: without it the order of the inputs could not be known."""
        resume = self._matcher.resume_offsets((self._next[0], self._next[1]))
        self._sweeps.forget(resume)
        state = JoinState(
            sides=self._clock.sides,
            time_ms=self._clock.time_ms,
            swept_ms=self._clock.swept_ms,
            grid_ms=self._clock.grid_ms,
            base_ms=self._sweeps.base_ms,
            sweeps=self._sweeps.packed(self._clock.grid_ms),
            resume=resume,
        )
        checkpoint = Checkpoint(
            stage=STAGE,
            partition=self._partition,
            format=FORMAT,
            offsets={source.topic: offset for source, offset in zip(self._sources, self._next, strict=True)},
            state=msgspec.Raw(encode(state)),
        )
        self._memory.save(checkpoint, outbox)

    async def close(self) -> None:
        """Give the memory back, and show nothing of a partition that another worker may have by now."""
        self._reset()
        self._metrics.forget(m.JOIN_PENDING, self._spec.name, str(self._partition))


class Tape:
    """Reads batches up to one offset after the other."""

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self._batches = batches
        self._rest: Batch | None = None

    async def until(self, stop: int) -> AsyncIterator[Batch]:
        """Yield the records before offset `stop`, in pieces of at most STEP_ROWS."""
        while (batch := self._rest or await anext(self._batches, None)) is not None:
            count = min(bisect_left(batch.records, stop, key=lambda record: record.offset), STEP_ROWS)
            rest = batch.records[count:]
            self._rest = Batch(batch.source, rest) if rest else None
            if count:
                yield Batch(batch.source, batch.records[:count])
            if rest and rest[0].offset >= stop:
                return

    async def close(self) -> None:
        """Stop reading."""
        await self._batches.aclose()
