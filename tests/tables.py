"""Tables of labelled events, for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.evaluation.tally import Scoring
from ml.models.protocol import Matrix, Scores
from ml.training.table import Table

BINARY = Scoring("binary", 2, 0.5)
ANOMALY = Scoring("anomaly", 2, 0.5)
THREE = Scoring("multiclass", 3, 0.5)


def table_of(
    labels: ArrayLike,
    matrix: Matrix | None = None,
    weights: ArrayLike | None = None,
    entities: ArrayLike | None = None,
) -> Table:
    """Return a table with these labels; each event weighs 1 and is of an entity of its own unless told."""
    given = np.asarray(labels, dtype=np.int64)
    n = len(given)
    return Table(
        matrix=np.zeros((n, 1), np.float32) if matrix is None else matrix,
        labels=given,
        weights=np.ones(n) if weights is None else np.asarray(weights, np.float64),
        event_time_ms=np.arange(n, dtype=np.int64),
        entities=np.arange(n) if entities is None else np.asarray(entities, np.int64),
        served=np.full(n, 0.5),
    )


def three_classes(random: np.random.Generator, n: int) -> tuple[NDArray[np.float64], Table]:
    """Return scores of three classes that know something about the labels, and the labels."""
    labels = random.integers(0, 3, n)
    logits = random.normal(size=(n, 3))
    logits[np.arange(n), labels] += 1.0
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), table_of(labels, weights=random.uniform(0.2, 5, n))


class Weighing:
    """A model that is a weighted sum of the columns, through the logistic function; a missing value counts nothing."""

    algorithm = "weighing"
    classes = 1
    memory_bytes = 0

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = np.asarray(weights, np.float64)

    @property
    def n_features(self) -> int:
        """As many as there are weights."""
        return len(self._weights)

    def predict(self, matrix: Matrix) -> Scores:
        """Return the scores, shape (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.nan_to_num(matrix) @ self._weights)))

    def dump(self) -> bytes:
        """Return the weights."""
        return self._weights.tobytes()

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Any:
        """Return the model with these weights."""
        return cls(np.frombuffer(payload).tolist())
