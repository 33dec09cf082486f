"""From records of `<s>.samples` to columns that a learner takes, with the triggers between them in their places."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.publishing import is_snapshot
from agents.samplelog import TRIGGER_KEY, decode_samples, keep
from ml.learning.samples import Samples
from schemas.errors import InvalidEvent
from schemas.events import Event, ShadowScore, Trigger
from schemas.features import FeatureReader
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import decode, decoder
from stream.batches import Record

log = logging.getLogger("penstock.learn")


class LearnableSample(Event, frozen=True, kw_only=True, gc=False):
    """What a learner reads of a Sample."""

    revision: int
    event_time_ms: int
    label_time_ms: int
    features: tuple[float | None, ...]
    label: int | str
    weight: float
    score: float
    scores: list[float] | None = None
    model_id: str
    shadows: tuple[ShadowScore, ...] = ()


class LearnableReader:
    """Reads records for one lineage of one stream. Corrected labels are left out unless the learner applies them.

    A record that is no sample of the stream is logged and left out, as every fold of the log must do alike.
    """

    def __init__(self, spec: StreamSpec, lineage: str, learner: LearnerSpec) -> None:
        self._spec = spec
        self._lineage = lineage
        self._learner = learner
        self._decode = decoder(LearnableSample).decode
        self._matrix = FeatureReader(spec).matrix
        self._width = len(spec.features)
        self._classes = {label: index for index, label in enumerate(spec.classes or (0, 1))}

    def read(self, records: Sequence[Record]) -> Iterator[Samples | tuple[int, Trigger]]:
        """Yield runs of samples, and between them each trigger for this lineage with its offset. About 2 µs each."""
        start = 0
        for position, record in enumerate(records):
            if record.key == TRIGGER_KEY:
                yield from self._samples(records[start:position])
                start = position + 1
                yield from self._trigger(record)
        yield from self._samples(records[start:] if start else records)

    def _trigger(self, record: Record) -> Iterator[tuple[int, Trigger]]:
        try:
            trigger = decode(Trigger, record.value)
        except InvalidEvent as error:
            log.warning("the trigger at offset %d of %s.samples is skipped: %s", record.offset, self._spec.name, error)
            return
        if trigger.lineage == self._lineage:
            yield record.offset, trigger

    def _samples(self, records: Sequence[Record]) -> Iterator[Samples]:
        offsets, found = decode_samples(self._decode, records, self._spec.name)
        offsets, found = keep(offsets, found, self._is_ours, self._spec.name)
        if self._learner.revisions == "ignore" and any(sample.revision for sample in found):
            first = [position for position, sample in enumerate(found) if not sample.revision]
            offsets, found = [offsets[i] for i in first], [found[i] for i in first]
        if found:
            yield Samples(
                offsets=np.array(offsets, dtype=np.int64),
                event_time_ms=np.array([sample.event_time_ms for sample in found], dtype=np.int64),
                label_time_ms=np.array([sample.label_time_ms for sample in found], dtype=np.int64),
                matrix=self._matrix([sample.features for sample in found]),
                labels=np.array([self._classes[sample.label] for sample in found], dtype=np.int64),
                weights=np.array([sample.weight for sample in found], dtype=np.float64),
                served=self._served(found),
            )

    def _is_ours(self, sample: LearnableSample) -> bool:
        return len(sample.features) == self._width and sample.label in self._classes

    def _served(self, found: Sequence[LearnableSample]) -> NDArray[np.float64]:
        """Return the scores of the lineage's version that served or shadowed each event; NaN where none did."""
        classes = len(self._spec.classes)
        served = [self._served_score(sample) for sample in found]
        if not classes:
            return np.array([np.nan if score is None else score.score for score in served], dtype=np.float64)
        unknown = [np.nan] * classes
        return np.array([unknown if score is None else score.scores or unknown for score in served], dtype=np.float64)

    def _served_score(self, sample: LearnableSample) -> LearnableSample | ShadowScore | None:
        if self._of_lineage(sample.model_id):
            return sample
        return next((shadow for shadow in sample.shadows if self._of_lineage(shadow.model_id)), None)

    def _of_lineage(self, model_id: str) -> bool:
        return model_id == self._learner.start_from or is_snapshot(self._lineage, model_id)
