"""All labelled events of a replay, for what is said of the whole of it: both scores and decisions of each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.replay.decisions import decided
from agents.replay.events import Floats, LabelledEvents, scores_of
from agents.replay.scoring import Answer
from ml.training.table import Table
from schemas.streams import StreamSpec


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """n labelled events that have both scores, in the order of their times, with their newest label.

    `table` is without features, and `table.served` are the served scores; `replayed` are those of the replay, float64
    of the same shape. `predicted` and `decided` (n,) are the positions of the labels that each decided for.
    """

    table: Table
    replayed: Floats
    predicted: NDArray[np.int64]
    decided: NDArray[np.int64]

    @property
    def better(self) -> int:
        """How many changed decisions became right."""
        labels = self.table.labels
        return int(((self.predicted != labels) & (self.decided == labels)).sum())

    @property
    def worse(self) -> int:
        """How many changed decisions became wrong."""
        labels = self.table.labels
        return int(((self.predicted == labels) & (self.decided != labels)).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    events: NDArray[np.int64]
    entities: NDArray[np.int64]
    event_times_ms: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: Floats
    served: Floats
    replayed: Floats
    predicted: NDArray[np.int64]
    decided: NDArray[np.int64]


class Labelled:
    """Collects samples; about 90 bytes and 0.3 µs for each. `spec` has the threshold of the replay."""

    def __init__(self, spec: StreamSpec) -> None:
        self._spec = spec
        self._entities: dict[str, int] = {}
        self._pieces: list[_Piece] = []

    def add(self, labelled: LabelledEvents, answer: Answer) -> None:
        """Take samples in the order of their log; those without a score are left out."""
        rows = np.flatnonzero(answer.finite)
        known = self._entities
        entities = [known.setdefault(sample.entity_id, len(known)) for sample in labelled.samples]
        piece = _Piece(
            events=labelled.columns.events,
            entities=np.array(entities, dtype=np.int64),
            event_times_ms=labelled.columns.event_times_ms,
            labels=labelled.columns.labels,
            weights=np.array([sample.weight for sample in labelled.samples], dtype=np.float64),
            served=scores_of(labelled.samples, len(self._spec.classes)),
            replayed=np.asarray(answer.scores, dtype=np.float64),
            predicted=labelled.predicted,
            decided=decided(self._spec, answer),
        )
        self._pieces.append(_Piece(*(getattr(piece, name)[rows] for name in _Piece.__slots__)))

    def pairs(self) -> Pairs | None:
        """Return the events, each with its newest label; None without any."""
        if not sum(len(piece.labels) for piece in self._pieces):
            return None
        whole = _Piece(*(np.concatenate([getattr(p, name) for p in self._pieces]) for name in _Piece.__slots__))
        newest = len(whole.events) - 1 - np.unique(whole.events[::-1], return_index=True)[1]
        newest = np.sort(newest)
        rows = newest[np.argsort(whole.event_times_ms[newest], kind="stable")]
        table = Table(
            matrix=np.zeros((len(rows), 0), dtype=np.float32),
            labels=whole.labels[rows],
            weights=whole.weights[rows],
            event_time_ms=whole.event_times_ms[rows],
            entities=whole.entities[rows],
            served=whole.served[rows],
        )
        return Pairs(table, whole.replayed[rows], whole.predicted[rows], whole.decided[rows])
