"""All labelled events of a replay, and what the whole of it comes to: the figures of both worlds, and how sure their
difference is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.arms import labels_of
from agents.evaluate import rules_of
from agents.replay.events import Floats, LabelledEvents, scores_of
from agents.replay.scoring import Answer
from ml.evaluation.tally import Scoring
from ml.training.comparison import Difference, Metric, NotComparable, compare
from ml.training.measure import measure
from ml.training.table import Table
from schemas.streams import StreamSpec, Task

_COMPARED: Final[Mapping[Task, tuple[Metric, ...]]] = {
    "binary": ("roc_auc", "accuracy", "log_loss", "brier"),
    "multiclass": ("accuracy", "log_loss", "brier"),
    "anomaly": ("roc_auc", "accuracy"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """n labelled events that have both scores, in the order of their times, with their newest label.

    `table` is without features, and `table.served` are the served scores; `replayed` are those of the replay, float64
    of the same shape. `predicted` and `decided` (n,) are the positions of the labels that each world decides for,
    by the threshold of its own declaration.
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

    def since(self, time_ms: int) -> "Pairs | None":
        """Return the events from a time on; None without any."""
        kept = self.table.event_time_ms >= time_ms
        if not kept.any():
            return None
        return Pairs(self.table.rows(kept), self.replayed[kept], self.predicted[kept], self.decided[kept])


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    events: NDArray[np.int64]
    entities: NDArray[np.int64]
    event_times_ms: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: Floats
    served: Floats
    replayed: Floats


class Labelled:
    """Collects samples; about 80 bytes and 0.3 µs for each. `changed` has the threshold of the replay."""

    def __init__(self, spec: StreamSpec, changed: StreamSpec) -> None:
        self._spec, self._changed = spec, changed
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
        replayed = whole.replayed[rows]
        return Pairs(table, replayed, labels_of(self._spec, table.served), labels_of(self._changed, replayed))


@dataclass(frozen=True, slots=True)
class Overall:
    """Figures by name, as served and as replayed, and the differences: the replayed figure minus the served one."""

    events: int
    served: Mapping[str, float]
    replayed: Mapping[str, float]
    differences: tuple[Difference, ...]
    incomparable: Mapping[str, str]


def overall(spec: StreamSpec, changed: StreamSpec, pairs: Pairs) -> Overall:
    """Return the figures of `pairs`: each world decides by the threshold of its own declaration.

    So accuracy is compared by the decisions.
    """
    table = pairs.table
    differences: list[Difference] = []
    incomparable: dict[str, str] = {}
    for metric in _COMPARED[spec.task]:
        scores, scoring = (pairs.replayed, table.served), rules_of(spec)[0]
        if metric == "accuracy" and spec.task != "multiclass":
            scores = pairs.decided.astype(np.float64), pairs.predicted.astype(np.float64)
            scoring = Scoring("binary", 2, 0.5)
        try:
            differences.append(compare(metric, *scores, table, scoring))
        except NotComparable as why:
            incomparable[metric] = str(why)
    return Overall(
        events=len(table),
        served=measure(table.served, table, rules_of(spec)[0]).metrics,
        replayed=measure(pairs.replayed, table, rules_of(changed)[0]).metrics,
        differences=tuple(differences),
        incomparable=incomparable,
    )
