"""From records of `<s>.samples` to the columns that evaluation counts."""

import logging
from collections.abc import Sequence
from typing import Annotated
from zlib import crc32

import msgspec
import numpy as np

from agents.learnable import TRIGGER_KEY
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.histogram import Ints
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
        self._classes: dict[int | str | None, int] = {label: i for i, label in enumerate(spec.classes or (0, 1))}
        self._width = len(spec.classes)

    def read(self, records: Sequence[Record]) -> tuple[Columns, int]:
        """Return the samples and how many records are none that can be used; about 3 µs each with one shadow.

        Those are logged and left out, as every fold of the log does alike: no JSON, a label that the
        stream does not have, or not a score for each class.
        """
        records = [record for record in records if record.key != TRIGGER_KEY]
        samples: list[EvaluatedSample] = []
        try:
            samples.extend(map(self._decode, [record.value for record in records]))  # type: ignore[arg-type]  # None is refused
        except DECODE_ERRORS:
            records, samples = self._decoded_singly(records)
        offsets = [record.offset for record in records]
        labels = [self._classes.get(sample.label, -1) for sample in samples]
        if -1 in labels or self._width:
            usable = [
                i for i, sample in enumerate(samples) if labels[i] >= 0 and self._has_scores(sample.scores)
            ]
            offsets, samples, labels = ([column[i] for i in usable] for column in (offsets, samples, labels))
        return self._columns(offsets, samples, labels), 0
