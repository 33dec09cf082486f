"""From raw predictions and labels to columns, setting aside every record that cannot be used."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.join.pending import Ints, Keys
from schemas.errors import InvalidEvent
from schemas.event import Event, Id, TimeMs
from schemas.events import Label
from schemas.streams import StreamSpec
from schemas.wire import decode_each, decoder
from stream.batches import Batch, Record
from stream.placement import Placement
from stream.screening import screen, without

log = logging.getLogger("penstock.join")

MIN_WEIGHT: Final = 1e-6  # of a label that weighs anything: sums of weights must not lose what is added
NO_SHADOWS: Final = msgspec.Raw(b"")
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Hasher = Callable[[tuple[str, str]], int]
Refused = Sequence[tuple[Record, InvalidEvent]]


class ScoredEvent(Event, frozen=True, kw_only=True, gc=False):
    """What the join needs of a Prediction. The shadows' scores are passed on as they are written."""

    event_id: Id
    entity_id: Id
    event_time_ms: TimeMs
    scored_time_ms: Natural
    latency_ms: Natural = 0
    score: float
    model_id: str
    variant: str
    deployment_revision: int
    label: int | str
    features: list[float | None]
    scores: list[float] | None
    shadows: msgspec.Raw = NO_SHADOWS


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions in log order, by column. `features` is float64 (n, features), NaN is null; `scores` (n, classes).

    `origins` are (model_id, variant, deployment_revision, predicted label).
    """

    keys: Keys
    offsets: Ints
    timestamps_ms: Ints
    times_ms: Ints
    scored_ms: Ints
    latency_ms: Ints
    score: NDArray[np.float64]
    features: NDArray[np.float64]
    scores: NDArray[np.float64]
    origins: Sequence[tuple[str, str, int, int | str]]
    shadows: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels in log order, by column. `codes` count the stream's labels: 0 and 1, or the position of the class.

    `records` are what was read.
    """

    keys: Keys
    offsets: Ints
    timestamps_ms: Ints
    times_ms: Ints
    codes: Ints
    weights: Sequence[float]
    event_ids: Sequence[str]
    entity_ids: Sequence[str]
    records: Sequence[Record]

    def take(self, positions: Ints) -> "Labels":
        """Return the labels at `positions`, in that order."""
        if positions.size == len(self.offsets):
            return self  # positions are ascending and distinct wherever all are taken
        chosen = positions.tolist()
        return replace(
            self,
            keys=self.keys.take(positions),
            offsets=self.offsets[positions],
            timestamps_ms=self.timestamps_ms[positions],
            times_ms=self.times_ms[positions],
            codes=self.codes[positions],
            weights=[self.weights[i] for i in chosen],
            event_ids=[self.event_ids[i] for i in chosen],
            entity_ids=[self.entity_ids[i] for i in chosen],
            records=[self.records[i] for i in chosen],
        )


class PredictionReader:
    """Reads records of `<s>.predictions`: our own, so one that cannot be used is only logged; 2.5 µs each."""

    def __init__(self, spec: StreamSpec, hasher: Hasher) -> None:
        self._width = len(spec.features)
        self._classes = len(spec.classes)
        self._hasher = hasher
        self._decode = msgspec.json.Decoder(ScoredEvent).decode

    def read(self, batch: Batch) -> tuple[Predictions | None, int]:
        """Return what can be used (None when that is nothing) and the number of records that cannot."""
        events: Sequence[ScoredEvent]
        events, bad = decode_each(self._decode, [record.value for record in batch.records])
        records = without(batch.records, bad)
        misfits = self._misfits(events)
        events, records = without(events, misfits), without(records, misfits)
        unusable = len(bad) + len(misfits)
        if unusable:
            error = next(iter((bad | misfits).values()))
            log.warning("%d records of %s are skipped; one of them: %s", unusable, batch.source.topic, error)
        return self._columns(records, events) if events else None, unusable

    def _misfits(self, events: Sequence[ScoredEvent]) -> dict[int, InvalidEvent]:
        """Return, by position, the events that are not of the width that the stream declares."""
        widths = [len(event.features) for event in events]
        classes = [len(event.scores or ()) for event in events]
        if widths.count(self._width) == classes.count(self._classes) == len(events):
            return {}
        return {
            i: InvalidEvent(
                "misfit",
                f"{width} features and {scores} class scores, where the stream declares {self._width} "
                f"and {self._classes}",
            )
            for i, (width, scores) in enumerate(zip(widths, classes, strict=True))
            if (width, scores) != (self._width, self._classes)
        }

    def _columns(self, records: Sequence[Record], events: Sequence[ScoredEvent]) -> Predictions:
        columns = list(zip(*map(msgspec.structs.astuple, events), strict=True))
        event_ids, entity_ids, times, scored, latency, score, model, variant, revision, label, features = columns[:11]
        return Predictions(
            keys=Keys.of(event_ids, entity_ids, self._hasher),
            offsets=np.array([record.offset for record in records]),
            timestamps_ms=np.array([record.timestamp for record in records]),
            times_ms=np.array(times),
            scored_ms=np.array(scored),
            latency_ms=np.array(latency),
            score=np.array(score),
            features=_matrix(features, self._width),
            scores=np.array(columns[11] if self._classes else [()] * len(events), dtype=np.float64),
            origins=list(zip(model, variant, revision, label, strict=True)),
            shadows=list(map(bytes, columns[12])),
        )


