"""What evaluation would have said of a model on labelled events: its windows and gates, over scores that are given."""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.evaluate import rules_of
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.evaluator import Evaluator
from ml.evaluation.gates import Finding
from ml.evaluation.window import CHAMPION
from ml.models.protocol import Scores
from ml.training.table import Table
from schemas.streams import StreamSpec

_AT_ONCE: Final = 65_536


def alerts_on(spec: StreamSpec, table: Table, scores: Scores) -> int:
    """Return how many alerts the stream's evaluation raises over `table` when the champion's scores are these.

    `scores` have shape (n,), or (n, classes) of several classes, in the order of the table. Every event counts as
    labelled at its own time, and each window as mature once it is closed: what a table holds has all its labels. The
    last window is judged only if it is full. Latency is not judged: a table knows of none. About 1 µs per event.
    """
    return len(findings_on(spec, table, scores))


def findings_on(spec: StreamSpec, table: Table, scores: Scores) -> list[Finding]:
    """Return what `alerts_on` counts."""
    scoring, windows, gates = rules_of(spec)
    evaluator = Evaluator(scoring, replace(windows, ripens_ms=0), replace(gates, max_latency_ms=None))
    found: list[Finding] = []
    for start in range(0, len(table), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        columns = _columns(table.rows(rows), np.asarray(scores[rows], dtype=np.float64), start)
        found += [told for told in evaluator.fold(columns).found if isinstance(told, Finding)]
    return found


def _columns(table: Table, scores: NDArray[np.float64], first: int) -> Columns:
    """Return the rows as samples whose offsets, and numbers as events, are their places in the whole table."""
    n = len(table)
    places, zeros = np.arange(first, first + n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    served = Scored(places - first, scores, np.full(n, CHAMPION, dtype=object), serves=True)
    return Columns(
        offsets=places,
        events=places,
        revisions=zeros,
        event_times_ms=table.event_time_ms,
        label_times_ms=table.event_time_ms,
        latencies_ms=zeros,
        labels=table.labels,
        replaced=np.full(n, -1, dtype=np.int64),
        assumed=np.zeros(n, dtype=np.bool_),
        variants={CHAMPION: served},
    )
