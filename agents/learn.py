"""Learn: a fold of `<s>.samples` into a model that goes on learning, and now and then a snapshot of it.

The learner's parameters after a sample depend on the samples up to it and on nothing else. So what a crash takes away
is made again from the checkpoint and the log, without telling anybody twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import msgspec

from agents.blobs import Blobs
from agents.hosts import Host
from agents.learnable import LearnableReader
from agents.publishing import Publisher
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
from stream.metrics import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "learn"
FORMAT = 1
REPEATED_SAMPLES = 256  # learnt in one go while opening, before others get a turn
Action = Literal["published", "kept_back"]

log = logging.getLogger("penstock.learn")


class LearnState(msgspec.Struct, frozen=True):
    """What a checkpoint says beside the learner's own bytes: for which learner they are, and what was taken."""

    lineage: str
    algorithm: str
    taken: int


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
        self._published_offset = -1
        self._checkpoint_due = 0.0

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Restore the newest checkpoint, and learn again what was learnt since."""
        stop = committed[self._source]
        try:
            start = await self._restore(stop)
            if start is None:
                start, self._taken = 0, 0
                await self._host.start(self._build(await self._publisher.starting_payload(), None))
        except ModelError as error:
            raise SettingsError(f"[streams.{self._spec.name}.learners.{self._lineage}]: {error}") from error
        self._next_offset = start
        async for batch in self._memory.read(self._source, start, stop):
            for piece in batch.cut(REPEATED_SAMPLES):
                await self._fold(piece, None)
                await asyncio.sleep(0)
        self._next_offset = stop
        self._checkpoint_due = self._clock() + self._checkpoint_interval_s

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Learn from the samples of the batch; publish a snapshot whenever one is due."""
        await self._fold(batch, outbox)

    async def save(self, outbox: Outbox) -> None:
        """Write a checkpoint, when the last one is old enough."""
        if self._clock() < self._checkpoint_due:
            return
        checkpoint = Checkpoint(
            stage=f"{STAGE}-{self._lineage}",
            partition=self._source.partition,
            format=FORMAT,
            offsets={self._source.topic: self._next_offset},
            state=msgspec.Raw(encode(LearnState(self._lineage, self._learner.algorithm, self._taken))),
            **await self._blobs.pack(await self._host.call("dump")),
        )
        self._memory.save(checkpoint, outbox)
        self._checkpoint_due = self._clock() + self._checkpoint_interval_s

    async def close(self) -> None:
        """End the learner's process, if it has one."""
        await self._host.close()

    async def _restore(self, stop: int) -> int | None:
        """Go on from the newest checkpoint; return its offset, or None when there is none that fits."""
        checkpoint = await self._memory.newest()
        if checkpoint is None or checkpoint.format != FORMAT or checkpoint.offsets[self._source.topic] > stop:
            return None
        state = decode(LearnState, checkpoint.state)
        try:
            if state.algorithm != self._learner.algorithm:
                raise ModelPayloadInvalid(f"it is of {state.algorithm}")
            await self._host.start(self._build(None, await self._blobs.unpack(checkpoint)))
        except (ModelPayloadInvalid, ArtifactMissing, ArtifactCorrupted) as error:
            log.warning("learner %s begins anew, its checkpoint cannot be used: %s", self._lineage, error)
            return None
        self._taken = state.taken
        return checkpoint.offsets[self._source.topic]

    async def _fold(self, batch: Batch, outbox: Outbox | None) -> None:
        """Learn from the batch; without an outbox everything that would be told has been told before."""
        for run in self._reader.read(batch.records):
            if isinstance(run, Samples):
                await self._take(run, outbox)
            else:
                offset, trigger = run
                log.info("learner %s: %s wants an update (offset %d)", self._lineage, trigger.issued_by, offset)
                self._tell(await self._host.call("trigger"), outbox)
        self._next_offset = batch.next_offset

    async def _take(self, samples: Samples, outbox: Outbox | None) -> None:
        """Learn `samples`, and stop for a snapshot after every so many since the learner began."""
        every, start = self._learner.publish_every, 0
        while start < len(samples):
            stop = min(len(samples), start + every - self._taken % every)
            piece = samples.between(start, stop)
            self._tell(await self._host.call("take", piece), outbox)
            self._taken += len(piece)
            start = stop
            if self._taken % every == 0 and outbox is not None:
                await self._publish(int(piece.event_time_ms.max()), outbox)
        if outbox is not None:
            self._metrics.count(m.LEARNT_SAMPLES, len(samples), self._spec.name, self._lineage)

    async def _publish(self, event_time_ms: int, outbox: Outbox) -> None:
        """Register a snapshot, ask for it to serve unless it became worse, and prune what has no use any more."""
        snapshot: Snapshot = await self._host.call("snapshot")
        if snapshot.next_offset == self._published_offset:
            return  # nothing was learnt since
        self._published_offset = snapshot.next_offset
        standing: Standing | None = await self._host.call("standing")
        metrics = {} if standing is None else {"brier": standing.own, "brier_in_use": standing.served}
        version = await self._publisher.register(snapshot, metrics, outbox)
        action: Action = "published"
        reason = f"{self._learner.publish_every} more samples were taken"
        if standing is not None and standing.own > standing.served + self._learner.publish_margin:
            action = "kept_back"
            reason = (
                f"over the newest {standing.samples} mature samples its Brier score {standing.own:.4f} is worse than "
                f"{standing.served:.4f} of the version in use by more than {self._learner.publish_margin}"
            )
        else:
            self._publisher.ask_to_serve(version, outbox)
        told = ModelUpdate(
            stream=self._spec.name,
            lineage=self._lineage,
            action=action,
            reason=reason,
            samples=snapshot.learnt,
            first_offset=0,
            last_offset=snapshot.next_offset - 1,
            event_time_ms=event_time_ms,
            model_id=version.model_id,
            metrics=metrics,
        )
        if action == "kept_back":
            log.warning("stream %s: snapshot %s is kept back: %s", self._spec.name, version.model_id, reason)
        self._write(told, outbox)
        for pruned in await self._publisher.prune(outbox):
            reason = f"it never served, and {self._learner.keep_snapshots} newer snapshots did not either"
            self._write(msgspec.structs.replace(told, action="pruned", reason=reason, model_id=pruned), outbox)

    def _tell(self, updates: list[Update], outbox: Outbox | None) -> None:
        if outbox is None:
            return
        for update in updates:
            told = ModelUpdate(
                stream=self._spec.name,
                lineage=self._lineage,
                action="learnt",
                reason=update.reason,
                samples=update.samples,
                first_offset=update.first_offset,
                last_offset=update.last_offset,
                event_time_ms=update.event_time_ms,
            )
            self._write(told, outbox)

    def _write(self, told: ModelUpdate, outbox: Outbox) -> None:
        outbox.add(self._topics.updates, 0, self._spec.name.encode(), encode(told))
        self._metrics.count(m.LEARNER_UPDATES, 1, self._spec.name, self._lineage, told.action)

    def _build(self, start_from: bytes | None, dumped: bytes | None) -> Callable[[], OnlineLearner]:
        learner = self._learner
        assert learner.strategy is not None, "the settings' defaults are filled in before"
        assert learner.batch_size is not None
        assert learner.max_buffer is not None
        return partial(
            open_learner,
            learner.algorithm,
            len(self._spec.features),
            len(self._spec.classes) or 1,
            learner.parameters,
            Settings(
                strategy=learner.strategy,
                batch_size=learner.batch_size,
                max_buffer=learner.max_buffer,
                period_ms=learner.period_minutes * MINUTE_MS,
                accuracy_drop=self._spec.evaluation.accuracy_drop,
                threshold=self._spec.threshold,
            ),
            compare_samples=learner.publish_every,
            maturity_ms=self._spec.ripens_ms,
            start_from=start_from,
            dumped=dumped,
        )
