"""Learn: a fold of `<s>.samples` into a model that goes on learning, and now and then a snapshot of it.

The learner's parameters after a sample depend on the samples up to it and on nothing else. So what a crash takes away
is made again from the checkpoint and the log, without telling anybody twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial

import msgspec

from agents.blobs import Blobs
from agents.learn.hosts import Host
from agents.learn.publishing import Prepared, Publisher
from agents.learn.reader import LearnableReader
from ml.errors import ModelError, ModelPayloadInvalid
from ml.learning.comparison import Standing
from ml.learning.online import OnlineLearner, Settings, Snapshot, Update, open_learner
from ml.learning.samples import Samples
from schemas.errors import SettingsError
from schemas.events import Checkpoint, ModelUpdate
from schemas.streams import MINUTE_MS, LearnerSpec, StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactCorrupted, ArtifactMissing
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "learn"
FORMAT = 1
REPEATED_SAMPLES = 256  # learnt in one go while opening, before others get a turn
NOTHING = -1  # the offset before the first snapshot

log = logging.getLogger("penstock.learn")


class LearnState(msgspec.Struct, frozen=True):
    """What a checkpoint says beside the learner's own bytes: for which learner they are, and what was taken."""

    lineage: str
    algorithm: str
    taken: int
    published_offset: int


