"""What evaluation would have said of a model on labelled events: its windows and gates, over scores that are given."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.evaluate import rules_of
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.evaluator import Evaluator, Report
from ml.evaluation.gates import Finding, GateRules
from ml.evaluation.window import CHAMPION
from ml.models.protocol import Scores
from ml.training.table import Table
from schemas.streams import StreamSpec

_AT_ONCE: Final = 65_536


def alerts_on(spec: StreamSpec, table: Table, candidate: Scores, champion: Scores) -> tuple[int, int]:
    """Return how many alerts the stream's evaluation raises over `table`, when the scores are the candidate's, and when
    they are the champion's.

    Scores have shape (n,), or (n, classes) of several classes, in the order of the table. Both are held to one
    reference, the declared one or the champion's first windows: what would be a fall for a better model may be more
    than the champion ever reached. So a rise in errors counts only where it ends above the reference's. Every event
    counts as labelled at its own time, and each window as mature once it is closed: what a table holds has all its
    labels. The last window is judged only if it is full. Latency is not judged: a table knows of none. About 3 µs per
    event.
    """
    scoring, windows, gates = rules_of(spec)
    rules = replace(gates, max_latency_ms=None)
    windows = replace(windows, ripens_ms=0)
    if rules.reference_accuracy is None:
        reports = [
            told for told in _told(Evaluator(scoring, windows, rules), table, champion) if isinstance(told, Report)
        ]
        rules = replace(rules, reference_accuracy=_reference(reports, rules))
    its, others = (
        sum(
            _counts(told, rules.reference_accuracy) for told in _told(Evaluator(scoring, windows, rules), table, scores)
        )
        for scores in (candidate, champion)
    )
    return its, others


def _told(evaluator: Evaluator, table: Table, scores: Scores) -> Iterator[Report | Finding]:
    for start in range(0, len(table), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        yield from evaluator.fold(_columns(table.rows(rows), np.asarray(scores[rows], dtype=np.float64), start)).found


def _reference(reports: Sequence[Report], rules: GateRules) -> float | None:
    """Return the accuracy of the first windows, as evaluation takes it; None where there are too few."""
    figures = [measured.figures for report in reports if report.mature for measured in report.variants]
    known = [each.accuracy for each in figures if each.n >= rules.min_samples and each.accuracy is not None]
    first = known[: rules.reference_windows]
    return sum(first) / len(first) if len(first) == rules.reference_windows else None


def _counts(told: Report | Finding, reference: float | None) -> bool:
    if not isinstance(told, Finding):
        return False
    return told.kind != "error_drift" or reference is None or told.value > 1 - reference


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
