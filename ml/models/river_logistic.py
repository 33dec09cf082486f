"""river's logistic regression behind its standard scaler: learns row by row, scores by columns.

The one idea: a missing value is left out of the row that river gets. Then neither the scaler nor the weights
learn from it, and in a score it counts as the feature's mean so far (scaled value 0).
"""

import pickle
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from river.linear_model import LogisticRegression
from river.multiclass import OneVsRestClassifier
from river.optim import SGD
from river.preprocessing import StandardScaler

from ml.errors import ModelInputInvalid, ModelPayloadInvalid
from ml.models import unpickling
from ml.models.protocol import Labels, Matrix, Scores, check_matrix

_HEADER = b"penstock river-logistic 1\n"
_CLASSES_IN_PICKLE = frozenset(
    {
        ("builtins", "float"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("river._river_rust.vectordict", "VectorDict"),
        ("river.linear_model.log_reg", "LogisticRegression"),
        ("river.multiclass.ovr", "OneVsRestClassifier"),
        ("river.optim.initializers", "Zeros"),
        ("river.optim.losses", "Log"),
        ("river.optim.schedulers", "Constant"),
        ("river.optim.sgd", "SGD"),
        ("river.preprocessing.scale", "StandardScaler"),
    }
)


class RiverLogisticModel:
    """`StandardScaler | LogisticRegression`, and for several classes one of these regressions for each.

    One-vs-rest rather than river's SoftmaxRegression, which has no intercept, takes no weights, and needs
    `functools.partial` and `copy.deepcopy` in its pickle. As in river, a class never seen scores 0; before anything
    was learned all classes score the same. Scores are float64 and equal river's to 1e-12.

    `learning_rate` is that of stochastic gradient descent; the intercept keeps river's 0.01. Nothing is drawn at random.
    """

    algorithm: ClassVar[str] = "river-logistic"

    def __init__(self, n_features: int, classes: int = 1, *, learning_rate: float = 0.01) -> None:
        self.n_features = n_features
        self.classes = classes
        self._scaler = StandardScaler()
        regression = LogisticRegression(SGD(learning_rate))
        self._classifier = regression if classes == 1 else OneVsRestClassifier(regression)

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        """Return the model in `payload`. `threads` changes nothing: scoring takes one thread."""
        if not payload.startswith(_HEADER):
            raise ModelPayloadInvalid(f"this is not a river-logistic model: it does not begin with {_HEADER!r}")
        state = unpickling.loads(payload[len(_HEADER) :], _CLASSES_IN_PICKLE)
