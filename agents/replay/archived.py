"""What Kafka forgot, from the archive: labelled events, put back into the form in which the logs had them.

The archive holds samples. So of a time that Kafka forgot only the events are replayed that got a label.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agents.replay.decisions import NO_PLACE
from agents.replay.merging import Kept
from schemas.events import Prediction, Sample, ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.batches import Record, TopicPartition
from stream.partitioner import partitions_of

_AT_ONCE: Final = 16_384


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


def sample_records(spec: StreamSpec, samples: Sequence[Archived]) -> list[Kept]:
    """Return them as the records of `<s>.samples` that they were."""
    return [Kept(offset, recorded_ms, spec.name.encode(), encode(sample)) for offset, recorded_ms, sample in samples]


class Rows:
    """Rows of the archive as a source: they are columns until somebody asks for them."""

    def __init__(
        self, source: TopicPartition, table: pa.Table, records: Callable[[pa.Table], Sequence[Record]]
    ) -> None:
        """`records` makes a record of each row."""
        self.source = source
        self._table = table
        self._records = records

    async def more(self) -> Sequence[Record]:
        piece, self._table = self._table.slice(0, _AT_ONCE), self._table.slice(_AT_ONCE)
        return await asyncio.to_thread(self._records, piece) if piece.num_rows else []


@dataclass(frozen=True, slots=True)
class Border:
    """Where a partition of predictions begins now: when the first was scored, and which events at that very time."""

    scored_ms: int
    event_ids: frozenset[str]


WHOLE: Final = Border(-1, frozenset())
"""Of a partition that has forgotten nothing."""


def forgotten_of(spec: StreamSpec, table: pa.Table, borders: Mapping[int, Border]) -> dict[int, pa.Table]:
    """Return the rows of first labels by the partition of their predictions, in the order of scoring; about 1 µs each.

    Of those that are behind the border of their partition, the log itself tells. One that has no border holds nothing.
    """
    firsts = table.filter(pc.equal(table["revision"], 0))
    scored_ms = firsts["scored_time"].cast(pa.int64()).to_numpy()
    order = np.argsort(scored_ms, kind="stable")
    entities = [entity_id.encode() for entity_id in firsts["entity_id"].to_pylist()]
    homes = partitions_of(entities, spec.partitions) if entities else np.zeros(0, dtype=np.int64)
    found = {}
    for home in np.unique(homes).tolist():
        before = homes == home
        if (border := borders.get(home)) is not None:
            held = pc.is_in(firsts["event_id"], pa.array(sorted(border.event_ids), pa.string())).to_numpy()
            before &= (scored_ms < border.scored_ms) | ((scored_ms == border.scored_ms) & ~held)
        if before.any():
            found[home] = firsts.take(pa.array(order[before[order]]))
    return found


def prediction_records(samples: Sequence[Archived], partition: int) -> list[Kept]:
    """Return the records of their predictions, which have no place in the log any more."""
    return [
        Kept(NO_PLACE, sample.scored_time_ms, sample.entity_id.encode(), encode(_prediction(sample, partition)))
        for _, _, sample in samples
    ]


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
