"""Shadows: models that score every event beside the champion, for comparison, and must never be in its way."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.models.protocol import Matrix, Model, Scores
from schemas.events import ModelVersion, ShadowScore
from stream import metrics as m
from stream.metric_values import Metrics

log = logging.getLogger("penstock.shadows")


@dataclass(slots=True, eq=False)
class Shadow:
    """A loaded shadow. `complained`: its first failure stands in the log."""

    model: Model
    version: ModelVersion
    complained: bool = False

    @property
    def variant(self) -> str:
        """The name that its scores go by: the lineage, which outlives its versions, or the model's own id."""
        return self.version.lineage or self.version.model_id


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What shadows made of n events: `rows` (n,) are the scores that each event got, of those that are finite.

    `columns` has, for each shadow that gave any, all of its scores, of shape (n,) or (n, classes), and which of them
    are finite, of shape (n,).
    """

    rows: Sequence[tuple[ShadowScore, ...]]
    columns: Sequence[tuple[Shadow, Scores, NDArray[np.bool_]]] = ()


def score_beside(shadows: Sequence[Shadow], matrix: Matrix, metrics: Metrics, stream: str) -> Beside:
    """Return, for each row of `matrix`, the scores of all shadows that have a finite one for it.

    Whatever a shadow raises, and however it fails, is counted and logged once, and costs no more than its scores.
    Costs about 0.4 µs per row and shadow beside the prediction itself; nothing without shadows.
    """
    if not shadows or not len(matrix):
        return Beside([()] * len(matrix))
    columns, written = [], []
    for shadow in shadows:
        scores = _scores_of(shadow, matrix)
        finite = np.zeros(len(matrix), dtype=np.bool_) if scores is None else finite_rows(scores)
        if not finite.all():
            _complain(shadow, "not every score is finite")
            metrics.count(m.SHADOW_ERRORS, int((~finite).sum()), stream, shadow.variant)
        if scores is not None:
            columns.append((shadow, scores, finite))
            written.append(_column(shadow, scores, finite))
    return Beside([tuple(filter(None, row)) for row in zip(*written, strict=True)] or [()] * len(matrix), columns)


def checked_scores(model: Model, matrix: Matrix, classes: int) -> Scores:
    """Return the model's scores, of shape (n,) with 1 class, else (n, classes).

    Raises ValueError where they have another shape, TypeError where they are no numbers, and whatever the model raises.
    """
    scores = np.asarray(model.predict(matrix))
    expected = (len(matrix),) if classes == 1 else (len(matrix), classes)
    if scores.shape != expected:
        raise ValueError(f"its scores have shape {scores.shape} instead of {expected}")
    finite_rows(scores)  # raises the TypeError
    return scores


def finite_rows(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which rows of `scores`, of shape (n,) or (n, classes), hold only finite numbers; shape (n,)."""
    finite: NDArray[np.bool_] = np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1)
    return finite


def _scores_of(shadow: Shadow, matrix: Matrix) -> Scores | None:
    """Return the shadow's scores of all rows; None where it gave none."""
    try:
        return checked_scores(shadow.model, matrix, shadow.model.classes)
    except Exception as error:  # noqa: BLE001  # a model may come from any package, and raise anything
        _complain(shadow, f"{type(error).__name__}: {error}")
        return None


def _column(shadow: Shadow, scores: Scores, finite: NDArray[np.bool_]) -> list[ShadowScore | None]:
    """Return the shadow's score of each row, None where it is not finite."""
    column = _scored(shadow, scores)
    if finite.all():
        return column
    return [score if good else None for score, good in zip(column, finite.tolist(), strict=True)]


def _scored(shadow: Shadow, scores: Scores) -> list[ShadowScore | None]:
    variant, model_id = shadow.variant, shadow.version.model_id
    if scores.ndim == 1:
        return [ShadowScore(variant=variant, model_id=model_id, score=score) for score in scores.tolist()]
    return [
        ShadowScore(variant=variant, model_id=model_id, score=best, scores=row)
        for best, row in zip(scores.max(axis=1).tolist(), scores.tolist(), strict=True)
    ]


def _complain(shadow: Shadow, problem: str) -> None:
    if not shadow.complained:
        shadow.complained = True
        model_id, stream = shadow.version.model_id, shadow.version.stream
        log.warning("stream %s: shadow %s gives no score for some events: %s", stream, model_id, problem)
