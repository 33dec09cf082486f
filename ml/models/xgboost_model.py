"""Gradient-boosted trees by XGBoost (Chen and Guestrin, 2016, doi:10.1145/2939672.2939785)."""

from typing import Any, ClassVar, Self

import numpy as np
import xgboost
from xgboost.core import XGBoostError

from ml.errors import ModelPayloadInvalid
from ml.models.protocol import Matrix, Scores, check_matrix
from ml.models.xgboost_call import dense_scores
from ml.models.xgboost_file import XGBoostFile, inspect

# Resident memory of loaded boosters was 2.06 to 2.07 times their UBJ size (0.4 to 11 MB; binary and 3 classes).
# While loading it is up to 3.9 times for a moment.
MEMORY_PER_FILE_BYTE = 2.1
_COPY_BYTES = 1024 * 1024


class XGBoostModel:
    """A booster with objective `binary:logistic` or `multi:softprob`, saved as UBJ. Scores are float32.

    Every tree counts: a model stopped early is to be sliced to its best iteration before it is saved.
    `predict` lets other Python threads run meanwhile. With 100 trees of depth 6 on one thread it takes about 0.1 ms
    for one row, 0.6 ms for 256, 7 ms for 4096.
    """

    algorithm: ClassVar[str] = "xgboost"

    def __init__(self, payload: bytes, *, threads: int = 1) -> None:
        self._file: XGBoostFile = inspect(payload)
        self._booster = open_booster(payload, threads)
        self.memory_bytes = int(len(payload) * MEMORY_PER_FILE_BYTE)

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        """Return the model in a UBJ file. A damaged one is refused here: XGBoost might end the process on it."""
        return cls(payload, threads=threads)

    @classmethod
    def from_booster(cls, booster: Any, *, threads: int = 1) -> Self:
        """Return a model of a trained `xgboost.Booster`: a copy, without its training caches."""
        return cls(bytes(booster.save_raw("ubj")), threads=threads)

    @property
    def n_features(self) -> int:
        return self._file.n_features

    @property
    def classes(self) -> int:
        return self._file.classes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The column names it was trained with, in order; empty when it was trained without."""
        return self._file.feature_names

    def predict(self, matrix: Matrix) -> Scores:
        check_matrix(matrix, self.n_features)
        return booster_scores(self._booster, matrix, self.classes)

    def contributions(self, matrix: Matrix) -> Scores:
        """Return exact SHAP values: see `Explains.contributions` and `booster_contributions`."""
        check_matrix(matrix, self.n_features)
        return booster_contributions(self._booster, matrix, self.classes)

    def dump(self) -> bytes:
        return bytes(self._booster.save_raw("ubj"))


def booster_scores(booster: xgboost.Booster, matrix: Matrix, classes: int) -> Scores:
    scores: Scores = dense_scores(booster, matrix)
    return scores if classes == 1 else scores.reshape(len(matrix), classes)


def booster_contributions(booster: xgboost.Booster, matrix: Matrix, classes: int) -> Scores:
    """Return XGBoost's SHAP values, float32: (n, features + 1), or (n, classes, features + 1).

    TreeSHAP (Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9), exact for the trees: where a feature is
    absent both branches count, by the training weight that went there. Up to ten rows and 100 trees of depth 6 take
    about 0.5 ms.
    """
    rows = xgboost.DMatrix(matrix, missing=np.nan, nthread=1)
    values: Scores = booster.predict(rows, pred_contribs=True, validate_features=False)
    shape = (len(matrix), matrix.shape[1] + 1) if classes == 1 else (len(matrix), classes, matrix.shape[1] + 1)
    return values.reshape(shape)


def open_booster(payload: bytes, threads: int) -> xgboost.Booster:
    """Return the booster in a UBJ file that was inspected. Raises ModelPayloadInvalid when XGBoost refuses it."""
    try:
        return xgboost.Booster({"nthread": threads}, model_file=_copied(payload))
    except (XGBoostError, UnicodeDecodeError) as error:  # the latter when its message repeats damaged text
        reason = str(error).partition("Stack trace")[0].strip()
        raise ModelPayloadInvalid(f"XGBoost cannot load this model: {reason}") from error


def _copied(payload: bytes) -> bytearray:
    """Return a copy made piece by piece: copying 50 MB in one go would hold the interpreter for 25 ms and more."""
    copy = bytearray(len(payload))
    target, source = memoryview(copy), memoryview(payload)
    for start in range(0, len(payload), _COPY_BYTES):
        target[start : start + _COPY_BYTES] = source[start : start + _COPY_BYTES]
    return copy
