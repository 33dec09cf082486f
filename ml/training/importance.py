"""How much a model relies on each feature: how much worse it becomes when the feature's values are shuffled.

Breiman 2001 (Machine Learning 45:5), with any model (Fisher, Rudin and Dominici 2019, JMLR 20:177). Features that say
the same thing stand in for each other, so each of them may look unimportant.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ml.evaluation.tally import Scoring
from ml.models.protocol import Model, Scores
from ml.training.losses import log_losses
from ml.training.ranking import Ranking
from ml.training.table import Table

MOST_ROWS: Final = 5_000
REPEATS: Final = 3


@dataclass(frozen=True, slots=True)
class Importance:
    """How much the loss grows without `feature`: the mean over the shuffles, and their standard deviation.

    The loss is log loss, of anomaly scores 1 - ROC AUC.
    """

    feature: str
    increase: float
    spread: float


def permutation_importance(
    model: Model, features: tuple[str, ...], table: Table, scoring: Scoring, seed: int
) -> tuple[Importance, ...]:
    """Return the importance of each feature on the rows of `table`, in the order of `features`.

    At most 5,000 of the rows are drawn. The model scores them 3 times for each feature. Equal seeds give equal values.
    """
    if len(table) > MOST_ROWS:
        table = table.rows(np.sort(np.random.default_rng(seed).choice(len(table), MOST_ROWS, replace=False)))
    before = _loss(model.predict(table.matrix), table, scoring)
    found = []
    for column, feature in enumerate(features):
        increases = [_shuffled(model, table, scoring, column, (seed, column, time)) - before for time in range(REPEATS)]
        found.append(Importance(feature, float(np.mean(increases)), float(np.std(increases))))
    return tuple(found)


def _shuffled(model: Model, table: Table, scoring: Scoring, column: int, seed: tuple[int, ...]) -> float:
    """Return the loss with one column's values in another order."""
    matrix = table.matrix.copy()
    matrix[:, column] = np.random.default_rng(seed).permutation(matrix[:, column])
    return _loss(model.predict(matrix), table, scoring)


def _loss(scores: Scores, table: Table, scoring: Scoring) -> float:
    if scoring.task == "anomaly":
        area = Ranking.of(scores.astype(np.float64), table.labels == 1, table.weights).roc_auc()
        return 0.0 if area is None else 1.0 - area
    total = float(table.weights.sum())
    return float(log_losses(scores, table.labels) @ table.weights) / total if total else 0.0
