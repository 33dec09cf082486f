"""Evaluate: every sample tells how good the models were; windows become performance records, findings become alerts.

It also reads the stream's schedule: the label times of the samples are its clock.
"""

import asyncio
import hashlib
import logging
import math
from contextlib import aclosing
from typing import Final, Literal, NamedTuple

import msgspec

from agents.blobs import Blobs
from agents.evaluable import EvaluableReader
from agents.schedule import request_of as scheduled_request
from agents.schedule import schedule_of
from ml.errors import ModelPayloadInvalid
from ml.evaluation.evaluator import Evaluator, Folded, Report
from ml.evaluation.gates import Finding, GateRules, Kind
from ml.evaluation.histogram import Ints
from ml.evaluation.tally import Scoring
from ml.evaluation.windows import WindowRules
from schemas.events import Alert, Checkpoint, Performance, RetrainRequest, VariantPerformance
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import encode
from stores.artifacts import ArtifactCorrupted, ArtifactMissing
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.delivery import Offsets
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "evaluate"
FORMAT = 1
FOLDED_SAMPLES = 512  # in one go while opening, before others get a turn
SAVE_SAMPLES = 100_000  # read again in about a second
SAVE_LOG_MS = 3_600_000  # a slow stream must not wait until retention has removed what it would read again

log = logging.getLogger("penstock.evaluate")