class LabelReader:
    """Reads records of `<s>.labels`; checks size, form, label, key and placement. About 1.5 µs each."""

    def __init__(self, spec: StreamSpec, placement: Placement, max_event_bytes: int, hasher: Hasher) -> None:
        self._names = names_of(spec)
        self._codes = {name: code for code, name in enumerate(self._names)}
        self._placement = placement
        self._max_event_bytes = max_event_bytes
        self._hasher = hasher
        self._decode = decoder(Label).decode

    def read(self, batch: Batch) -> tuple[Labels | None, Refused]:
        """Sort the records: labels (None when there are none), and the others with why.

        Raises FatalError when the producer uses another partitioner.
        """
        labels, records, refused = screen(batch.records, partial(decode_each, self._decode), self._max_event_bytes)
        bad = self._placement.check([r.key for r in records], [label.entity_id for label in labels])
        bad = self._strange(labels) | bad
        refused += [(records[i], error) for i, error in bad.items()]
        records, labels = without(records, bad), without(labels, bad)
        return self.columns(records, labels) if labels else None, refused

    def _strange(self, labels: Sequence[Label]) -> dict[int, InvalidEvent]:
        """Return, by position, the labels that are none of the stream's, or hardly weigh anything."""
        codes = [self._codes.get(label.label) for label in labels]
        light = [i for i, label in enumerate(labels) if 0 < label.weight < MIN_WEIGHT]
        unknown = [i for i, code in enumerate(codes) if code is None] if None in codes else ()
        return {i: _too_light(labels[i]) for i in light} | {i: self._unknown(labels[i]) for i in unknown}

    def columns(self, records: Sequence[Record], labels: Sequence[Label]) -> Labels:
        """Return labels that are good, with their records, by column."""
        event_ids, entity_ids, names, times, weights = zip(*map(msgspec.structs.astuple, labels), strict=True)
        return Labels(
            keys=Keys.of(event_ids, entity_ids, self._hasher),
            offsets=np.array([record.offset for record in records]),
            timestamps_ms=np.array([record.timestamp for record in records]),
            times_ms=np.array(times),
            codes=np.array([self._codes[name] for name in names]),
            weights=weights,
            event_ids=event_ids,
            entity_ids=entity_ids,
            records=records,
        )

    def again(self, records: Sequence[Record]) -> Labels:
        """Return as columns records that were found good before."""
        return self.columns(records, [self._decode(record.value or b"") for record in records])

    def _unknown(self, label: Label) -> InvalidEvent:
        known = ", ".join(map(repr, self._names[:20]))
        return InvalidEvent("unknown_label", f"label {str(label.label)[:100]!r} is none of the stream's: {known}")


def _too_light(label: Label) -> InvalidEvent:
    return InvalidEvent("invalid_field", f"weight {label.weight} is neither 0 nor at least {MIN_WEIGHT}")


def names_of(spec: StreamSpec) -> tuple[int | str, ...]:
    """Return the labels that there are in the stream, in the order of their codes."""
    return spec.classes if spec.task == "multiclass" else (0, 1)


def _matrix(rows: Sequence[list[float | None]], width: int) -> NDArray[np.float64]:
    """Return the rows as float64, shape (len(rows), width); None is NaN. Without any it takes half the time."""
    try:
        return np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width).reshape(-1, width)
    except TypeError:
        return np.array(rows, dtype=np.float64)
