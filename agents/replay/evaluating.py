"""The evaluation of a replayed history: windows, what their gates find, and the moments of the schedule."""

import copy
from dataclasses import dataclass, field, replace

import numpy as np

from agents.evaluate import STAGE, alert_of, request_of, rules_of
from agents.replay.events import LabelledEvents
from agents.replay.scoring import Answer
from agents.schedule import request_of as scheduled_request
from agents.schedule import schedule_of
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.evaluator import Evaluator, Report
from schemas.events import Alert, RetrainRequest
from schemas.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Told:
    """What people and trainers would have been told by one of the worlds."""

    alerts: list[Alert] = field(default_factory=list)
    requests: list[RetrainRequest] = field(default_factory=list)


class Evaluating:
    """Folds samples in the order of their log. Keeps the newest report of each window, the final one last."""

    def __init__(self, spec: StreamSpec) -> None:
        self._stream = spec.name
        self._evaluator = Evaluator(*rules_of(spec))
        self._schedule = schedule_of(spec)
        self.reports: dict[int, Report] = {}
        self.told = Told()

    def fork(self) -> "Evaluating":
        """Return another one that has folded the same so far, and goes its own way from here."""
        return copy.deepcopy(self)

    def take(self, samples: Columns) -> None:
        """Count samples, and tell what the stage that evaluates would."""
        if not len(samples):
            return
        passed = []
        if self._schedule is not None:
            passed = self._schedule.passed(self._evaluator.label_head_ms, samples.label_times_ms)
        for found in self._evaluator.fold(samples).found:
            if isinstance(found, Report):
                self.reports[found.number] = found
            else:
                self.told.alerts.append(alert_of(self._stream, found))
                self.told.requests.append(request_of(self._stream, found))
        if self._schedule is not None:
            self.told.requests.extend(scheduled_request(self._stream, self._schedule, due, STAGE) for due in passed)


def answered(labelled: LabelledEvents, answer: Answer) -> Columns:
    """Return the samples as if these had been the scores of those that served; shadows stay as they were.

    A sample that has no score is not scored by anybody there.
    """
    columns, finite = labelled.columns, answer.finite
    served = {variant for variant in columns.variants if columns.variants[variant].serves}
    variants = {name: scored for name, scored in columns.variants.items() if name not in served}
    for name in sorted(set(answer.variants[finite].tolist())):
        rows = np.flatnonzero((answer.variants == name) & finite)
        scores = np.asarray(answer.scores[rows], dtype=np.float64)
        variants[name] = Scored(rows, scores, answer.models[rows], serves=True)
    return replace(columns, variants=variants)
