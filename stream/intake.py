"""From a batch of raw feature records to a matrix, setting aside every record that cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InvalidEvent
from schemas.features import FeatureEvent, FeatureReader
from stream.batches import Batch, Record
from stream.placement import Placement
from stream.screening import screen, without


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
        events, records, refused = screen(batch.records, self._reader.read, self._max_event_bytes)
        rows: Sequence[tuple[float | None, ...]] = self._reader.rows(events)
        matrix = self._reader.matrix(rows)
        bad = self._placement.check([record.key for record in records], [event.entity_id for event in events])
        bad |= self._reader.overflows(matrix)
        if bad:
            refused += [(records[i], error) for i, error in bad.items()]
            matrix = np.delete(matrix, list(bad), axis=0)
            records, events, rows = without(records, bad), without(events, bad), without(rows, bad)
        return Intake(records, events, rows, matrix, refused)
