"""From records of `<s>.samples` and `<s>.variants` to what an experiment's monitor counts.

Times are believed as far as the records' timestamps say (`stream.timestamps`), as a join does: a sample whose label is
from a wrong clock makes others late for so long at most, and not for ever.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec.structs import replace

from agents.samplelog import TRIGGER_KEY, decode_records
from ml.experiments.assignment import buckets_of
from ml.experiments.monitor import Outcomes
from schemas.event import Event, TimeMs
from schemas.experiments import Experiment, VariantCounts
from schemas.streams import StreamSpec
from schemas.wire import decode_each, decoder
from stream.batches import Record
from stream.screening import without
from stream.timestamps import SLACK_MS

Ordinal = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

log = logging.getLogger("penstock.compare")


class ComparedSample(Event, frozen=True, kw_only=True, gc=False):
    """What an experiment needs of a Sample."""

    entity_id: str
    revision: Ordinal
    event_time_ms: TimeMs
    label_time_ms: TimeMs
    label: int | str
    score: float
    scores: list[float] | None = None
    variant: str
    deployment_revision: int
    replaces: int | str | None = None
    assumed: bool = False


class Routed(Event, frozen=True, kw_only=True, gc=False):
    """What tells whether a record of either topic belongs to an experiment at all."""

    deployment_revision: int


class CompareReader:
    """Reads both logs of one stream."""

    def __init__(self, spec: StreamSpec) -> None:
        self._stream = spec.name
        labels: tuple[int | str, ...] = spec.classes or (0, 1)
        self._classes: Final[dict[int | str | None, int]] = {label: i for i, label in enumerate(labels)}
        self._width = len(spec.classes)

    def revisions(self, records: Sequence[Record]) -> set[int]:
        """Return the deployment revisions that the records name; 0.3 µs each. What cannot be read names none."""
        found, _ = decode_each(decoder(Routed).decode, [record.value for record in records])
        return {one.deployment_revision for one in found}

    def samples(self, records: Sequence[Record]) -> Sequence[ComparedSample]:
        """Return the samples; triggers between them are passed over, and what is none is logged and left out."""
        records = [record for record in records if record.key != TRIGGER_KEY]
        records, found = decode_records(decoder(ComparedSample).decode, records, self._stream)
        return [_sample(sample, record.timestamp) for record, sample in zip(records, found, strict=True)]

    def counts(self, records: Sequence[Record]) -> Sequence[VariantCounts]:
        """Return the counts; what is none is logged and left out."""
        found, bad = decode_each(decoder(VariantCounts).decode, [record.value for record in records])
        for position, error in bad.items():
            offset = records[position].offset
            log.warning("the record at offset %d of %s.variants is skipped: %s", offset, self._stream, error)
        return [_counts(one, record.timestamp) for record, one in zip(without(records, bad), found, strict=True)]

    def outcomes(
        self, samples: Sequence[ComparedSample], experiment: Experiment, epochs: Mapping[int, int]
    ) -> Outcomes | None:
        """Return those of the samples that are the experiment's, None when none is; about 2 µs each.

        `epochs` has its epoch at each of its revisions. Left out, as every fold of the log does alike: a label that the
        stream does not have, not a score for each class, a variant that the experiment does not have.
        """
        variants = {variant.name: place for place, variant in enumerate(experiment.variants)}
        ours = [
            sample
            for sample in samples
            if sample.deployment_revision in epochs
            and sample.variant in variants
            and sample.label in self._classes
            and (not self._width or (sample.scores is not None and len(sample.scores) == self._width))
        ]
        if not ours:
            return None
        classes = self._classes
        return Outcomes(
            epochs=np.array([epochs[sample.deployment_revision] for sample in ours], dtype=np.int64),
            variants=np.array([variants[sample.variant] for sample in ours], dtype=np.int64),
            buckets=buckets_of([sample.entity_id.encode() for sample in ours], experiment.salt),
            revisions=np.array([sample.revision for sample in ours], dtype=np.int64),
            labels=np.array([classes[sample.label] for sample in ours], dtype=np.int64),
            replaced=np.array([classes.get(sample.replaces, -1) for sample in ours], dtype=np.int64),
            event_times_ms=np.array([sample.event_time_ms for sample in ours], dtype=np.int64),
            label_times_ms=np.array([sample.label_time_ms for sample in ours], dtype=np.int64),
            scores=np.array([s.scores if self._width else s.score for s in ours], dtype=np.float64),
            assumed=np.array([sample.assumed for sample in ours], dtype=np.bool_),
        )


def _sample(sample: ComparedSample, timestamp_ms: int) -> ComparedSample:
    """Return the sample with the times that are believed; 0.1 µs."""
    most_ms = timestamp_ms + SLACK_MS
    if sample.event_time_ms <= most_ms and sample.label_time_ms <= most_ms:
        return sample
    event_time_ms, label_time_ms = min(sample.event_time_ms, most_ms), min(sample.label_time_ms, most_ms)
    return replace(sample, event_time_ms=event_time_ms, label_time_ms=label_time_ms)


def _counts(counts: VariantCounts, timestamp_ms: int) -> VariantCounts:
    most_ms = timestamp_ms + SLACK_MS
    return counts if counts.to_time_ms <= most_ms else replace(counts, to_time_ms=most_ms)
