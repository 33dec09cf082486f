"""From records of `<s>.samples` to the columns that evaluation counts."""

import logging
from collections.abc import Sequence
from typing import Annotated
from zlib import crc32

import msgspec
import numpy as np

from agents.learnable import TRIGGER_KEY
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.window import CHAMPION
from schemas.errors import InvalidEvent
from schemas.events import Event, ShadowScore, TimeMs
from schemas.streams import StreamSpec
from schemas.wire import DECODE_ERRORS, decode, decoder
from stream.batches import Record

log = logging.getLogger("penstock.evaluate")

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class EvaluatedSample(Event, frozen=True, kw_only=True, gc=False):
    """What evaluation reads of a Sample."""

    event_id: str
    revision: Ordinal
    event_time_ms: TimeMs
    label_time_ms: TimeMs
    label: int | str
    score: float
    scores: list[float] | None = None
    model_id: str
    latency_ms: Whole = 0
    shadows: tuple[ShadowScore, ...] = ()
    replaces: int | str | None = None
    assumed: bool = False


class SampleReader:
    """Reads the samples of one stream. Triggers for learners stand between them and are passed over."""

    def __init__(self, spec: StreamSpec) -> None:
        self._stream = spec.name
        self._decode = decoder(EvaluatedSample).decode
        labels: tuple[int | str, ...] = spec.classes or (0, 1)
        self._classes: dict[int | str | None, int] = {label: i for i, label in enumerate(labels)}
        self._width = len(spec.classes)

    def read(self, records: Sequence[Record]) -> tuple[Columns, int]:
        """Return the samples and how many records are none that can be used; about 3 µs each with one shadow.

        Those are logged and left out, as every fold of the log does alike: no JSON, a label that the
        stream does not have, or not a score for each class.
        """
        records = [record for record in records if record.key != TRIGGER_KEY]
        try:
            samples = list(map(self._decode, [record.value for record in records]))  # type: ignore[arg-type]
            offsets = [record.offset for record in records]
        except DECODE_ERRORS:
            offsets, samples = self._decoded_singly(records)
        labels = [self._classes.get(sample.label, -1) for sample in samples]
        if self._width or -1 in labels:
            usable = [i for i, s in enumerate(samples) if labels[i] >= 0 and self._has_scores(s.scores)]
            if len(usable) < len(samples):
                log.warning("%d records of %s.samples are of other classes", len(samples) - len(usable), self._stream)
            offsets, samples = [offsets[i] for i in usable], [samples[i] for i in usable]
            labels = [labels[i] for i in usable]
        return self._columns(offsets, samples, labels), len(records) - len(samples)

    def _decoded_singly(self, records: Sequence[Record]) -> tuple[list[int], list[EvaluatedSample]]:
        offsets, samples = [], []
        for record in records:
            try:
                samples.append(decode(EvaluatedSample, record.value))
                offsets.append(record.offset)
            except InvalidEvent as error:
                log.warning("the record at offset %d of %s.samples is skipped: %s", record.offset, self._stream, error)
        return offsets, samples

    def _has_scores(self, scores: list[float] | None) -> bool:
        return not self._width or (scores is not None and len(scores) == self._width)

    def _columns(self, offsets: list[int], samples: list[EvaluatedSample], labels: list[int]) -> Columns:
        times_ms = np.array([sample.event_time_ms for sample in samples], dtype=np.int64)
        ids = np.array([crc32(sample.event_id.encode()) for sample in samples], dtype=np.int64)
        classes = self._classes
        return Columns(
            offsets=np.array(offsets, dtype=np.int64),
            # Two events of one number would have to share both the time, to 24 days, and the 32 bits of the id.
            events=(ids << 31) | (times_ms & 0x7FFF_FFFF),
            revisions=np.array([sample.revision for sample in samples], dtype=np.int64),
            event_times_ms=times_ms,
            label_times_ms=np.array([sample.label_time_ms for sample in samples], dtype=np.int64),
            latencies_ms=np.array([sample.latency_ms for sample in samples], dtype=np.int64),
            labels=np.array(labels, dtype=np.int64),
            replaced=np.array([classes.get(sample.replaces, -1) for sample in samples], dtype=np.int64),
            assumed=np.array([sample.assumed for sample in samples], dtype=np.bool_),
            variants=self._variants(samples),
        )

    def _variants(self, samples: list[EvaluatedSample]) -> dict[str, Scored]:
        """Return each variant's scores. A shadow that is there twice, or not for each class, is left out there."""
        found: dict[str, tuple[list[int], list[ShadowScore]]] = {}
        for row, sample in enumerate(samples):
            for shadow in sample.shadows:
                rows, shadows = found.setdefault(shadow.variant, ([], []))
                if self._has_scores(shadow.scores) and (not rows or rows[-1] != row):
                    rows.append(row)
                    shadows.append(shadow)
        variants = {name: self._scored(rows, shadows) for name, (rows, shadows) in found.items() if rows}
        if samples:
            variants[CHAMPION] = self._scored(list(range(len(samples))), samples)
        return variants

    def _scored(self, rows: list[int], given: Sequence[EvaluatedSample | ShadowScore]) -> Scored:
        scores = [one.scores for one in given] if self._width else [one.score for one in given]
        return Scored(
            rows=np.array(rows, dtype=np.int64),
            scores=np.array(scores, dtype=np.float64),
            models=np.array([one.model_id for one in given], dtype=object),
        )
