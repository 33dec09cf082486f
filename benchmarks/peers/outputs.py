"""Are the predictions on Kafka exactly those that the events must get? A million are compared in a few seconds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final, Self

import msgspec
import numpy as np
import xgboost
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.peers.common.work import THRESHOLD
from benchmarks.plain import Row

IN_FLIGHT: Final = 8_192
"""A contestant that was stopped in the middle may have left out events among its last ones of a partition."""
_CHUNK: Final = 50_000  # rows; all at once would need a gigabyte
_SHOWN: Final = 3

Ints = NDArray[np.int64]


class _Event(msgspec.Struct, gc=False):
    event_id: str
    event_time_ms: int


class _Output(msgspec.Struct, gc=False):
    event_id: str
    entity_id: str
    event_time_ms: int
    model_id: str
    variant: str
    score: float
    label: int
    features: tuple[float | None, ...]
    partition: int
    offset: int


@dataclass(frozen=True, eq=False)
class Events:
    """The events as they stand in the source topic. Of each, by its number: what its prediction must say.

    `values` are the features as they were sent, shape (events, 10), NaN where missing. `columns` are what is counted
    of them: the features and the score, float32.
    """

    numbers: dict[str, int]
    keys: list[bytes]
    values: NDArray[np.float64]
    event_times_ms: Ints
    scores: NDArray[np.float64]
    partitions: Ints
    offsets: Ints
    columns: list[NDArray[np.float32]]

    @classmethod
    def read(cls, rows: Iterable[Row], booster: xgboost.Booster, values: NDArray[np.float64]) -> Self:
        """Find in the source's `rows` the synthetic events with these `values` (events, 10). 3 µs per event.

        Raises ValueError unless each is there once.
        """
        scores = synthetic.expected_scores(booster, values)
        numbers = {event_id: number for number, event_id in enumerate(scores)}
        said = np.full((3, len(numbers)), -1, dtype=np.int64)
        decode = msgspec.json.Decoder(_Event).decode
        count = 0
        for chunk in _chunks(rows):
            sent = [decode(row.value or b"") for row in chunk]
            said[:, [numbers[event.event_id] for event in sent]] = [
                [row.partition for row in chunk],
                [row.offset for row in chunk],
                [event.event_time_ms for event in sent],
            ]
            count += len(chunk)
        if count != len(numbers) or (said < 0).any():
            raise ValueError(f"{count} events are in the source, and {len(numbers)} were to be written")
        keys = [synthetic.entity_id(number).encode() for number in range(count)]
        all_scores = np.fromiter(scores.values(), np.float64, count)
        columns = [*values.astype(np.float32).T, all_scores.astype(np.float32)]
        return cls(numbers, keys, values, said[2], all_scores, said[0], said[1], columns)

    @cached_property
    def labels(self) -> Ints:
        """1 from the threshold on."""
        return (self.scores >= THRESHOLD).astype(np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, number: int) -> str:
        """Return the id of an event."""
        return synthetic.event_id(number)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Predictions as they were read, in arrays of one length; `numbers` has -1 for an event that was never sent.

    `key_right` and `event_right` tell whether key and entity are the event's, and so its time and features. `makers`
    are the models and variants that they name.
    """

    numbers: Ints
    scores: NDArray[np.float64]
    labels: Ints
    partitions: Ints
    offsets: Ints
    key_right: NDArray[np.bool_]
    event_right: NDArray[np.bool_]
    makers: set[tuple[str, str]]
    times_ms: Ints
    strangers: list[str]

    @classmethod
    def read(cls, rows: Iterable[Row], events: Events) -> Self:
        """Decode predictions; about 6 µs each with reading. Raises msgspec.MsgspecError at something else."""
        decode = msgspec.json.Decoder(_Output).decode
        known, keys = events.numbers.get, events.keys
        said: list[NDArray[np.float64]] = []  # whole numbers up to 2**53 are the same in a float64
        key_right: list[bool] = []
        event_right: list[NDArray[np.bool_]] = []
        makers: set[tuple[str, str]] = set()
        strangers: list[str] = []
        for chunk in _chunks(rows):
            found = [decode(row.value or b"") for row in chunk]
            numbers = [known(each.event_id, -1) for each in found]
            strangers += [each.event_id for each, number in zip(found, numbers, strict=True) if number < 0]
            fields = [
                (number, each.score, each.label, each.partition, each.offset, row.time_ms)
                for number, each, row in zip(numbers, found, chunk, strict=True)
            ]
            said.append(np.array(fields, dtype=np.float64))
            key_right += [
                n < 0 or row.key == keys[n] == each.entity_id.encode()
                for n, each, row in zip(numbers, found, chunk, strict=True)
            ]
            event_right.append(_events_right(events, numbers, found))
            makers |= {(each.model_id, each.variant) for each in found}
        if not said:
            raise ValueError("there are no predictions")
        by_field = np.concatenate(said).T
        whole = by_field.astype(np.int64)
        return cls(
            numbers=whole[0],
            scores=by_field[1],
            labels=whole[2],
            partitions=whole[3],
            offsets=whole[4],
            key_right=np.array(key_right),
            event_right=np.concatenate(event_right),
            makers=makers,
            times_ms=whole[5],
            strangers=strangers,
        )

    @cached_property
    def seen(self) -> Ints:
        """The numbers of the events that have a prediction, ascending."""
        return np.unique(self.numbers[self.numbers >= 0])


