"""Fed one sample at a time, each river learner gives the figures of river's own evaluation, to the last digit."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from river import datasets, evaluate, forest, linear_model, metrics, preprocessing, tree

from ml.models.protocol import Labels, Matrix
from ml.models.registry import learner_type

# river's forest draws from the features sorted by name, and a linear model adds them up in the order of the dict.
RIVER: dict[str, tuple[Callable[[], Any], dict[str, Any], Callable[[Any], list[str]]]] = {
    "river-logistic": (
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        {},
        list,
    ),
    "river-hoeffding-tree": (tree.HoeffdingTreeClassifier, {}, list),
    "river-adaptive-forest": (lambda: forest.ARFClassifier(seed=7), {"seed": 7}, sorted),
}


@cache
def _phishing() -> list[tuple[dict[str, float], bool]]:
    return list(datasets.Phishing())


def _columns(names: list[str]) -> tuple[Matrix, Labels]:
    rows, labels = zip(*_phishing(), strict=True)
    matrix = np.array([[row[name] for name in names] for row in rows])
    assert (matrix.astype(np.float32) == matrix).all(), "the comparison would be of other numbers"
    return matrix.astype(np.float32), np.array(labels, np.int64)


@cache
def _scores(algorithm: str) -> list[tuple[bool, float]]:
    """Return label and score of each sample, except what river does not score: the first one, for a tree."""
    _, parameters, order = RIVER[algorithm]
    matrix, labels = _columns(order(_phishing()[0][0]))
    learner, scored = learner_type(algorithm)(matrix.shape[1], **parameters), []
    for row in range(len(labels)):
        alone = slice(row, row + 1)
        scored.append((bool(labels[row]), float(learner.predict(matrix[alone])[0])))
        learner.learn(matrix[alone], labels[alone])
    return scored if algorithm == "river-logistic" else scored[1:]


@pytest.mark.parametrize("metric", [metrics.Accuracy, metrics.ROCAUC, metrics.LogLoss])
@pytest.mark.parametrize("algorithm", RIVER)
def test_the_figure_is_that_of_progressive_val_score(algorithm: str, metric: type[Any]) -> None:
    expected = evaluate.progressive_val_score(iter(_phishing()), RIVER[algorithm][0](), metric())
    own = metric()
    for label, score in _scores(algorithm):
        own.update(label, score > 0.5 if own.requires_labels else {True: score, False: 1 - score})
    assert own.get() == expected.get()
    assert 0.2 < own.get() < 1, "the figure says nothing"