class Evaluate(Stage):
    """The stage on `<s>.samples`. Its state is the windows that are not mature yet: 2 MB, and the open one."""

    def __init__(
        self, spec: StreamSpec, memory: Memory, blobs: Blobs, metrics: Metrics, save_samples: int = SAVE_SAMPLES
    ) -> None:
        self._spec = spec
        self._memory = memory
        self._blobs = blobs
        self._metrics = metrics
        self._save_samples = save_samples
        self._topics = StreamTopics(spec.name)
        self._source = TopicPartition(self._topics.samples, 0)
        self._scoring, self._windows, self._gates = rules_of(spec)
        self._rules = msgspec.json.encode([self._scoring, self._windows])
        self._reader = EvaluableReader(spec)
        self._schedule = schedule_of(spec)
        self._forget()

    def _forget(self) -> None:
        self._evaluator = Evaluator(self._scoring, self._windows, self._gates)
        self._next_offset = 0
        self._unsaved = 0
        self._unsaved_since_ms: int | None = None
        self._newest_ms = 0

    async def open(self, committed: Offsets) -> None:
        """Restore the newest checkpoint, then fold again what was committed after it."""
        self._forget()
        stop = committed[self._source]
        await self._restore(await self._memory.newest(committed))
        async with aclosing(self._memory.read(self._source, self._next_offset, stop)) as batches:
            async for batch in batches:
                for piece in batch.cut(FOLDED_SAMPLES):
                    self._fold(piece)
                    await asyncio.sleep(0)
        self._next_offset = stop

    async def _restore(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and (checkpoint.format != FORMAT or bytes(checkpoint.state) != self._rules):
            log.info("stream %s is evaluated anew: its checkpoint is of other rules", self._spec.name)
            checkpoint = None
        try:
            dumped = await self._blobs.unpack(checkpoint)
            if checkpoint is not None:
                await asyncio.to_thread(self._evaluator.load, dumped)  # 0.3 s at worst
                self._next_offset = checkpoint.offsets[self._source.topic]
        except (ValueError, msgspec.MsgspecError, ModelPayloadInvalid, ArtifactMissing, ArtifactCorrupted) as error:
            log.warning("stream %s is evaluated anew: its checkpoint cannot be read: %s", self._spec.name, error)
            self._forget()

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Fold the batch; put performance, alerts and retrain requests into `outbox`."""
        folded, scheduled = self._fold(batch)
        key = self._spec.name.encode()
        for found in folded.found:
            if isinstance(found, Report):
                self._report(found, outbox)
            else:
                alert = alert_of(self._spec.name, found)
                log.warning("stream %s: %s", self._spec.name, alert.message)
                outbox.add(self._topics.alerts, 0, key, encode(alert))
                outbox.add(self._topics.retrain, 0, key, encode(request_of(self._spec.name, found)))
        for request in scheduled:
            outbox.add(self._topics.retrain, 0, key, encode(request))
        self._metrics.count(m.SAMPLES_EVALUATED, len(batch.records), self._spec.name)
        for reason, count in folded.missed.items():
            self._metrics.count(m.SAMPLES_MISSED, count, self._spec.name, reason)

    def _fold(self, batch: Batch) -> tuple[Folded, list[RetrainRequest]]:
        samples, unusable = self._reader.read(batch.records)
        scheduled = self._scheduled(samples.label_times_ms)
        folded = self._evaluator.fold(samples)
        if unusable:
            folded.missed["unusable"] += unusable
        self._next_offset = batch.next_offset
        self._unsaved += len(batch.records)
        self._newest_ms = batch.records[-1].timestamp
        if self._unsaved_since_ms is None:
            self._unsaved_since_ms = batch.records[0].timestamp
        return folded, scheduled

    def _scheduled(self, label_times_ms: Ints) -> list[RetrainRequest]:
        """Return what is asked while these times move the clock on from where the evaluator has it."""
        if self._schedule is None:
            return []
        passed = self._schedule.passed(self._evaluator.label_head_ms, label_times_ms)
        return [scheduled_request(self._spec.name, self._schedule, due, STAGE) for due in passed]

    def _report(self, report: Report, outbox: Outbox) -> None:
        performance = performance_of(self._spec, report)
        outbox.add(self._topics.performance, 0, self._spec.name.encode(), encode(performance))
        for measured in report.variants if report.mature else ():
            for figure, value in msgspec.structs.asdict(measured.figures).items():
                self._metrics.set(
                    m.PERFORMANCE, math.nan if value is None else value, self._spec.name, measured.variant, figure
                )

    async def save(self, outbox: Outbox) -> None:
        """Put the state into `outbox` when much has been folded since the last time, or for long in the log's time."""
        since_ms = self._unsaved_since_ms
        if since_ms is None or (self._unsaved < self._save_samples and self._newest_ms - since_ms < SAVE_LOG_MS):
            return
        dumped = await asyncio.to_thread(self._evaluator.dump)  # 0.1 s when many windows were corrected
        checkpoint = Checkpoint(
            stage=STAGE,
            partition=self._source.partition,
            format=FORMAT,
            offsets={self._source.topic: self._next_offset},
            state=msgspec.Raw(self._rules),
            **await self._blobs.pack(dumped),
        )
        self._memory.save(checkpoint, outbox)
        self._unsaved, self._unsaved_since_ms = 0, None

    async def close(self) -> None:
        """Show no figures of a stream that another worker may evaluate by now."""
        self._metrics.forget(m.PERFORMANCE, self._spec.name)


def rules_of(spec: StreamSpec) -> tuple[Scoring, WindowRules, GateRules]:
    """Return what the stream's declaration says of evaluation, in the words of `ml`."""
    rules = spec.evaluation
    return (
        Scoring(spec.task, len(spec.classes) or 2, spec.threshold),
        WindowRules(
            samples=rules.window_samples,
            span_ms=rules.window_minutes * MINUTE_MS,
            ripens_ms=spec.ripens_ms,
        ),
        GateRules(
            min_samples=rules.min_samples,
            accuracy_drop=rules.accuracy_drop,
            reference_accuracy=rules.reference_accuracy,
            reference_windows=rules.reference_windows,
            max_false_positive_rate=rules.max_false_positive_rate,
            max_latency_ms=rules.max_latency_ms,
            cooldown_ms=rules.cooldown_minutes * MINUTE_MS,
        ),
    )


def performance_of(spec: StreamSpec, report: Report) -> Performance:
    """Return the record of one window."""
    return Performance(
        stream=spec.name,
        window="time" if spec.evaluation.window_minutes else "count",
        number=report.number,
        from_time_ms=report.from_ms,
        to_time_ms=report.to_ms,
        mature=report.mature,
        variants=tuple(
            VariantPerformance(
                variant=measured.variant, model_id=measured.model_id, **msgspec.structs.asdict(measured.figures)
            )
            for measured in report.variants
        ),
    )


class _Words(NamedTuple):
    severity: Literal["medium", "high"]
    message: str
    recommendation: str


_CHANGED: Final = "Look at what changed in the events and their labels; training anew has been asked for."
_SAYS: Final[dict[Kind, _Words]] = {
    "accuracy": _Words(
        "high", "accuracy {value:.4f} is below {threshold:.4f}, which its reference {reference:.4f} allows", _CHANGED
    ),
    "false_positive_rate": _Words(
        "high", "the false-positive rate {value:.4f} is above its limit {threshold:.4f}", _CHANGED
    ),
    "latency": _Words(
        "medium",
        "the median latency {value:.0f} ms is above its limit {threshold:.0f} ms",
        "Look at ml_consumer_lag_events and ml_step_seconds: more workers, or a smaller model.",
    ),
    "error_drift": _Words(
        "medium",
        "the share of errors rose from {reference:.4f} to {value:.4f} over the last {n} samples",
        _CHANGED,
    ),
}


def alert_of(stream: str, finding: Finding) -> Alert:
    """Return what a person is told."""
    words = _SAYS[finding.kind]
    message = words.message.format(**msgspec.structs.asdict(finding))
    return Alert(
        id=_id_of("alert", stream, finding),
        stream=stream,
        kind=finding.kind,
        severity=words.severity,
        subject=finding.model_id,
        message=f"model {finding.model_id}, {finding.window}: {message}",
        recommendation=words.recommendation,
        raised_time_ms=finding.time_ms,
        value=finding.value,
        threshold=finding.threshold,
        window=finding.window,
    )


def request_of(stream: str, finding: Finding) -> RetrainRequest:
    """Return what a trainer is asked, with the evidence."""
    return RetrainRequest(
        id=_id_of("retrain", stream, finding),
        stream=stream,
        reason=finding.kind,
        evidence={
            "variant": finding.variant,
            "model_id": finding.model_id,
            "window": finding.window,
            "value": finding.value,
            "reference": finding.reference,
            "threshold": finding.threshold,
            "n": finding.n,
            "from_time_ms": finding.from_ms,
            "to_time_ms": finding.to_ms,
        },
        requested_time_ms=finding.time_ms,
        requested_by=STAGE,
    )


def _id_of(what: str, stream: str, finding: Finding) -> str:
    """Return an id that a replay repeats: of what, stream, kind, subject and window."""
    parts = (what, stream, finding.kind, finding.model_id, finding.window)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
