"""Judge: partial histograms become windows, and each window a report; what is news in it becomes an alert.

The stage is a fold of `<s>.histograms`. Its checkpoint goes with every commit that holds a judgement, and is small: how
many windows were judged, what was told, and where in the log the windows that are not judged yet begin. So a crash
costs reading those windows' partials again, at 2 to 20 µs per column of each.
"""

import asyncio
import logging
import math
from collections import Counter
from contextlib import aclosing
from typing import Final

import msgspec

from agents.judge.alerts import Alerts, Told, report_of
from agents.judge.partials import Partial, PartialReader
from agents.judge.references import OpenBaseline, References
from agents.judge.windows import Turned, WindowsState, windows_of
from ml.drift.baseline import Baseline
from ml.drift.counting import Counts
from ml.drift.judgement import Judgement, Rules, judge
from schemas.drift import ColumnDrift, DriftReport
from schemas.events import Alert, Checkpoint, RetrainRequest
from schemas.streams import MINUTE_MS, DriftSpec, StreamSpec
from schemas.wire import encode
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.delivery import Offsets
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.metrics import Metric
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "judge"
FORMAT = 1
READ_AT_ONCE = 4  # partials, before others get a turn
JUDGED_HERE_COLUMNS = 100  # take 20 ms; more are judged in a thread
FOREIGN: Final = "the baseline is of another model's predictions"
SHOWN: Final = ("psi", "jensen_shannon", "ks", "p_value", "wasserstein_scaled", "missing_share", "unseen_share")

log = logging.getLogger("penstock.judge")


class WindowKind(msgspec.Struct, frozen=True):
    """What windows are, by declaration: of so many events, or of a span when that is not 0; sliding or not."""

    events: int
    span_ms: int
    sliding: bool


class JudgeState(msgspec.Struct, frozen=True):
    """What a checkpoint says. `number` is that of the next report."""

    kind: WindowKind
    number: int
    told: Told
    windows: WindowsState


class Folded(msgspec.Struct):
    """What came of some partials: reports with what is told of each, windows by outcome, partials missed by reason."""

    reports: list[tuple[DriftReport, Alert | None, RetrainRequest | None]]
    outcomes: Counter[str]
    missed: Counter[str]


