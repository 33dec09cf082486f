"""What every peer does to a batch of events: decode and validate, score, count for drift, encode. No framework in it.

It is the fastest that we know how to write with what msgspec, NumPy and XGBoost document, so that peers differ by their
frameworks only. It imports nothing of Penstock.
"""

import gc
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import xgboost

DUE_EVENTS: Final = 1_000  # so many are counted for a histogram, or a batch if that is more
THRESHOLD: Final = 0.5
VARIANT: Final = "champion"


class Job(msgspec.Struct, frozen=True):
    """What a peer is told to do: a JSON file.

    `edges` are those of each column of the histogram, the features and then the score: k edges make k + 1 cells, the
    outer two open; a value v is in cell i when edges[i - 1] <= v < edges[i].
    """

    bootstrap: str
    group: str
    source: str
    predictions: str
    histograms: str
    partitions: int
    model_file: str
    model_id: str
    features: list[str]
    edges: list[list[float]]


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The same fields as Penstock's, in the same order."""

    event_id: str
    entity_id: str
    event_time_ms: int
    scored_time_ms: int
    model_id: str
    variant: str
    deployment_revision: int
    score: float
    scores: list[float] | None
    label: int
    features: tuple[float | None, ...]
    partition: int
    offset: int
    latency_ms: int


class Histogram(msgspec.Struct, frozen=True, gc=False):
    """What was counted of `n` events: `cells` and how many were `missing`, by column."""

    n: int
    cells: list[list[int]]
    missing: list[int]


def read_job() -> Job:
    """Return the job whose file the command line names."""
    return msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)


class Work:
    """One for each process or thread that works."""

    def __init__(self, job: Job) -> None:
        self._model_id = job.model_id
        self._booster = xgboost.Booster(model_file=job.model_file)
        self._booster.set_param({"nthread": 1})
        self._decode = msgspec.json.Decoder(_event_type(job.features)).decode
        self._encode = msgspec.json.Encoder().encode
        self._counter = _Counter(job.edges)
        # Batches live and die by reference counts: this lets a bare loop take 7% less time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)

    def score(
        self,
        values: Sequence[bytes],
        partitions: Iterable[int],
        offsets: Iterable[int],
        timestamps_ms: Iterable[int],
    ) -> list[bytes]:
        """Return the encoded prediction of each value, in order; the other three tell of each where it came from.

        Raises msgspec.ValidationError or DecodeError at an event that is none.
        """
        events = list(map(self._decode, values))
        if not events:
            return []
        astuple = msgspec.structs.astuple
        rows = [astuple(event.features) for event in events]
        matrix = np.array(rows, dtype=np.float32)
        scores = self._booster.inplace_predict(matrix, validate_features=False)
        self._counter.add(matrix, scores)
        now_ms = time.time_ns() // 1_000_000
        predictions = [
            Prediction(
                event.event_id,
                event.entity_id,
                event.event_time_ms,
                now_ms,
                self._model_id,
                VARIANT,
                1,
                score,
                None,
                int(score >= THRESHOLD),
                row,
                partition,
                offset,
                max(0, now_ms - timestamp_ms),
            )
            for event, row, score, partition, offset, timestamp_ms in zip(
                events, rows, scores.tolist(), partitions, offsets, timestamps_ms, strict=False
            )
        ]
        return list(map(self._encode, predictions))

    def histogram(self) -> bytes | None:
        """Return what was counted since the last one, encoded, when it is due; to be asked for after each `score`."""
        counted = self._counter.take() if self._counter.n >= DUE_EVENTS else None
        return None if counted is None else self._encode(counted)


class _Counter:
    """Holds what is to be counted until there is enough of it: one event costs as much to count as a hundred do."""

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        self.n = 0
        self._edges = [_rounded_up(np.array(each)) for each in edges]
        # All columns are counted at once: each has its cells, and one more for what is missing.
        self._starts = np.cumsum([0, *(len(each) + 2 for each in edges)])
        self._held: list[Any] = []

    def add(self, matrix: Any, scores: Any) -> None:
        """Take a batch."""
        self._held.append((matrix, scores))
        self.n += len(matrix)

    def take(self) -> Histogram:
        """Count what is held, and forget it."""
        matrices, scores = zip(*self._held, strict=True)
        columns = [*np.concatenate(matrices).T, np.concatenate(scores)]
        places = np.empty((len(columns), self.n), dtype=np.int64)
        for place, column, edges, start in zip(places, columns, self._edges, self._starts, strict=False):
            place[:] = edges.searchsorted(column, side="right") + start
            place[np.isnan(column)] = start + len(edges) + 1
        counts = np.bincount(places.ravel(), minlength=self._starts[-1])
        by_column = [counts[a:b].tolist() for a, b in zip(self._starts, self._starts[1:], strict=False)]
        counted = Histogram(self.n, [each[:-1] for each in by_column], [each[-1] for each in by_column])
        self.n, self._held = 0, []
        return counted


def _rounded_up(edges: Any) -> Any:
    """Return the smallest float32 that is not below each edge: it decides the same for every float32."""
    near = edges.astype(np.float32)
    return np.where(near < edges, np.nextafter(near, np.float32(np.inf)), near)


def _event_type(names: Sequence[str]) -> Any:
    features = msgspec.defstruct("Features", [(name, float | None) for name in names], frozen=True, gc=False)
    fields = [("event_id", str), ("entity_id", str), ("event_time_ms", int), ("features", features)]
    return msgspec.defstruct("Event", fields, frozen=True, gc=False)
