"""Every registered algorithm, once for two outcomes and once for three classes, trained on the same small data."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ml.models.protocol import Labels, Learner, Matrix, Model, Scores
from ml.models.registry import algorithms, learner_type, model_type
from ml.models.sklearn_model import SklearnModel
from ml.models.xgboost_model import XGBoostModel

N_FEATURES = 5
Train = Callable[[Matrix, Labels, int, int], Model]


@dataclass(frozen=True)
class Case:
    """An algorithm and a task."""

    algorithm: str
    classes: int
    train: Train

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.classes}"

    @property
    def type(self) -> type[Model]:
        return model_type(self.algorithm)

    def data(self) -> tuple[Matrix, Labels]:
        return _data(self.classes)

    def build(self, seed: int = 0) -> Model:
        return self.train(*self.data(), self.classes, seed)


def _xgboost(matrix: Matrix, labels: Labels, classes: int, seed: int) -> Model:
    task = {"objective": "binary:logistic"} if classes == 1 else {"objective": "multi:softprob", "num_class": classes}
    parameters = {"max_depth": 4, "subsample": 0.7, "seed": seed, "nthread": 1, **task}
    return XGBoostModel.from_booster(xgboost.train(parameters, xgboost.DMatrix(matrix, labels, nthread=1), 20))


def _learner(algorithm: str, **parameters: Any) -> Train:
    def train(matrix: Matrix, labels: Labels, classes: int, seed: int) -> Model:
        learner = learner_type(algorithm)(N_FEATURES, classes, **parameters)
        learner.learn(matrix, labels)
        return learner

    return train


def _sklearn(matrix: Matrix, labels: Labels, classes: int, seed: int) -> Model:
    classifier = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=seed)
    with threadpool_limits(1):
        classifier.fit(matrix, labels)
    classifier._feature_subsample_rng = None  # it is not saved
    return SklearnModel.from_steps([classifier], N_FEATURES, classes)


TRAINERS = {
    "xgboost": _xgboost,
    "sklearn": _sklearn,
    "xgboost-online": _learner("xgboost-online", rounds=20),
    "river-logistic": _learner("river-logistic", learning_rate=0.1),
    "river-hoeffding-tree": _learner("river-hoeffding-tree", grace_period=50),
    "river-adaptive-forest": _learner("river-adaptive-forest", n_models=2, seed=5),
}
CASES = [Case(name, classes, TRAINERS[name]) for name in algorithms() if name in TRAINERS for classes in (1, 3)]
LEARNING = [case for case in CASES if hasattr(case.type, "learn")]


@pytest.fixture(scope="session", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    built: Case = request.param
    return built


@pytest.fixture(scope="session")
def model(case: Case) -> Model:
    """A trained model that tests share, since none of them may change it."""
    return _built(case)


@pytest.fixture(scope="session")
def matrix(case: Case) -> Matrix:
    return case.data()[0]


@pytest.fixture(scope="session")
def alone(model: Model, matrix: Matrix) -> Scores:
    """What each row of the matrix scores when it comes alone."""
    return np.concatenate([model.predict(matrix[row : row + 1]) for row in range(len(matrix))])


@pytest.fixture(scope="session")
def hashes() -> dict[str, str]:
    """The hash of each case's model as another process trains it."""
    program = "from tests.contract.conftest import hash_models; hash_models()"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def hash_models() -> None:
    """Train all models; print the hash of each."""
    print(json.dumps({str(case): hashlib.sha256(case.build().dump()).hexdigest() for case in CASES}))


@pytest.fixture(scope="session", params=LEARNING, ids=str)
def learned(request: pytest.FixtureRequest) -> tuple[Case, Learner]:
    """The cases that can learn, each with the model that tests share."""
    case: Case = request.param
    learner = _built(case)
    assert isinstance(learner, Learner)
    return case, learner


@pytest.fixture(params=LEARNING, ids=str)
def learning(request: pytest.FixtureRequest) -> tuple[Case, Learner]:
    """The cases that can learn, each with a model of its own that has already learned its data."""
    case: Case = request.param
    learner = case.build()
    assert isinstance(learner, Learner)
    return case, learner


@cache
def _built(case: Case) -> Model:
    return case.build()


def _data(classes: int) -> tuple[Matrix, Labels]:
    """1,000 rows, a tenth of the values missing; the first columns tell the class, the last one never varies."""
    random = np.random.default_rng(7)
    matrix = random.normal(size=(1000, N_FEATURES)).astype(np.float32)
    labels = (matrix[:, 0] > 0.3).astype(np.int64) if classes == 1 else matrix[:, :classes].argmax(axis=1)
    matrix[:, 0] = matrix[:, 0] * 1000 + 5000
    matrix[:, -1] = 1.0
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels
