"""Every registered algorithm, once for two outcomes and once for three classes, trained on the same small data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import xgboost

from ml.models.protocol import Labels, Matrix, Model
from ml.models.registry import algorithms, model_type
from ml.models.river_logistic import RiverLogisticModel
from ml.models.xgboost_model import XGBoostModel

N_FEATURES = 5


@dataclass(frozen=True)
class Case:
    """`build(matrix, labels, classes, seed)` trains; `tolerance` is what batch and single rows may differ by."""

    algorithm: str
    classes: int
    matrix: Matrix
    labels: Labels
    tolerance: float
    build: Callable[[Matrix, Labels, int, int], Model]

    @property
    def type(self) -> type[Model]:
        return model_type(self.algorithm)

    def model(self, seed: int = 0) -> Model:
        return self.build(self.matrix, self.labels, self.classes, seed)


def _xgboost(matrix: Matrix, labels: Labels, classes: int, seed: int) -> Model:
    task = {"objective": "binary:logistic"} if classes == 1 else {"objective": "multi:softprob", "num_class": classes}
    parameters = {"max_depth": 4, "subsample": 0.7, "seed": seed, "nthread": 1, **task}
    return XGBoostModel.from_booster(xgboost.train(parameters, xgboost.DMatrix(matrix, labels, nthread=1), 20))


def _river_logistic(matrix: Matrix, labels: Labels, classes: int, seed: int) -> Model:
    model = RiverLogisticModel(N_FEATURES, classes, learning_rate=0.1)
    model.learn(matrix, labels)
    return model


BUILDERS = {"xgboost": (_xgboost, 0.0), "river-logistic": (_river_logistic, 1e-12)}


def _cases(algorithms: tuple[str, ...]) -> list[Case | str]:
    """Return the cases; a name alone stands for an algorithm that nobody taught this file to build."""
    return [
        Case(name, classes, *_data(classes), *BUILDERS[name]) if name in BUILDERS else name
        for name in algorithms
        for classes in (1, 3)
    ]


@pytest.fixture(scope="session", params=_cases(algorithms()), ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=_cases(tuple(name for name in algorithms() if hasattr(model_type(name), "learn"))), ids=str)
def learning_case(request: pytest.FixtureRequest) -> Case:
    """The cases whose model is a Learner."""
    return request.param


@pytest.fixture(scope="session")
def model(case: Case) -> Model:
    """A trained model that tests share, since none of them may change it."""
    return case.model()


def _data(classes: int) -> tuple[Matrix, Labels]:
    """1,000 rows, a tenth of the values missing; the first columns tell the class, one column never varies."""
    random = np.random.default_rng(7)
    matrix = random.normal(size=(1000, N_FEATURES)).astype(np.float32)
    labels = (matrix[:, 0] > 0.3).astype(np.int64) if classes == 1 else matrix[:, :classes].argmax(axis=1)
    matrix[:, 0] = matrix[:, 0] * 1000 + 5000
    matrix[:, 4] = 1.0
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels
