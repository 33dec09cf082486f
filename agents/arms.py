"""The arms of an experiment: models that serve side by side, each the entities whose buckets it has.

Who is assigned to an arm stays there. Where its model fails, the champion's score is served in its place, and counts as
that arm's: so a model cannot look better by failing where it would be wrong.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.shadows import checked_scores, finite_rows
from ml.experiments.assignment import buckets_of
from ml.models.protocol import Matrix, Model, Scores
from schemas.events import ModelVersion
from schemas.experiments import Experiment
from schemas.streams import StreamSpec
from stream import metrics as m
from stream.metric_values import Metrics

log = logging.getLogger("penstock.arms")

Timer = Callable[[], int]
"""Returns a time in nanoseconds, from any start."""


@dataclass(slots=True, eq=False)
class Arm:
    """A variant and its model. Without a model, it could not be loaded. `complained`: a failure stands in the log.

    `away`: the model could not be fetched as yet, which says nothing about it.
    """

    name: str
    model_id: str
    model: Model | None = None
    version: ModelVersion | None = None
    complained: bool = False
    away: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the models that serve made of n events. `scores` have the shape (n,), or (n, classes).

    With an experiment, `arms` (n,) says which arm each event is assigned to, by position (the champion's is 0), and
    `own` (n,) whether that arm's model gave the score, and not the champion's in its place. `failed` (n,) says where
    that is the model's fault: not where its store was away. `call_ns` is how long the call of each arm's model took, of
    those that were called.
    """

    scores: Scores
    arms: NDArray[np.int16] | None = None
    own: NDArray[np.bool_] | None = None
    call_ns: Mapping[int, int] = field(default_factory=dict)
    failed: NDArray[np.bool_] | None = None

    def take(self, rows: NDArray[np.bool_]) -> "Answer":
        """Return what was made of some of the events; `rows` has shape (n,)."""
        if self.arms is None or self.own is None or self.failed is None:
            return Answer(self.scores[rows])
        return Answer(self.scores[rows], self.arms[rows], self.own[rows], self.call_ns, self.failed[rows])

    @property
    def champions(self) -> NDArray[np.bool_] | None:
        """Which events are assigned to the champion, shape (n,); None without an experiment: then all are."""
        return None if self.arms is None else self.arms == 0

    def models_and_variants(self, arms: Sequence[Arm]) -> tuple[list[str], list[str]]:
        """Return whose model scored each event, and which variant it is assigned to; `arms` are those of `ask_arms`."""
        assert self.arms is not None
        assert self.own is not None
        models, names = [arm.model_id for arm in arms], [arm.name for arm in arms]
        scorers = np.where(self.own, self.arms, 0)
        return [models[arm] for arm in scorers.tolist()], [names[arm] for arm in self.arms.tolist()]


def assigned(experiment: Experiment, table: NDArray[np.int16], keys: Sequence[bytes]) -> NDArray[np.int16]:
    """Return the position of the arm that each entity is assigned to, shape (n,); `table` is the experiment's."""
    return table[buckets_of(keys, experiment.salt)]


def ask_arms(
    arms: Sequence[Arm], places: NDArray[np.int16], matrix: Matrix, metrics: Metrics, stream: str, timer: Timer
) -> Answer:
    """Return each row's score by the arm that it is assigned to: `places` (n,) are positions in `arms`; n is not 0.

    Each model is called once, with its own rows; then the champion's, with its own and those that another gave no
    finite score for. Such rows are counted, and the first of an arm is logged. Raises what the champion's model does.
    Costs 5 µs for each arm beside the predictions, and 0.05 µs per row.
    """
    champion = arms[0].model
    assert champion is not None
    own, failed = np.ones(len(matrix), dtype=np.bool_), np.zeros(len(matrix), dtype=np.bool_)
    call_ns: dict[int, int] = {}
    parts: list[tuple[NDArray[np.int64], Scores]] = []
    for place, arm in enumerate(arms[1:], start=1):
        rows = np.flatnonzero(places == place)
        if not len(rows):
            continue
        began = timer()
        scores = _scores_of(arm, matrix[rows], champion.classes, stream)
        if arm.model is not None:
            call_ns[place] = timer() - began
        finite = np.zeros(len(rows), dtype=np.bool_) if scores is None else finite_rows(scores)
        if not finite.all():
            _complain(arm, stream, "not every score is finite")
            own[rows[~finite]] = False
            failed[rows[~finite]] = not arm.away
            metrics.count(m.VARIANT_ERRORS, int((~finite).sum()), stream, arm.name)
        if scores is not None:
            parts.append((rows[finite], scores[finite]))
    rows = np.flatnonzero((places == 0) | ~own)
    if len(rows):
        began = timer()
        parts.append((rows, np.asarray(champion.predict(matrix[rows]))))
        call_ns[0] = timer() - began
    return Answer(_together(parts, len(matrix)), places, own, call_ns, failed)


def labels_of(spec: StreamSpec, scores: Scores) -> NDArray[np.int64]:
    """Return the position of the label that each of `scores`, (n,) or (n, classes), makes of its event; shape (n,)."""
    # Compared in double precision, as a reader of the score would.
    best = scores.argmax(axis=1) if scores.ndim == 2 else scores.astype(np.float64) >= spec.threshold
    return np.asarray(best, dtype=np.int64)


def best_of(scores: Scores) -> Scores:
    """Return the score of each event, of several classes the highest; shape (n,)."""
    return scores.max(axis=1) if scores.ndim == 2 else scores


def _scores_of(arm: Arm, matrix: Matrix, classes: int, stream: str) -> Scores | None:
    """Return the scores that the arm's model gives these rows; None where it gives none."""
    if arm.model is None:
        arm.complained = True  # there is an alert
        return None
    try:
        return checked_scores(arm.model, matrix, classes)
    except Exception as error:  # noqa: BLE001  # a model may come from any package, and raise anything
        _complain(arm, stream, f"{type(error).__name__}: {error}")
        return None


def _together(parts: Sequence[tuple[NDArray[np.int64], Scores]], n: int) -> Scores:
    """Return the scores of all rows as one array, as precise as the most precise of them."""
    scores: Scores = np.empty((n, *parts[0][1].shape[1:]), dtype=np.result_type(*(part for _, part in parts)))
    for rows, part in parts:
        scores[rows] = part
    return scores


def _complain(arm: Arm, stream: str, problem: str) -> None:
    if not arm.complained:
        arm.complained = True
        log.warning(
            "stream %s: model %s of variant %s gives no score for some events, which get the champion's: %s",
            *(stream, arm.model_id, arm.name, problem),
        )
