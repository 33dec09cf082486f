"""Compare: samples and counts of variants become reports, alerts, and the commands that take a rollout's steps.

The state is two folds, of `<s>.samples` and of `<s>.variants`, for the experiment of the newest deployment, and what
was said of it. The folds need not be told apart from each other in time: samples and counts are added up separately,
and which experiment and epoch a record belongs to stands in its deployment revision. So a restart restores a checkpoint
and folds again what was committed after it, first all samples, then all counts, and has the state that it had.

What was said (reports, commands, alerts) is no fold: it depends on where commits fell. It is small, and is written with
every commit that says anything, in the same transaction. So nothing is said while a stage opens, a report's number is
given once, and a command that was not committed comes of the same state again. When to look is decided from the
committed state alone (see Tracked.marks), at most once per commit, so that a restart between two commits changes
nothing. Without transactions the newest checkpoint may be lost in a crash: then a report or a command is repeated,
as everything is there; control knows a command that it has carried out by its correlation id.

The state itself is large. It is saved as soon as an experiment begins, so that the log is never read from its
beginning, and rarely from then on; checkpoints in between name the same bytes again. Without any that can be used, a
running experiment is folded from all that the logs still have.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from agents.blobs import BlobFields, Blobs
from agents.compare.folding import Folding
from agents.compare.gauges import Gauges
from agents.compare.reports import report_of, report_of_shadows
from agents.compare.shadows import Marks as ShadowMarks
from agents.compare.telling import EVENTS_BETWEEN, Told, alerts_of, asked_of, is_news, reported, says_more
from agents.compare.tracked import Marks, Tracked
from ml.errors import ModelError
from schemas.events import Checkpoint, Deployment
from schemas.experiments import ExperimentReport
from schemas.streams import StreamSpec
from schemas.wire import encode
from stores.artifacts import ArtifactCorrupted, ArtifactMissing
from stream.batches import Batch, Outbox, TopicPartition
from stream.delivery import Offsets
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.views import LogView
from topics.specs import StreamTopics

STAGE: Final = "compare"
FORMAT: Final = 1
INLINE_BYTES: Final = 4 * 1024  # of the state in each checkpoint: many in a row have the same
FOLDED_RECORDS: Final = 512  # in one go while opening, before others get a turn
SAVE_RECORDS: Final = 100_000
SAVE_LOG_MS: Final = 3_600_000  # a slow stream must not wait until retention has removed what it would read again

log = logging.getLogger("penstock.compare")


class CompareState(msgspec.Struct, frozen=True):
    """What a checkpoint says. `told` is None without an experiment; `shadow_number` is that of the next report then.

    The blob is the state after the records before `folded` (by topic), of an experiment that goes by `rules`.
    """

    told: Told | None
    shadow_number: int
    rules: str
    folded: dict[str, int]


class Compare(Stage):
    """The stage on `<s>.samples` and `<s>.variants`."""

    aligned = False  # samples and counts are added up apart from each other

    def __init__(
        self,
        spec: StreamSpec,
        deployments: LogView[Deployment],
        caught_up: Callable[[], Awaitable[None]],
        memory: Memory,
        blobs: Blobs,
        metrics: Metrics,
        save_records: int = SAVE_RECORDS,
    ) -> None:
        """`caught_up` waits until `deployments` holds all that is in its log."""
        topics = StreamTopics(spec.name)
        self._spec = spec
        self._deployments = deployments
        self._caught_up = caught_up
        self._memory = memory
        self._blobs = blobs
        self._gauges = Gauges(metrics, spec.name)
        self._save_records = save_records
        self._topics = topics
        self._sources = (TopicPartition(topics.samples, 0), TopicPartition(topics.variants, 0))
        self._forget()

    def _forget(self) -> None:
        self._folding = Folding(self._spec, self._deployments)
        self._told: Told | None = None
        self._marks: Marks | None = None  # how far the experiment had come at the last commit
        self._shadow_marks: ShadowMarks = {}
        self._shadow_number = 0
        self._last_reports: list[ExperimentReport] = []
        self._next: dict[str, int] = {}
        self._saved: CompareState | None = None
        self._blob: BlobFields | None = None  # None: the state must be saved with the next commit
        self._folded: dict[str, int] = {}
        self._unsaved = 0
        self._unsaved_since_ms: int | None = None
        self._newest_ms = 0

    async def open(self, committed: Offsets) -> None:
        """Restore the newest checkpoint, then fold again what was committed after it: all samples, then all counts."""
        self._forget()
        await self._caught_up()
        self._folding.refresh()
        self._next = {source.topic: committed[source] for source in self._sources}
        starts = await self._restore(await self._memory.newest(committed))
        for source in self._sources:
            async with aclosing(self._memory.read(source, starts[source.topic], committed[source])) as batches:
                async for batch in batches:
                    for piece in batch.cut(FOLDED_RECORDS):
                        self._fold(piece)
                        await asyncio.sleep(0)
        self._shadow_marks = self._folding.shadows.marks(EVENTS_BETWEEN)
        tracked, told = self._folding.tracked, self._told
        self._gauges.active(tracked is not None)
        if tracked is not None and told is not None:
            look = await asyncio.to_thread(tracked.monitor.look)  # of all that was restored: the later ones cost less
            if told.number:
                self._marks = tracked.marks._replace(epoch=told.epoch)
                self._gauges.show(report_of(tracked, look, told.number, self._folding.shadows.figures()))

    async def _restore(self, checkpoint: Checkpoint | None) -> dict[str, int]:
        """Take over a checkpoint; return the offsets from which on records are to be folded again."""
        state, history = self._state_of(checkpoint), self._folding.history
        if state is None:
            await self._blobs.unpack(None)
            self._begin(history.newest)
        else:
            self._shadow_number = state.shadow_number
            self._begin(history.newest_of(state.told.experiment_id) if state.told else None, state.told)
        loaded = state is not None and checkpoint is not None and await self._load(state, checkpoint)
        # Without an experiment up to here, all samples of one that has begun since are still to come.
        starts = dict(self._next)
        if self._folding.tracked is not None:
            starts = dict(self._folded) if loaded else dict.fromkeys(starts, 0)
        elif self._folding.has_shadows:
            starts[self._topics.variants] = self._folded[self._topics.variants] if loaded else 0
        return starts

    def _state_of(self, checkpoint: Checkpoint | None) -> CompareState | None:
        if checkpoint is None:
            return None
        try:
            if checkpoint.format != FORMAT:
                raise ValueError(f"it is of format {checkpoint.format}")
            return msgspec.json.decode(checkpoint.state, type=CompareState)
        except (ValueError, msgspec.MsgspecError) as error:
            log.warning("stream %s is compared anew: its checkpoint cannot be read: %s", self._spec.name, error)
            return None

    async def _load(self, state: CompareState, checkpoint: Checkpoint) -> bool:
        """Take over what was added up; return whether that is possible."""
        tracked = self._folding.tracked
        try:
            if state.rules != self._folding.rules:
                raise ValueError("it was added up by other rules")
            await asyncio.to_thread(self._folding.load, await self._blobs.unpack(checkpoint))  # up to 0.1 s
        except (ValueError, msgspec.MsgspecError, ModelError, ArtifactMissing, ArtifactCorrupted) as error:
            log.warning("stream %s is added up anew: %s", self._spec.name, error)
            self._folding.begin(None if tracked is None else tracked.deployment)
            return False
        self._blob = BlobFields(
            blob_base64=checkpoint.blob_base64, blob_sha256=checkpoint.blob_sha256, blob_bytes=checkpoint.blob_bytes
        )
        self._folded, self._saved = state.folded, state
        return True

    def _begin(self, deployment: Deployment | None, told: Told | None = None) -> None:
        """Follow the experiment of a deployment, if it has one; `told` is what was said of it."""
        self._folding.begin(deployment)
        self._told = _told_of(self._folding.tracked, told)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Fold the batch; what comes of it is said with the commit.

        A record may name a deployment that the view does not have yet: that is waited for. So an experiment is known
        before any of its records is folded.
        """
        self._follow()
        if not self._folding.reaches(batch):
            await self._caught_up()
            self._follow()
        tracked = self._folding.tracked
        missed: Counter[str] = Counter() if tracked is None else tracked.monitor.missed.copy()
        self._fold(batch)
        if tracked is not None:
            self._gauges.missed(tracked.monitor.missed - missed)

    def _fold(self, batch: Batch) -> None:
        self._folding.fold(batch)
        self._next[batch.source.topic] = max(self._next[batch.source.topic], batch.next_offset)
        self._unsaved += len(batch.records)
        self._newest_ms = max(self._newest_ms, batch.records[-1].timestamp)
        if self._unsaved_since_ms is None:
            self._unsaved_since_ms = batch.records[0].timestamp

    def _follow(self) -> None:
        """Take over what is new in the deployments. Of an experiment that has ended there is a last report."""
        before, told = self._folding.tracked, self._told
        shadows = self._folding.shadows.figures()
        self._folding.follow()
        if self._folding.tracked is before:
            return
        if before is not None and told is not None:
            look = before.monitor.look()
            if says_more(before, look, told):
                self._last_reports.append(report_of(before, look, told.number, shadows))
            self._gauges.forget()
        self._told = _told_of(self._folding.tracked, None)
        self._marks = self._blob = None
        self._gauges.active(self._folding.tracked is not None)

    async def save(self, outbox: Outbox) -> None:
        """Put what there is to say into `outbox`, and the state, if it is time; a look costs about 2 ms."""
        for report in self._last_reports:
            self._add(outbox, self._topics.experiments, report)
        self._last_reports = []
        if self._folding.tracked is not None and self._told is not None:
            self._told = self._speak(self._folding.tracked, self._told, outbox)
        self._speak_of_shadows(outbox)
        await self._save_state(outbox)

    def _speak(self, tracked: Tracked, told: Told, outbox: Outbox) -> Told:
        """Look at the experiment if it has come a step further; return what was said of it by then."""
        if tracked.marks == self._marks:
            return told
        self._marks = tracked.marks
        look = tracked.monitor.look()
        if is_news(tracked, look, told):
            report = report_of(tracked, look, told.number, self._folding.shadows.figures())
            self._add(outbox, self._topics.experiments, report)
            self._gauges.show(report)
            told = reported(tracked, look, told)
        command, told = asked_of(tracked, look, told)
        if command is not None:
            log.info("stream %s: %s asks to %s: %s", self._spec.name, command.issued_by, command.action, command.reason)
            self._add(outbox, self._topics.commands, command)
        alerts, told = alerts_of(tracked, look, told)
        for alert in alerts:
            log.log(logging.INFO if alert.severity == "low" else logging.WARNING, "%s: %s", alert.stream, alert.message)
            self._add(outbox, self._topics.alerts, alert)
        return told

    def _speak_of_shadows(self, outbox: Outbox) -> None:
        """Report on the shadows of a stream without an experiment, when enough was counted of one of them."""
        shadows, newest = self._folding.shadows, self._folding.history.newest
        before, self._shadow_marks = self._shadow_marks, shadows.marks(EVENTS_BETWEEN)
        further = any(times > before.get(shadow, 0) for shadow, times in self._shadow_marks.items())
        if further and newest is not None and self._folding.tracked is None:
            report = report_of_shadows(newest, self._shadow_number, shadows.to_time_ms, shadows.figures())
            self._add(outbox, self._topics.experiments, report)
            self._gauges.show(report)
            self._shadow_number += 1

    def _add(self, outbox: Outbox, topic: str, event: msgspec.Struct) -> None:
        outbox.add(topic, 0, self._spec.name.encode(), encode(event))

    async def _save_state(self, outbox: Outbox) -> None:
        """Put a checkpoint into `outbox` if something was said, or much folded, or for long in the log's time."""
        since_ms = self._unsaved_since_ms
        for_long = since_ms is not None and self._newest_ms - since_ms >= SAVE_LOG_MS
        if self._blob is None or self._unsaved >= self._save_records or for_long:
            self._blob = await self._blobs.pack(await asyncio.to_thread(self._folding.dump))
            self._folded = dict(self._next)
            self._unsaved, self._unsaved_since_ms = 0, None
        state = CompareState(self._told, self._shadow_number, self._folding.rules, self._folded)
        if state == self._saved:
            return
        checkpoint = Checkpoint(
            stage=STAGE,
            partition=0,
            format=FORMAT,
            offsets=dict(self._next),
            state=msgspec.Raw(encode(state)),
            **self._blob,
        )
        self._memory.save(checkpoint, outbox)
        self._saved = state

    async def close(self) -> None:
        """Show no figures of a stream that another worker may compare by now."""
        self._gauges.close()


def _told_of(tracked: Tracked | None, told: Told | None) -> Told | None:
    """Return what was said of the experiment that is followed: nothing yet, unless `told` is given."""
    return None if tracked is None else told or Told(tracked.experiment.experiment_id)
