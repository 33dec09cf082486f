"""Classifiers of scikit-learn. Needs the extra `sklearn`."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from ml.errors import ModelPayloadInvalid
from ml.models import sklearn_file
from ml.models.protocol import Matrix, Scores, check_matrix

# Loaded models took 1.0 (deep trees) to 2.4 times (boosting by histograms) the size of their file. While loading it is
# 8 to 20 times for a moment, for skops makes an object of each node of its schema.
MEMORY_PER_FILE_BYTE = 2.5


class SklearnModel:
    """Fitted steps: any that prepare the matrix, then a classifier. Scores are float64.

    The classifier's classes are indices; one that it never saw has the probability 0. On one
    thread 60 rounds of boosting by histograms take 0.5 ms for one row and 1.4 ms for 256, and 100 deep trees of a
    forest 5 ms and 9 ms: scikit-learn's own checks cost more than the trees.
    """

    algorithm: ClassVar[str] = "sklearn"

    def __init__(self, payload: bytes, *, threads: int = 1) -> None:
        held = sklearn_file.read(payload)
        try:
            self.n_features, self.classes = int(held["n_features"]), int(held["classes"])
            *self._before, self._classifier = held["steps"]
            sklearn_file.check_trees(self._classifier, self.n_features)
            self._require_columns()
            if hasattr(self._classifier, "n_jobs"):
                self._classifier.n_jobs = None  # with more, the trees' shares are added up in whatever order they come
            self._payload = payload
            self._threads = threads
            self._pools = ThreadpoolController().select(user_api="openmp")
            self.predict(np.zeros((1, self.n_features), np.float32))
        except ModelPayloadInvalid:
            raise
        except Exception as error:  # steps with an attribute too few or too many fail in as many ways
            raise ModelPayloadInvalid(
                f"the steps of this scikit-learn model do not work ({type(error).__name__}: {error})"
            ) from error
        self.memory_bytes = int(len(payload) * MEMORY_PER_FILE_BYTE)

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        """Return the model in `payload`: see `sklearn_file` for what is refused."""
        return cls(payload, threads=threads)

    @classmethod
    def from_steps(cls, steps: Sequence[Any], n_features: int, classes: int, *, threads: int = 1) -> Self:
        """Return a model of fitted steps. Raises ModelPayloadInvalid when a type in them is not allowed."""
        held = {"n_features": n_features, "classes": classes, "steps": list(steps)}
        return cls(sklearn_file.write(held), threads=threads)

    def predict(self, matrix: Matrix) -> Scores:
        check_matrix(matrix, self.n_features)
        if not len(matrix):
            return np.empty(0 if self.classes == 1 else (0, self.classes))
        with self._pools.limit(limits=self._threads):
            return scores_of(self._classifier, prepared(self._before, matrix), self.classes)

    def dump(self) -> bytes:
        return self._payload

    def _require_columns(self) -> None:
        known = self._classifier.classes_.tolist()
        if known != [0, 1] if self.classes == 1 else not set(known) <= set(range(self.classes)):
            raise ModelPayloadInvalid(
                f"this scikit-learn model knows the classes {json.dumps(known)}, not its stream's"
            )


def prepared(steps: Sequence[Any], matrix: Matrix) -> NDArray[np.float64]:
    """Return what the fitted steps make of the matrix."""
    rows = matrix.astype(np.float64)
    for step in steps:
        rows = step.transform(rows)
    return rows


def scores_of(classifier: Any, rows: NDArray[np.float64], classes: int) -> Scores:
    """Return the scores of one or more rows that were prepared, as `Model.predict` does."""
    likely = (
        _logistic(classifier, rows) if isinstance(classifier, LogisticRegression) else classifier.predict_proba(rows)
    )
    if classes == 1:
        return np.ascontiguousarray(likely[:, 1])
    scores = np.zeros((len(rows), classes))
    scores[:, classifier.classes_] = likely
    return scores


def _logistic(classifier: LogisticRegression, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what `predict_proba` does, row by row the same in any batch, which the library's matrix product is not."""
    products = [(prepared * weights).sum(axis=1) for weights in classifier.coef_]
    margins = np.stack(products, axis=1) + classifier.intercept_
    if margins.shape[1] == 1:
        positive = expit(margins[:, 0])
        return np.stack([1.0 - positive, positive], axis=1)
    return np.asarray(softmax(margins, axis=1))
