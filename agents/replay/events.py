"""What a replay reads of the records of history: predictions as they were served, and samples as they came."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.arms import labels_of
from agents.evaluable import EvaluableReader, EvaluatedSample, believed
from agents.replay.merging import Block
from agents.replay.question import Span
from agents.samplelog import TRIGGER_KEY
from ml.evaluation.columns import Columns
from ml.models.protocol import Matrix
from schemas.events import ShadowScore
from schemas.features import FeatureEvent, FeatureReader
from schemas.streams import StreamSpec
from schemas.wire import decode_each, decoder
from stream.batches import Record
from stream.screening import without

Floats = NDArray[np.float64]


class ServedEvent(FeatureEvent, frozen=True, kw_only=True, gc=False):
    """What a replay reads of a Prediction."""

    features: tuple[float | None, ...]
    model_id: str
    variant: str
    deployment_revision: int
    score: float
    scores: list[float] | None = None
    label: int | str
    shadows: tuple[ShadowScore, ...] = ()


class ReplayedSample(EvaluatedSample, frozen=True, kw_only=True, gc=False):
    """What a replay reads of a Sample."""

    entity_id: str
    features: tuple[float | None, ...]
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class ServedEvents:
    """n predictions, in the order of their partitions and offsets, with the records that they were in.

    `matrix` is what was scored, `scores` are the served scores as they were logged, (n,), or (n, classes), and `labels`
    (n,) the positions of the labels that they make by the stream's threshold. `parts` are the partitions, each with
    where its rows begin and end; `order` (n,) are the rows in the order in which they were written.
    """

    records: Sequence[Record]
    events: Sequence[ServedEvent]
    matrix: Matrix
    labels: NDArray[np.int64]
    scores: Floats
    parts: Sequence[tuple[int, int, int]]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.events)

    def only(self, kept: NDArray[np.bool_]) -> "ServedEvents":
        """Return the rows where `kept` (n,) is true."""
        rows = np.flatnonzero(kept)
        before = np.concatenate([[0], np.cumsum(kept)])
        return ServedEvents(
            records=[self.records[row] for row in rows.tolist()],
            events=[self.events[row] for row in rows.tolist()],
            matrix=self.matrix[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            parts=[(number, int(before[start]), int(before[stop])) for number, start, stop in self.parts],
            order=before[self.order[kept[self.order]]],
        )


@dataclass(frozen=True, slots=True, eq=False)
class LabelledEvents:
    """n samples, in the order of their log: as evaluation counts them, with what was scored, `matrix`, and the rest."""

    samples: Sequence[ReplayedSample]
    columns: Columns
    matrix: Matrix

    def __len__(self) -> int:
        return len(self.samples)


class HistoryReader:
    """Reads the records of a stream's history within a span of event time.

    A record that is no event of the stream as it is declared now (other features or classes) is counted and left out;
    so is what a model of `foreign` scored. About 2.5 µs for a prediction of ten features, 5 µs for a sample.
    """

    def __init__(self, spec: StreamSpec, span: Span, foreign: frozenset[str] = frozenset()) -> None:
        """`foreign` are the ids of the models that were made for other features or classes."""
        self._spec = spec
        self._span = span
        self._foreign = foreign
        self._width = len(spec.features)
        self._classes = len(spec.classes)
        self._decode = msgspec.json.Decoder(ServedEvent).decode
        self._matrix = FeatureReader(spec).matrix
        self._labels = frozenset(spec.classes or (0, 1))
        self._samples = _SampleReader(spec, foreign)
        self.unusable = 0

    def served(self, block: Block) -> ServedEvents:
        """Return the predictions of these records, which stand in partitions of `<s>.predictions`."""
        records: list[Record] = []
        events: list[ServedEvent] = []
        parts, moments = [], []
        for place, (source, given) in enumerate(block.pieces):
            rows, its_events = self._ours(given)
            parts.append((source.partition, len(events), len(events) + len(its_events)))
            moments.append(np.flatnonzero(block.places == place)[rows])
            records += [given[row] for row in rows]
            events += its_events
        scores = scores_of(events, self._classes)
        return ServedEvents(
            records=records,
            events=events,
            matrix=self._matrix([event.features for event in events]),
            labels=labels_of(self._spec, scores),
            scores=scores,
            parts=parts,
            order=np.argsort(np.concatenate(moments)) if moments else np.zeros(0, dtype=np.int64),
        )

    def _ours(self, records: Sequence[Record]) -> tuple[list[int], Sequence[ServedEvent]]:
        """Return the predictions of the span, with the places of their records."""
        events, bad = decode_each(self._decode, [record.value for record in records])
        rows = without(range(len(records)), bad)
        misfits = self._misfits(events)
        self.unusable += len(bad) + len(misfits)
        if not self._span.is_all:
            misfits |= {row for row, event in enumerate(events) if not self._span.has(event.event_time_ms)}
        return list(without(rows, misfits)), without(events, misfits)

    def _misfits(self, events: Sequence[ServedEvent]) -> set[int]:
        """Return which predictions are of other features or classes."""
        if (
            not self._classes
            and {len(event.features) for event in events} <= {self._width}
            and {event.label for event in events} <= self._labels
            and self._foreign.isdisjoint({event.model_id for event in events})
        ):
            return set()
        return {row for row, event in enumerate(events) if not self._is_ours(event)}

    def _is_ours(self, event: ServedEvent) -> bool:
        return (
            len(event.features) == self._width
            and event.model_id not in self._foreign
            and event.label in self._labels
            and (not self._classes or (event.scores is not None and len(event.scores) == self._classes))
        )

    def labelled(self, records: Sequence[Record]) -> LabelledEvents:
        """Return the samples of these records of `<s>.samples`."""
        columns, samples, unusable = self._samples.samples(records)
        if not self._span.is_all:
            kept = [row for row, sample in enumerate(samples) if self._span.has(sample.event_time_ms)]
            columns, samples = columns.take(np.array(kept, dtype=np.int64)), [samples[row] for row in kept]
        self.unusable += unusable
        return LabelledEvents(
            samples=samples,
            columns=columns,
            matrix=self._matrix([sample.features for sample in samples]),
        )


class _SampleReader(EvaluableReader):
    """Reads samples as evaluation does, and keeps what a replay needs beside its columns."""

    def __init__(self, spec: StreamSpec, foreign: frozenset[str]) -> None:
        super().__init__(spec)
        self._features = len(spec.features)
        self._foreign = foreign
        self._decode = decoder(ReplayedSample).decode

    def samples(self, records: Sequence[Record]) -> tuple[Columns, Sequence[ReplayedSample], int]:
        """Return the samples as columns and as they are, and how many records are none that can be used."""
        records = [record for record in records if record.key != TRIGGER_KEY]
        found, bad = decode_each(self._decode, [record.value for record in records])
        offsets: Sequence[int] = [record.offset for record in without(records, bad)]
        misfits = self._misfits(found)
        offsets, samples = without(offsets, misfits), without(found, misfits)
        return believed(self._columns(offsets, samples), records), samples, len(records) - len(samples)

    def _misfits(self, samples: Sequence[ReplayedSample]) -> set[int]:
        """Return which samples are of other features or classes."""
        if (
            not self._width
            and {len(sample.features) for sample in samples} <= {self._features}
            and {sample.label for sample in samples} <= self._classes.keys()
            and self._foreign.isdisjoint({sample.model_id for sample in samples})
        ):
            return set()
        return {row for row, sample in enumerate(samples) if not self._fits(sample)}

    def _fits(self, sample: ReplayedSample) -> bool:
        ours = len(sample.features) == self._features and sample.model_id not in self._foreign
        return ours and self._is_ours(sample)


def scores_of(events: Sequence[ServedEvent | ReplayedSample | ShadowScore], classes: int) -> Floats:
    """Return the scores that were logged, shape (n,), or (n, classes) where there are several classes."""
    if not classes:
        return np.array([event.score for event in events], dtype=np.float64)
    rows = [event.scores for event in events]
    return np.array(rows, dtype=np.float64).reshape(len(rows), classes)