class Judge(Stage):
    """The stage on `<s>.histograms`. Its state is what was counted in the windows that are not judged yet."""

    def __init__(
        self, spec: StreamSpec, drift: DriftSpec, open_baseline: OpenBaseline, memory: Memory, metrics: Metrics
    ) -> None:
        """`drift` leaves nothing open."""
        assert drift.window_events is not None
        assert drift.check_seconds is not None
        self._spec = spec
        self._drift = drift
        self._memory = memory
        self._metrics = metrics
        self._topics = StreamTopics(spec.name)
        self._source = TopicPartition(self._topics.histograms, 0)
        self._kind = WindowKind(drift.window_events, drift.window_minutes * MINUTE_MS, drift.sliding)
        self._check_ms = drift.check_seconds * 1000 if drift.sliding else None
        self._rules = rules_of(drift)
        self._reader = PartialReader(spec)
        self._references = References(spec, open_baseline)
        self._forget()

    def _forget(self) -> None:
        lateness_ms = self._drift.lateness_minutes * MINUTE_MS
        self._windows = windows_of(
            self._kind.events, self._kind.span_ms, lateness_ms, self._check_ms, self._spec.partitions
        )
        self._alerts = Alerts(self._drift)
        self._number = 0
        self._next_offset = 0
        self._judged_offset = 0  # before it, partials are only put into windows
        self._begins: dict[str, int] = {}
        self._unsaved = False

    async def open(self, committed: Offsets) -> None:
        """Restore the newest checkpoint, and count again what belongs to windows that are not judged yet.

        Without one the whole log is judged anew, and what comes of that is thrown away: people were told, or by other
        rules. So nothing counts as told then, and they are rather told twice than never.
        """
        self._forget()
        stop = committed[self._source]
        checkpoint = await self._memory.newest(committed)
        start = self._restore(checkpoint, stop)
        told = {name: dict(told) for name, told in self._alerts.told.items()}
        async with aclosing(self._memory.read(self._source, start, stop)) as batches:
            async for batch in batches:
                await self.fold(batch)
        self._alerts.told = told
        self._next_offset = stop

    def _restore(self, checkpoint: Checkpoint | None, stop: int) -> int:
        """Take over a checkpoint; return the offset from which on partials matter."""
        self._unsaved = True  # so that the first commit says what windows are and where they begin
        if checkpoint is None:
            return 0
        try:
            if checkpoint.format != FORMAT:
                raise ValueError(f"it is of format {checkpoint.format}")
            state = msgspec.json.decode(checkpoint.state, type=JudgeState)
        except (ValueError, msgspec.MsgspecError) as error:
            log.warning("stream %s is judged anew: its checkpoint cannot be read: %s", self._spec.name, error)
            return 0
        self._number, self._alerts.told = state.number, {name: dict(told) for name, told in state.told.items()}
        if state.kind != self._kind:
            log.info("stream %s has windows of another kind now; they begin here", self._spec.name)
            self._judged_offset = stop
            return stop
        self._unsaved = False
        self._windows.load(state.windows)
        self._judged_offset = checkpoint.offsets[self._source.topic]
        self._begins = state.windows.begins
        return min(self._begins.values(), default=self._judged_offset)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Fold the batch; put reports, alerts and retrain requests into `outbox`."""
        folded = await self.fold(batch)
        key, stream = self._spec.name.encode(), self._spec.name
        for report, alert, request in folded.reports:
            outbox.add(self._topics.drift, 0, key, encode(report))
            if alert is not None:
                log.warning("stream %s: %s", stream, alert.message)
                outbox.add(self._topics.alerts, 0, key, encode(alert))
                self._metrics.count(m.DRIFT_ALERTS, 1, stream, alert.severity)
            if request is not None:
                outbox.add(self._topics.retrain, 0, key, encode(request))
        if folded.reports:
            self._show(folded.reports[-1][0])
        for outcome, count in folded.outcomes.items():
            self._metrics.count(m.DRIFT_WINDOWS, count, stream, outcome)
        for reason, count in folded.missed.items():
            self._metrics.count(m.DRIFT_PARTIALS_MISSED, count, stream, reason)
            log.warning("stream %s: %d partial histograms are in no drift window: %s", stream, count, reason)

    async def fold(self, batch: Batch) -> Folded:
        """Put partials into windows, and judge those that turn. Writes and shows nothing.

        Holds the loop for 13 ms at once with partials of 1,000 events and 100 features, which cost 3 ms each.
        """
        folded = Folded([], Counter(), Counter())
        for piece in batch.cut(READ_AT_ONCE):
            partials, unusable = self._reader.read(piece.records)
            if unusable:
                folded.missed["unusable"] += unusable
            for partial in partials:
                if partial.offset >= self._begins.get(partial.event.baseline, self._judged_offset):
                    await self._put(partial, folded)
            await asyncio.sleep(0)
        self._next_offset = batch.next_offset
        return folded

    async def _put(self, partial: Partial, folded: Folded) -> None:
        reference = await self._references.get(partial.event.baseline)
        if missed := self._windows.put(partial, reference):
            folded.missed[missed] += 1
        if partial.offset < self._judged_offset:
            return
        for turned in self._windows.turn(partial.offset):
            outcome = await self._decide(turned, folded)
            folded.outcomes[outcome] += 1
            self._unsaved = True

    async def _decide(self, turned: Turned, folded: Folded) -> str:
        """Judge a window, if it can be; return what became of it."""
        window = turned.window
        where = f"the window of {window.n} events against the baseline {window.reference.sha256[:12]}"
        if not turned.complete:
            log.info("stream %s: %s is given up: the baseline is out of use", self._spec.name, where)
            return "given_up"
        if window.reference.baseline is None or window.counts is None:
            self._references.forget(window.reference.sha256)
            log.warning("stream %s: %s is not judged: %s", self._spec.name, where, window.reference.problem)
            return "no_baseline"
        if not window.counts.n:
            log.warning("stream %s: %s is not judged: its cells are not the baseline's", self._spec.name, where)
            return "misfit"
        foreign = "" if window.models <= window.reference.owners else FOREIGN
        # The predictions of other variants than the champion are left out of a partial. They are not missing.
        window.counts.missing[len(window.reference.baseline.features) :] = 0
        judgement = await self._judge(window.reference.baseline, window.counts, foreign)
        report = report_of(self._spec.name, self._number, window, judgement)
        folded.reports.append((report, *self._alerts.of(report, window.head_ms)))
        self._number += 1
        return "judged"

    async def _judge(self, baseline: Baseline, counts: Counts, foreign: str) -> Judgement:
        if len(baseline.columns) > JUDGED_HERE_COLUMNS:
            return await asyncio.to_thread(judge, baseline, counts, self._rules, foreign)
        await asyncio.sleep(0)  # others get a turn between windows
        return judge(baseline, counts, self._rules, foreign)

    def _show(self, report: DriftReport) -> None:
        self._metrics.set(m.DRIFTED_FEATURES, report.drifted_share, report.stream)
        groups: tuple[tuple[Metric, tuple[ColumnDrift, ...]], ...] = (
            (m.FEATURE_DRIFT, report.features),
            (m.PREDICTION_DRIFT, report.predictions),
        )
        for metric, columns in groups:
            for column in columns:
                for figure in SHOWN:
                    value = getattr(column, figure)
                    self._metrics.set(metric, math.nan if value is None else value, report.stream, column.name, figure)

    async def save(self, outbox: Outbox) -> None:
        """Put the state into `outbox` if a window was judged or given up since the last time."""
        if not self._unsaved:
            return
        state = JudgeState(self._kind, self._number, self._alerts.told, self._windows.dump())
        checkpoint = Checkpoint(
            stage=STAGE,
            partition=self._source.partition,
            format=FORMAT,
            offsets={self._source.topic: self._next_offset},
            state=msgspec.Raw(encode(state)),
        )
        self._memory.save(checkpoint, outbox)
        self._unsaved = False

    async def close(self) -> None:
        """Show no figures of a stream that another worker may judge by now."""
        for metric in (m.FEATURE_DRIFT, m.PREDICTION_DRIFT, m.DRIFTED_FEATURES):
            self._metrics.forget(metric, self._spec.name)


def rules_of(drift: DriftSpec) -> Rules:
    """Return what the stream's declaration says of drift, in the words of `ml`."""
    assert drift.threshold is not None
    return Rules(
        threshold=drift.threshold,
        min_psi=drift.min_psi,
        min_distance=drift.min_distance,
        min_unseen_share=drift.min_unseen_share,
        min_missing_change=drift.min_missing_change,
        drifted_share=drift.drifted_share,
        only_counted=frozenset(drift.only_counted),
        empty_bins=drift.empty_bins,
    )
