"""From records of `<s>.samples` to the columns that evaluation counts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated
from zlib import crc32

import msgspec
import numpy as np

from agents.samplelog import TRIGGER_KEY, decode_samples, keep
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.window import CHAMPION
from schemas.event import Event, TimeMs
from schemas.events import ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import decoder
from stream.batches import Record
from stream.timestamps import bounded

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
    variant: str = CHAMPION
    latency_ms: Whole = 0
    shadows: tuple[ShadowScore, ...] = ()
    replaces: int | str | None = None
    assumed: bool = False


class EvaluableReader:
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
        offsets, samples = decode_samples(self._decode, records, self._stream)
        offsets, samples = keep(offsets, samples, self._is_ours, self._stream)
        return believed(self._columns(offsets, samples), records), len(records) - len(samples)

    def _is_ours(self, sample: EvaluatedSample) -> bool:
        return sample.label in self._classes and self._has_scores(sample.scores)

    def _has_scores(self, scores: list[float] | None) -> bool:
        return not self._width or (scores is not None and len(scores) == self._width)

    def _columns(self, offsets: Sequence[int], samples: Sequence[EvaluatedSample]) -> Columns:
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
            labels=np.array([classes[sample.label] for sample in samples], dtype=np.int64),
            replaced=np.array([classes.get(sample.replaces, -1) for sample in samples], dtype=np.int64),
            assumed=np.array([sample.assumed for sample in samples], dtype=np.bool_),
            variants=self._variants(samples),
        )

    def _variants(self, samples: Sequence[EvaluatedSample]) -> dict[str, Scored]:
        """Return each variant's scores: of those that served, of their own samples, and of shadows.

        A shadow that is there twice, or not for each class, is left out there; so is one that has a served one's name.
        """
        found: dict[str, tuple[list[int], list[ShadowScore]]] = {}
        for row, sample in enumerate(samples):
            for shadow in sample.shadows:
                rows, shadows = found.setdefault(shadow.variant, ([], []))
                if self._has_scores(shadow.scores) and (not rows or rows[-1] != row):
                    rows.append(row)
                    shadows.append(shadow)
        variants = {name: self._scored(rows, shadows) for name, (rows, shadows) in found.items() if rows}
        served = {sample.variant for sample in samples}
        if len(served) == 1:  # most often
            return variants | {served.pop(): self._scored(list(range(len(samples))), samples, serves=True)}
        for name in sorted(served):
            rows = [row for row, sample in enumerate(samples) if sample.variant == name]
            variants[name] = self._scored(rows, [samples[row] for row in rows], serves=True)
        return variants

    def _scored(
        self, rows: list[int], given: Sequence[EvaluatedSample | ShadowScore], *, serves: bool = False
    ) -> Scored:
        scores = [one.scores for one in given] if self._width else [one.score for one in given]
        return Scored(
            rows=np.array(rows, dtype=np.int64),
            scores=np.array(scores, dtype=np.float64),
            models=np.array([one.model_id for one in given], dtype=object),
            serves=serves,
        )


def believed(samples: Columns, records: Sequence[Record]) -> Columns:
    """Return the samples of `records` with label times as far as they are believed.

    By that clock windows ripen and the schedule is read: a time that is far ahead would stop both for good.
    """
    offsets = np.array([record.offset for record in records], dtype=np.int64)
    timestamps_ms = np.array([record.timestamp for record in records], dtype=np.int64)
    places = np.searchsorted(offsets, samples.offsets)
    return replace(samples, label_times_ms=bounded(samples.label_times_ms, timestamps_ms[places]))
