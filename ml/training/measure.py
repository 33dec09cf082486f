"""What a model is worth on labelled events: the figures of its scores, its calibration and its thresholds."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.figures import decisions, mean
from ml.evaluation.tally import CALIBRATION_BINS, Scoring
from ml.models.protocol import Scores
from ml.training.losses import brier_scores, log_losses
from ml.training.ranking import Point, Ranking
from ml.training.table import Table

_DIGITS: Final = 52  # of a float64: as fine as whole numbers can share one total without leaving it

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The rows whose confidence falls into one bin: their weight, mean confidence, and the share that came true."""

    weight: float
    confidence: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What was measured on `rows` events; sums and means weigh each row as it weighs.

    A figure is None where it does not exist: the ranking with one class only, precision where nothing is predicted,
    losses and calibration of anomaly scores. Figures of several classes are means over the classes that occur, each
    against the rest. `threshold` is what decided (None of several classes). `confusion` has a row for each true class,
    with the weights by predicted class. `curve` and `best` are of two classes only: see Ranking.
    """

    rows: int
    threshold: float | None
    roc_auc: float | None
    pr_auc: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    specificity: float | None
    false_positive_rate: float | None
    false_negative_rate: float | None
    log_loss: float | None
    brier: float | None
    calibration_error: float | None
    confusion: tuple[tuple[float, ...], ...]
    calibration: tuple[CalibrationBin, ...]
    curve: tuple[Point, ...]
    best: Point | None

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that exist, by name."""
        return {name: value for name in FIGURES if (value := getattr(self, name)) is not None}


FIGURES: Final = (
    "roc_auc",
    "pr_auc",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "specificity",
    "false_positive_rate",
    "false_negative_rate",
    "log_loss",
    "brier",
    "calibration_error",
)


def measure(scores: Scores, table: Table, scoring: Scoring) -> Measures:
    """Return what `scores`, of shape (n,) or (n, classes), are worth against the labels of the n rows of `table`.

    Costs about 0.4 µs a row, mostly one sort (for several classes: one for each).
    """
    exact = scores.astype(np.float64)
    confusion = _confusion(exact, table, scoring)
    rankings = _rankings(exact, table, scoring)
    calibration = () if scoring.task == "anomaly" else _calibration(exact, table, scoring)
    return Measures(
        rows=len(table),
        threshold=None if scoring.task == "multiclass" else scoring.threshold,
        roc_auc=mean([ranking.roc_auc() for ranking in rankings]),
        pr_auc=mean([ranking.pr_auc() for ranking in rankings]),
        **decisions(_in_whole_numbers(confusion)),
        log_loss=None if scoring.task == "anomaly" else _mean(log_losses(scores, table.labels), table.weights),
        brier=None if scoring.task == "anomaly" else _mean(brier_scores(scores, table.labels), table.weights),
        calibration_error=_calibration_error(calibration),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration=calibration,
        curve=rankings[0].curve() if len(rankings) == 1 else (),
        best=rankings[0].best() if len(rankings) == 1 else None,
    )


def _confusion(scores: Floats, table: Table, scoring: Scoring) -> Floats:
    classes = scoring.classes
    cells = table.labels * classes + scoring.predicted(scores)
    return np.asarray(np.bincount(cells, table.weights, classes * classes), np.float64).reshape(classes, classes)


def _in_whole_numbers(confusion: Floats) -> NDArray[np.int64]:
    """Return the cells as whole multiples of a power of 2, which keeps counts as they are in proportion."""
    _, exponent = np.frexp(confusion.sum())
    return np.asarray(np.rint(np.ldexp(confusion, _DIGITS - exponent)), np.int64)


def _rankings(scores: Floats, table: Table, scoring: Scoring) -> list[Ranking]:
    """Return the ranking of class 1, or of each class against the rest."""
    if scoring.task != "multiclass":
        return [Ranking.of(scores, table.labels == 1, table.weights)]
    return [Ranking.of(scores[:, label], table.labels == label, table.weights) for label in range(scoring.classes)]


def _calibration(scores: Floats, table: Table, scoring: Scoring) -> tuple[CalibrationBin, ...]:
    """Return the bins of equal width that have weight: of the score, or of the best class's."""
    confidence = scores.max(axis=1) if scores.ndim == 2 else scores
    true = table.labels == (scoring.predicted(scores) if scores.ndim == 2 else 1)
    places = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    weighed = (table.weights, table.weights * confidence, table.weights * true)
    sums = np.array([np.bincount(places, column, CALIBRATION_BINS) for column in weighed])
    weight, confident, came_true = sums[:, sums[0] > 0]
    return tuple(map(CalibrationBin, weight.tolist(), (confident / weight).tolist(), (came_true / weight).tolist()))


def _calibration_error(bins: tuple[CalibrationBin, ...]) -> float | None:
    """Return the mean distance of confidence and share over the bins (Naeini, Cooper, Hauskrecht 2015)."""
    total = sum(each.weight for each in bins)
    return sum(each.weight * abs(each.confidence - each.share) for each in bins) / total if total else None


def _mean(values: Floats, weights: Floats) -> float | None:
    total = float(weights.sum())
    return float(values @ weights) / total if total else None
