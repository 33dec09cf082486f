"""What every model is, whatever library it comes from.

A matrix is float32, C-contiguous, shape (n, n_features); NaN is a missing value; infinities are filtered out
before. Scores are floating point: shape (n,) when `classes` is 1 (the probability of class 1, or an
anomaly score), else (n, classes), each row the probabilities of the classes in order. Models are found by name in the
entry-point group `penstock.models` (see `registry`), and pass the suite in tests/contract/test_models.py.
"""

from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelInputInvalid

Matrix = NDArray[np.float32]
Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6  # of what is to count at all: sums of such weights, and their ratios, stay exact


@runtime_checkable
class Model(Protocol):
    """Something that scores a matrix, and whose whole state fits in bytes.

    `algorithm` is the name it is found by, `classes` the number of score columns. `memory_bytes` estimates
    what the loaded model occupies, from measurements; loading may need more for a moment. After learning it may cost
    as much as `dump`; after `load` or `dump` it costs nothing.
    """

    algorithm: ClassVar[str]

    @property
    def n_features(self) -> int: ...

    @property
    def classes(self) -> int: ...

    @property
    def memory_bytes(self) -> int: ...

    def predict(self, matrix: Matrix) -> Scores:
        """Score each row; a row's score does not depend on the rows around it. The matrix is never changed.

        Raises ModelInputInvalid when the matrix has another shape or dtype. May be called from several threads.
        """

    def dump(self) -> bytes:
        """Return the whole model as bytes; the same model gives the same bytes."""

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        """Return the model in `payload`, which predicts with `threads` threads where the library can.

        Raises ModelPayloadInvalid when the payload is damaged or something else. That is no defence
        against an attacker: check hash and signature first.
        """


@runtime_checkable
class Learner(Model, Protocol):
    """A model that goes on learning.

    Made from the numbers of features and classes and the algorithm's own hyper-parameters, by keyword: one that it
    does not know, or a value that it cannot use, raises ModelParametersInvalid. `heavy` says that learning is
    so slow that it wants a process of its own, `by_row` that rows are learnt one after the other, so that it does not
    matter which of them come together in a batch.
    """

    heavy: ClassVar[bool]
    by_row: ClassVar[bool]

    def __init__(self, n_features: int, classes: int = 1, **parameters: Any) -> None: ...

    def learn(self, matrix: Matrix, labels: Labels, weights: NDArray[np.float64] | None = None) -> Scores:
        """Learn from the rows in their order. Return what each row scored just before something was learnt from it.

        `labels` are class indices of shape (n,), `weights` (default 1), of shape (n,), are 0 or between
        LEAST_WEIGHT and MOST_WEIGHT.
        The scores are as from `predict`. Not to be called together with any other method.
        Raises ModelInputInvalid, with nothing learned, when matrix, labels and weights do not fit.
        """

    def retune(self, **parameters: Any) -> None:
        """Use these hyper-parameters from now on. Raises ModelParametersInvalid when one cannot be changed to that."""

    def canonical(self) -> bytes:
        """Return bytes that two models share exactly when they are equal, whatever they went through before.

        Equal means that every number that matters is; unlike `dump`, it is blind to how objects lie in memory.
        """


@runtime_checkable
class Explains(Protocol):
    """A model that knows what each feature contributes to a score; `ml.explain` finds that out for the others."""

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the contributions to each row's log-odds: shape (n, features + 1), the last one the base value.

        They add up to the logit of the score. With several classes the shape is (n, classes, features + 1), and
        softmax of the sums gives the scores. Raises ModelInputInvalid as `predict` does; not to be called from
        several threads.
        """


def check_matrix(matrix: Matrix, n_features: int) -> None:
    """Raise ModelInputInvalid unless `matrix` is float32 of shape (n, n_features)."""
    if matrix.dtype != np.float32:
        raise ModelInputInvalid(f"the matrix is {matrix.dtype}, and the model takes float32")
    if matrix.ndim != 2 or matrix.shape[1] != n_features:
        raise ModelInputInvalid(f"the matrix has shape {matrix.shape}, and the model takes (n, {n_features})")


def check_learnable(
    matrix: Matrix, labels: Labels, weights: NDArray[np.float64] | None, n_features: int, classes: int
) -> NDArray[np.float64]:
    """Return the weights, 1 for each row when there are none. Raise ModelInputInvalid when something does not fit."""
    check_matrix(matrix, n_features)
    rows, outcomes = len(matrix), max(classes, 2)
    if np.isinf(matrix).any():
        raise ModelInputInvalid("the matrix holds an infinite value, which would spoil a running mean for good")
    if labels.shape != (rows,) or labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < outcomes)).all():
        raise ModelInputInvalid(f"labels must be {rows} class indices from 0 to {outcomes - 1}")
    if weights is None:
        return np.ones(rows)
    if weights.shape != (rows,) or not all(map(is_weight, set(weights.tolist()))):
        raise ModelInputInvalid(f"weights must be {rows} numbers that are 0 or from {LEAST_WEIGHT} to {MOST_WEIGHT}")
    return weights


def is_weight(weight: float) -> bool:
    """Whether a row may weigh this."""
    return weight == 0 or LEAST_WEIGHT <= weight <= MOST_WEIGHT


def known_values(matrix: Matrix) -> list[dict[int, float]]:
    """Return each row as river takes it: a dict by column, without the missing values. About 0.6 µs for 10 columns."""
    columns = range(matrix.shape[1])
    if not np.isnan(matrix).any():
        return [dict(zip(columns, row, strict=True)) for row in matrix.tolist()]
    return [{column: value for column, value in enumerate(row) if value == value} for row in matrix.tolist()]
