"""Which decisions would have been others: labels that the replayed scores make of events, beside those served."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.arms import best_of, labels_of
from agents.replay.events import ServedEvents
from agents.replay.scoring import Answer
from schemas.streams import StreamSpec

MOST_EXAMPLES: Final = 10
NO_PLACE: Final = -1
"""The offset of a prediction that is in no log any more."""


@dataclass(frozen=True, slots=True)
class Changed:
    """An event that would have been decided otherwise. `partition` and `offset` are its prediction's place."""

    partition: int
    offset: int
    event_id: str
    event_time_ms: int
    served_by: str
    served_score: float
    served_label: int | str
    replayed_by: str
    replayed_score: float
    replayed_label: int | str


class Decisions:
    """Compares decisions, and keeps the first that changed. `spec` has the threshold of the replay."""

    def __init__(self, spec: StreamSpec) -> None:
        self._spec = spec
        self._names: tuple[int | str, ...] = spec.classes or (0, 1)
        self._counts = np.zeros((len(self._names), len(self._names)), dtype=np.int64)
        self.not_scored = 0
        self.examples: list[Changed] = []

    @property
    def compared(self) -> int:
        """How many events have both decisions."""
        return int(self._counts.sum())

    @property
    def changes(self) -> dict[tuple[int | str, int | str], int]:
        """How many events went from one label, as served, to another one, as replayed."""
        places = zip(*np.nonzero(self._counts), strict=True)
        return {
            (self._names[served], self._names[replayed]): int(self._counts[served, replayed])
            for served, replayed in places
            if served != replayed
        }

    def add(self, events: ServedEvents, answer: Answer) -> None:
        """Compare what was decided with what the answer decides; about 0.1 µs per event."""
        if not len(events):
            return
        finite = answer.finite
        labels = decided(self._spec, answer)
        self.not_scored += int((~finite).sum())
        np.add.at(self._counts, (events.labels[finite], labels[finite]), 1)
        missing = MOST_EXAMPLES - len(self.examples)
        for row in np.flatnonzero(finite & (labels != events.labels))[:missing].tolist():
            self.examples.append(self._example(events, answer, row, int(labels[row])))

    def _example(self, events: ServedEvents, answer: Answer, row: int, label: int) -> Changed:
        event = events.events[row]
        partition = next(number for number, start, stop in events.parts if start <= row < stop)
        return Changed(
            partition=partition,
            offset=events.records[row].offset,
            event_id=event.event_id,
            event_time_ms=event.event_time_ms,
            served_by=event.model_id,
            served_score=event.score,
            served_label=self._names[int(events.labels[row])],
            replayed_by=answer.models[row],
            replayed_score=float(best_of(answer.scores[row : row + 1])[0]),
            replayed_label=self._names[label],
        )


def decided(spec: StreamSpec, answer: Answer) -> NDArray[np.int64]:
    """Return the position of the label that each score decides for, shape (n,); of no score, some label."""
    return labels_of(spec, np.nan_to_num(answer.scores))
