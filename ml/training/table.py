"""Labelled events in the order of their time: what is trained on, and what is tested on."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.models.protocol import Labels, Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """n labelled events, ordered by event time (and, of one time, by their ids).

    `matrix` is float32 (n, features), NaN where a value is missing; `labels` are class indices, int64 (n,), `weights`
    float64 (n,). Events of one entity have one number in `entities`, int64 (n,). `served` are the scores that were
    served, float64 (n,), or (n, classes) of several classes, NaN where there are none. Where nobody knows which events
    are of one entity, `entities_known` is false, and each counts for one.
    """

    matrix: Matrix
    labels: Labels
    weights: NDArray[np.float64]
    event_time_ms: NDArray[np.int64]
    entities: NDArray[np.int64]
    served: NDArray[np.float64]
    entities_known: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, which: slice | NDArray[np.intp] | NDArray[np.bool_]) -> "Table":
        """Return these rows; of a slice, views."""
        return Table(
            self.matrix[which],
            self.labels[which],
            self.weights[which],
            self.event_time_ms[which],
            self.entities[which],
            self.served[which],
            self.entities_known,
        )

    def digest(self) -> bytes:
        """Return 32 bytes that follow from all that a model can learn here. About 1 ms per megabyte."""
        whole = hashlib.sha256()
        for array in (self.matrix, self.labels, self.weights, self.event_time_ms):
            whole.update(np.ascontiguousarray(array).data)
        return whole.digest()