def differences(events: Events, outputs: Outputs, *, partial: bool) -> list[str]:
    """Return a sentence for each way in which the outputs are not one right prediction of each event.

    Where the contestant was stopped before its end (`partial`), they are those of the first events of each partition,
    without gaps but for the last IN_FLIGHT.
    """
    known = np.flatnonzero(outputs.numbers >= 0)
    numbers = outputs.numbers[known]
    count = np.bincount(numbers, minlength=len(events))
    right_places = (outputs.partitions[known] == events.partitions[numbers]) & (
        outputs.offsets[known] == events.offsets[numbers]
    )
    wrong_scores = outputs.scores[known] != events.scores[numbers]
    kinds: dict[str, Sequence[int] | Ints] = {
        "scored twice": np.flatnonzero(count > 1),
        "scored differently": numbers[wrong_scores],
        "labelled differently": numbers[outputs.labels[known] != events.labels[numbers]],
        "with another key than the entity": numbers[~outputs.key_right[known]],
        "with another time or other features than the event": numbers[~outputs.event_right[known]],
        "of another place in the source": numbers[~right_places],
        "skipped" if partial else "not scored": _gaps(events, count) if partial else np.flatnonzero(count == 0),
    }
    found = [
        _sentence(kind, [events.name(int(n)) for n in those[:_SHOWN]], len(those)) for kind, those in kinds.items()
    ]
    if wrong_scores.any():
        first = known[np.flatnonzero(wrong_scores)[0]]
        expected = events.scores[outputs.numbers[first]]
        found.append(f"the first such score is {outputs.scores[first]!r}, expected {expected!r}")
    found.append(_sentence("never sent", outputs.strangers[:_SHOWN], len(outputs.strangers)))
    return [sentence for sentence in found if sentence]


def _events_right(events: Events, numbers: Sequence[int], found: Sequence[_Output]) -> NDArray[np.bool_]:
    """Return of each prediction whether it has its event's time and features; of events never sent it is no matter."""
    sent, got = events.values[numbers], np.array([each.features for each in found], dtype=np.float64)
    if got.shape != sent.shape:
        raise ValueError("there are predictions that have not as many features as their events")
    times_ms = np.array([each.event_time_ms for each in found])
    same = ((got == sent) | (np.isnan(got) & np.isnan(sent))).all(axis=1)
    right: NDArray[np.bool_] = same & (times_ms == events.event_times_ms[numbers])
    return right


def _gaps(events: Events, count: Ints) -> Ints:
    """Return the events without a prediction that lie more than IN_FLIGHT before the last scored one beside them."""
    reached = np.zeros(int(events.partitions.max()) + 1, dtype=np.int64)
    scored = count > 0
    np.maximum.at(reached, events.partitions[scored], events.offsets[scored] + 1)
    return np.flatnonzero(~scored & (events.offsets < reached[events.partitions] - IN_FLIGHT))


def _sentence(kind: str, names: Sequence[str], count: int) -> str:
    return f"{count} {kind}: {', '.join(names)}" if count else ""


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk
