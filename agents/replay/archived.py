"""What Kafka forgot, from the archive: labelled events, put back into the form in which the logs had them.

The archive holds samples. So of a time that Kafka forgot only the events are replayed that got a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from agents.replay.decisions import NO_PLACE
from schemas.events import Prediction, Sample, ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.partitioner import partitions_of


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it was in the log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


class Archived(NamedTuple):
    """A sample, where it stood in the log, and when Kafka took it."""

    offset: int
    recorded_ms: int
    sample: Sample


def samples_of(spec: StreamSpec, table: pa.Table) -> list[Archived]:
    """Return the samples in the rows of a stream's archive, about 10 µs each."""
    names = ("event_time", "label_time", "scored_time", "recorded_time")
    for name in names:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    features = [f"f_{name}" for name in spec.features]
    rows = table.drop_columns(features).to_pylist()
    values = zip(*(table[name].to_pylist() for name in features), strict=True)
    return [
        Archived(row["offset"], row["recorded_time"], _sample(row, its)) for row, its in zip(rows, values, strict=True)
    ]


def scored_until(table: pa.Table, time_ms: int | None) -> pa.Table:
    """Return the rows of events that were scored up to a time; all without one."""
    if time_ms is None:
        return table
    scored_ms = table["scored_time"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    return table.filter(pa.array(scored_ms <= time_ms))


def sample_records(spec: StreamSpec, samples: Sequence[Archived]) -> list[Kept]:
    """Return them as the records of `<s>.samples` that they were."""
    return [Kept(offset, recorded_ms, spec.name.encode(), encode(sample)) for offset, recorded_ms, sample in samples]


@dataclass(frozen=True, slots=True)
class Border:
    """Where a partition of predictions begins now: when the first was scored, and which events at that very time."""

    scored_ms: int
    event_ids: frozenset[str]

    def is_before(self, sample: Sample) -> bool:
        """Whether the log has forgotten the prediction of this sample."""
        if sample.scored_time_ms == self.scored_ms:
            return sample.event_id not in self.event_ids
        return sample.scored_time_ms < self.scored_ms


def prediction_records(
    spec: StreamSpec, samples: Sequence[Archived], borders: Mapping[int, Border]
) -> dict[int, list[Kept]]:
    """Return the records of their predictions by partition of `<s>.predictions`, in the order of scoring.

    Of those that are behind the border of their partition, the log itself tells. One that has no border holds nothing.
    """
    firsts = [sample for _, _, sample in samples if not sample.revision]
    homes = partitions_of([sample.entity_id.encode() for sample in firsts], spec.partitions).tolist() if firsts else []
    found: dict[int, list[Kept]] = {}
    for sample, home in sorted(zip(firsts, homes, strict=True), key=lambda pair: pair[0].scored_time_ms):
        if home not in borders or borders[home].is_before(sample):
            record = Kept(NO_PLACE, sample.scored_time_ms, sample.entity_id.encode(), encode(_prediction(sample, home)))
            found.setdefault(home, []).append(record)
    return found


def _sample(row: Mapping[str, Any], features: Sequence[float | None]) -> Sample:
    return Sample(
        event_id=row["event_id"],
        entity_id=row["entity_id"],
        revision=row["revision"],
        event_time_ms=row["event_time"],
        label_time_ms=row["label_time"],
        features=tuple(features),
        label=row["label"],
        weight=row["weight"],
        score=row["score"],
        scores=row.get("scores"),
        predicted=row["predicted"],
        model_id=row["model_id"],
        variant=row["variant"],
        deployment_revision=row["deployment_revision"],
        scored_time_ms=row["scored_time"],
        latency_ms=row["latency_ms"],
        shadows=tuple(ShadowScore(**shadow) for shadow in row["shadows"] or ()),
        replaces=row["replaces"],
        assumed=row["assumed"],
    )


def _prediction(sample: Sample, partition: int) -> Prediction:
    return Prediction(
        event_id=sample.event_id,
        entity_id=sample.entity_id,
        event_time_ms=sample.event_time_ms,
        scored_time_ms=sample.scored_time_ms,
        model_id=sample.model_id,
        variant=sample.variant,
        deployment_revision=sample.deployment_revision,
        score=sample.score,
        scores=sample.scores,
        label=sample.predicted,
        features=sample.features,
        partition=partition,
        offset=NO_PLACE,
        latency_ms=sample.latency_ms,
        shadows=sample.shadows if sample.scores is None else (),
    )
