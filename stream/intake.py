"""From a batch of raw feature records to a matrix, setting aside every record that cannot be used."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InvalidEvent
from schemas.features import FeatureEvent, FeatureReader
from stream.batches import Batch, Record
from stream.placement import Placement

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Intake:
    """What a batch holds. `records`, `events`, `rows` and the rows of `matrix` belong together, in log order.

    `matrix` is float32, C-contiguous, shape (events, features), NaN where a feature is null. `rows` are the
    same values as they were sent. `refused` are the other records, each with why.
    """

    records: Sequence[Record]
    events: Sequence[FeatureEvent]
    rows: Sequence[tuple[float | None, ...]]
    matrix: NDArray[np.float32]
    refused: Sequence[tuple[Record, InvalidEvent]]


class FeatureIntake:
    """Checks size, form, key, placement and range of feature records; about 2 µs per event of ten features."""

    def __init__(self, reader: FeatureReader, placement: Placement, max_event_bytes: int) -> None:
        self._reader = reader
        self._placement = placement
        self._max_event_bytes = max_event_bytes

    def read(self, batch: Batch) -> Intake:
        """Sort the records of `batch`. Raises FatalError when the producer uses another partitioner."""
        records: Sequence[Record] = batch.records
        events: Sequence[FeatureEvent]
        rows: Sequence[tuple[float | None, ...]]
        events, bad = self._reader.read(self._fitting([record.value for record in records]))
        refused = [(records[i], self._too_large(records[i]) or error) for i, error in bad.items()]
        records = _without(records, bad)
        rows = self._reader.rows(events)
        matrix = self._reader.matrix(rows)
        bad = self._placement.check([record.key for record in records], [event.entity_id for event in events])
        bad |= self._reader.overflows(matrix)
        if bad:
            refused += [(records[i], error) for i, error in bad.items()]
            matrix = np.delete(matrix, list(bad), axis=0)
            records, events, rows = _without(records, bad), _without(events, bad), _without(rows, bad)
        return Intake(records, events, rows, matrix, refused)

    def _fitting(self, values: list[bytes | None]) -> list[bytes | None]:
        """Put None for each value that is too large to be worth parsing."""
        limit = self._max_event_bytes
        if max(map(len, filter(None, values)), default=0) <= limit:
            return values
        return [value if value is not None and len(value) <= limit else None for value in values]

    def _too_large(self, record: Record) -> InvalidEvent | None:
        size = len(record.value or b"")
        if size <= self._max_event_bytes:
            return None
        return InvalidEvent("too_large", f"the value has {size} bytes; max_event_bytes is {self._max_event_bytes}")


def _without(items: Sequence[T], positions: Container[int]) -> Sequence[T]:
    return [item for i, item in enumerate(items) if i not in positions] if positions else items