class Learn(Stage):
    """The stage on `<s>.samples` for one lineage. It only emits; that it learnt shows in its snapshots."""

    def __init__(
        self,
        spec: StreamSpec,
        lineage: str,
        learner: LearnerSpec,
        host: Host,
        memory: Memory,
        blobs: Blobs,
        publisher: Publisher,
        metrics: Metrics,
        checkpoint_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`learner` has its strategy, batch size and buffer set. The checkpoint interval changes no result."""
        self._spec = spec
        self._lineage = lineage
        self._learner = learner
        self._host = host
        self._memory = memory
        self._blobs = blobs
        self._publisher = publisher
        self._metrics = metrics
        self._checkpoint_interval_s = checkpoint_interval_s
        self._clock = clock
        self._topics = StreamTopics(spec.name)
        self._source = TopicPartition(self._topics.samples, 0)
        self._reader = LearnableReader(spec, lineage, learner)
        self._taken = 0
        self._next_offset = 0
        self._published_offset = NOTHING
        self._news: list[ModelUpdate | Prepared] = []
        self._checkpoint_due = 0.0

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Restore the newest checkpoint, and learn again what was learnt since."""
        stop = committed[self._source]
        self._forget_news()
        self._publisher.reset()
        try:
            start = await self._restore(committed)
            if start is None:
                start, self._taken, self._published_offset = 0, 0, NOTHING
                starting = await self._publisher.starting_payload()
                await self._host.start(opener_of(self._spec, self._learner, start_from=starting))
        except ModelError as error:
            raise SettingsError(f"[streams.{self._spec.name}.learners.{self._lineage}]: {error}") from error
        self._next_offset = start
        async with aclosing(self._memory.read(self._source, start, stop)) as batches:
            async for batch in batches:
                for piece in batch.cut(REPEATED_SAMPLES):
                    await self._fold(piece, again=True)
                    await asyncio.sleep(0)
        self._next_offset = stop
        self._checkpoint_due = self._clock() + self._checkpoint_interval_s

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Learn from the samples, and take a snapshot whenever one is due; `save` writes what came of it."""
        await self._fold(batch, again=False)

    async def save(self, outbox: Outbox) -> None:
        """Write what was done, publish the snapshots, and write a checkpoint when the last one is old enough."""
        await self._write_news(outbox)
        if self._clock() < self._checkpoint_due:
            return
        checkpoint = Checkpoint(
            stage=f"{STAGE}-{self._lineage}",
            partition=self._source.partition,
            format=FORMAT,
            offsets={self._source.topic: self._next_offset},
            state=msgspec.Raw(encode(self._state())),
            **await self._blobs.pack(await self._host.call("dump")),
        )
        self._memory.save(checkpoint, outbox)
        self._checkpoint_due = self._clock() + self._checkpoint_interval_s

    async def close(self) -> None:
        """End the learner's process, if it has one."""
        self._forget_news()
        await self._host.close()

    def _state(self) -> LearnState:
        return LearnState(self._lineage, self._learner.algorithm, self._taken, self._published_offset)

    async def _restore(self, committed: Mapping[TopicPartition, int]) -> int | None:
        """Go on from the newest checkpoint; return its offset, or None when there is none that fits."""
        checkpoint = await self._memory.newest(committed)
        if checkpoint is not None and checkpoint.format != FORMAT:
            checkpoint = None
        try:
            dumped = await self._blobs.unpack(checkpoint)
            if checkpoint is None:
                return None
            state = decode(LearnState, checkpoint.state)
            if state.algorithm != self._learner.algorithm:
                raise ModelPayloadInvalid(f"it is of {state.algorithm}")
            await self._host.start(opener_of(self._spec, self._learner, dumped=dumped))
        except (ModelPayloadInvalid, ArtifactMissing, ArtifactCorrupted) as error:
            log.warning("learner %s begins anew, its checkpoint cannot be used: %s", self._lineage, error)
            return None
        self._taken, self._published_offset = state.taken, state.published_offset
        return checkpoint.offsets[self._source.topic]

    async def _fold(self, batch: Batch, *, again: bool) -> None:
        """Learn from the batch; what is learnt `again` has been told before."""
        for run in self._reader.read(batch.records):
            if isinstance(run, Samples):
                await self._take(run, again=again)
            else:
                offset, trigger = run
                log.info("learner %s: %s wants an update (offset %d)", self._lineage, trigger.issued_by, offset)
                self._tell(await self._host.call("trigger"), again=again)
        self._next_offset = batch.next_offset

    async def _take(self, samples: Samples, *, again: bool) -> None:
        """Learn `samples`, and stop for a snapshot after every so many since the learner began."""
        every, start = self._learner.publish_every, 0
        while start < len(samples):
            stop = min(len(samples), start + every - self._taken % every)
            piece = samples.between(start, stop)
            self._tell(await self._host.call("take", piece), again=again)
            self._taken += len(piece)
            start = stop
            if self._taken % every == 0:
                await self._snapshot(int(piece.event_time_ms[-1]), publish=not again)
        if not again:
            self._metrics.count(m.LEARNT_SAMPLES, len(samples), self._spec.name, self._lineage)

    def _tell(self, updates: list[Update], *, again: bool) -> None:
        if not again:
            self._news += map(self._learnt, updates)

    async def _snapshot(self, event_time_ms: int, *, publish: bool) -> None:
        """Take a snapshot, if anything was learnt since the last one; it is stored while learning goes on."""
        snapshot: Snapshot = await self._host.call("snapshot")
        if snapshot.next_offset == self._published_offset or not snapshot.learnt:
            return
        self._published_offset = snapshot.next_offset
        if publish:
            standing: Standing | None = await self._host.call("standing")
            self._news.append(self._publisher.prepare(snapshot, standing, event_time_ms))

    def _forget_news(self) -> None:
        for told in self._news:
            if isinstance(told, Prepared):
                told.storing.cancel()
        self._news = []

    def _learnt(self, update: Update) -> ModelUpdate:
        return ModelUpdate(
            stream=self._spec.name,
            lineage=self._lineage,
            action="learnt",
            reason=update.reason,
            samples=update.samples,
            first_offset=update.first_offset,
            last_offset=update.last_offset,
            event_time_ms=update.event_time_ms,
        )

    async def _write_news(self, outbox: Outbox) -> None:
        """Write what the learner did since the last commit, in its order."""
        news, self._news = self._news, []
        for told in news:
            updates = await self._publisher.publish(told, outbox) if isinstance(told, Prepared) else [told]
            for update in updates:
                outbox.add(self._topics.updates, 0, self._spec.name.encode(), encode(update))
                self._metrics.count(m.LEARNER_UPDATES, 1, self._spec.name, self._lineage, update.action)


def opener_of(
    spec: StreamSpec, learner: LearnerSpec, *, start_from: bytes | None = None, dumped: bytes | None = None
) -> Callable[[], OnlineLearner]:
    """Return what opens a learner of the stream, here or in another process; see `open_learner` for what it raises.

    `learner` has its strategy, batch size and buffer set.
    """
    assert learner.strategy is not None, "the settings' defaults are filled in before"
    assert learner.batch_size is not None
    assert learner.max_buffer is not None
    return partial(
        open_learner,
        learner.algorithm,
        len(spec.features),
        len(spec.classes) or 1,
        learner.parameters,
        Settings(
            strategy=learner.strategy,
            batch_size=learner.batch_size,
            max_buffer=learner.max_buffer,
            period_ms=learner.period_minutes * MINUTE_MS,
            accuracy_drop=spec.evaluation.accuracy_drop,
            threshold=spec.threshold,
        ),
        compare_samples=learner.publish_every,
        maturity_ms=spec.ripens_ms,
        start_from=start_from,
        dumped=dumped,
    )
