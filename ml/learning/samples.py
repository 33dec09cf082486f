"""Samples as columns, in the order of their log."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ml.models.protocol import Labels, Matrix


@dataclass(frozen=True)
class Samples:
    """n samples in log order, one array per column.

    `offsets`, `event_time_ms` and `label_time_ms` are int64 of shape (n,); `matrix` is float32 (n, F); `labels` are
    class indices, int64 (n,); `weights` float64 (n,). `served` are the scores that another version gave the same
    events, float64: (n,), or (n, K) for K classes; NaN where there is none.
    """

    offsets: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    label_time_ms: NDArray[np.int64]
    matrix: Matrix
    labels: Labels
    weights: NDArray[np.float64]
    served: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.offsets)

    def between(self, start: int, stop: int) -> Self:
        """Return the samples from position `start` to before `stop`: views, no copies."""
        return type(self)(*(column[start:stop] for column in self.columns()))

    def columns(self) -> tuple[NDArray[Any], ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return all parts, at least one, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*map(np.concatenate, zip(*(part.columns() for part in parts), strict=True)))

    @classmethod
    def none(cls, n_features: int, classes: int) -> Self:
        """Return no samples, in arrays of the right shapes."""
        times = np.zeros(0, np.int64)
        served = np.zeros(0) if classes == 1 else np.zeros((0, classes))
        return cls(times, times, times, np.zeros((0, n_features), np.float32), times, np.zeros(0), served)
