"""The flights stream of the chaos run of rollouts, and the three models that it is about."""

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import xgboost
from numpy.typing import NDArray

from app.demo.champion import PARAMETERS, TREES, train_champion
from app.demo.flights import FEATURES, NO_LABEL, Flights, flights_stream
from schemas.streams import EvaluationSpec, ExperimentSpec, StreamSpec

STEPS: Final = (0.1, 0.5, 1.0)
MIN_SAMPLES: Final = 2_000
_MATURITY_DAYS: Final = 60
_BETTER: Final = PARAMETERS | {"max_depth": 8, "eta": 0.2}
_WORSE: Final = PARAMETERS | {"eta": 0.2}


def rollout_stream() -> StreamSpec:
    """Return the demo's stream without its learner and its training, whose models would change the routing in between.

    At 1,000 events per second three days pass in each, so a partition whose worker has died falls weeks behind the
    others: a sample counts as mature after 60 days, and not after one, or those of the slower partitions would all come
    too late. `min_samples` lets each rollout last for several kills. All guardrails are as they come.
    """
    return msgspec.structs.replace(
        flights_stream(),
        learners={},
        training=None,
        evaluation=EvaluationSpec(maturity_minutes=_MATURITY_DAYS * 24 * 60),
        experiments=ExperimentSpec(metric="brier", margin=0.01, min_samples=MIN_SAMPLES, steps=STEPS),
    )


class Models(NamedTuple):
    """Files of XGBoost models. On what comes after January their Brier scores are about 0.183, 0.143 and 0.277."""

    january: Path
    better: Path
    worse: Path


def save_models(flights: Flights, folder: Path, *, seed: int) -> Models:
    """Train and save the demo's champion, a better model and a worse one; about 2 s.

    The better one is an oracle on purpose: it was trained on the very flights that it scores, because the run is about
    the rollout and not about learning. The worse one has learnt to call the flights late that the oracle takes for
    punctual; since its labels are those of the year in another order, its scores are distributed as the oracle's (a PSI
    of 0.01) and no guardrail that looks at scores alone can tell.
    """
    rows = np.flatnonzero(flights.labels != NO_LABEL)
    labels = flights.labels[rows]
    better = _train(flights, rows, labels, _BETTER, seed)
    worse = _train(flights, rows, mirrored(better.inplace_predict(_matrix(flights, rows)), labels), _WORSE, seed)
    models = Models(folder / "january.ubj", folder / "better.ubj", folder / "worse.ubj")
    for booster, path in zip((train_champion(flights, seed=seed), better, worse), models, strict=True):
        booster.save_model(path)
    return models


def mirrored(scores: NDArray[np.float32], labels: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the labels with the one of the highest score at the lowest, and so on; both have shape (n,)."""
    order = np.argsort(scores, kind="stable")
    turned = np.empty_like(labels)
    turned[order] = labels[order[::-1]]
    return turned


def _train(
    flights: Flights, rows: NDArray[np.intp], labels: NDArray[np.int8], parameters: dict[str, object], seed: int
) -> xgboost.Booster:
    data = xgboost.DMatrix(_matrix(flights, rows), labels, feature_names=list(FEATURES))
    return xgboost.train({**parameters, "seed": seed}, data, num_boost_round=TREES)


def _matrix(flights: Flights, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    return flights.features[rows].astype(np.float32)
