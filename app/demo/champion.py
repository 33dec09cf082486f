"""The demo's first champion, trained on January, and how good it is on the rest of the year."""

from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from app.demo.flights import FEATURES, NO_LABEL, Flights, replay_start

TREES = 100
PARAMETERS = {
    "objective": "binary:logistic",
    "max_depth": 4,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 5,
    "nthread": 1,  # the same model on every machine
}


def train_champion(flights: Flights, *, seed: int) -> xgboost.Booster:
    """Train on the flights whose landing was known when the replay begins (9,600 of January's); about 0.3 s."""
    known = _known(flights)
    data = xgboost.DMatrix(
        flights.features[known].astype(np.float32), flights.labels[known], feature_names=list(FEATURES)
    )
    return xgboost.train({**PARAMETERS, "seed": seed}, data, num_boost_round=TREES)


def write_training_rows(flights: Flights, path: Path) -> None:
    """Write the features of the flights that `train_champion` takes as a CSV file: what drift is measured against."""
    np.savetxt(path, flights.features[_known(flights)], fmt="%d", delimiter=",", header=",".join(FEATURES), comments="")


def champion_auc(champion: xgboost.Booster, flights: Flights) -> float:
    """Return the ROC AUC on the labelled flights that training has not seen: about 0.65; near 0.9 something leaks."""
    rest = (flights.labels != NO_LABEL) & (np.arange(len(flights)) >= flights.first_at(replay_start()))
    scores = champion.inplace_predict(flights.features[rest].astype(np.float32))
    return roc_auc(flights.labels[rest], scores)


def roc_auc(labels: NDArray[np.int8], scores: NDArray[np.floating[Any]]) -> float:
    """Return the share of (late, punctual) pairs that `scores` puts in the right order; a tie counts one half.

    Both are (n,), with both classes among the labels. Mann and Whitney's U over the number of pairs
    (Hanley and McNeil 1982), from ranks in which ties share their mean.
    """
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
    late = labels == 1
    positives = int(late.sum())
    u = ranks[late].sum() - positives * (positives + 1) / 2
    return float(u / (positives * (labels.size - positives)))


def _known(flights: Flights) -> NDArray[np.bool_]:
    """Return which flights had landed when the replay begins."""
    known: NDArray[np.bool_] = (flights.labels != NO_LABEL) & (
        flights.label_time_ms < replay_start().timestamp() * 1000
    )
    return known
