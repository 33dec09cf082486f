"""What a model's scores are worth, against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from ml.training.measure import Measures, measure
from tests.tables import ANOMALY, BINARY, THREE, table_of, three_classes


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(6)


def binary(random: np.random.Generator, n: int = 3000) -> tuple[np.ndarray, Measures, dict[str, np.ndarray]]:
    """Return scores with many ties, what was measured of them, and the arguments of scikit-learn."""
    labels = (random.random(n) < 0.2).astype(int)
    scores = np.round(np.clip(random.beta(2, 5, n) + 0.25 * labels, 0.01, 0.99), 2)
    weights = random.choice([0.0, 0.5, 1.0, 3.0], n)
    measured = measure(scores, table_of(labels, weights=weights), replace(BINARY, threshold=0.4))
    return scores, measured, {"y_true": labels, "sample_weight": weights}


def test_figures_of_two_classes_are_those_of_scikit_learn(random: np.random.Generator) -> None:
    scores, measured, true = binary(random)
    predicted = (scores >= 0.4).astype(int)
    assert measured.roc_auc == pytest.approx(metrics.roc_auc_score(y_score=scores, **true))
    assert measured.pr_auc == pytest.approx(metrics.average_precision_score(y_score=scores, **true))
    assert measured.accuracy == pytest.approx(metrics.accuracy_score(y_pred=predicted, **true))
    assert measured.precision == pytest.approx(metrics.precision_score(y_pred=predicted, **true))
    assert measured.recall == pytest.approx(metrics.recall_score(y_pred=predicted, **true))
    assert measured.f1 == pytest.approx(metrics.f1_score(y_pred=predicted, **true))
    assert measured.specificity == pytest.approx(metrics.recall_score(y_pred=predicted, pos_label=0, **true))
    assert measured.log_loss == pytest.approx(
        metrics.log_loss(true["y_true"], scores, sample_weight=true["sample_weight"])
    )
    assert measured.brier == pytest.approx(metrics.brier_score_loss(y_proba=scores, **true))
    assert np.allclose(measured.confusion, metrics.confusion_matrix(y_pred=predicted, **true))
    assert measured.false_positive_rate == pytest.approx(1 - measured.specificity)
    assert measured.false_negative_rate == pytest.approx(1 - measured.recall)


def test_the_curve_is_a_part_of_scikit_learns_and_the_best_threshold_has_the_best_f1(
    random: np.random.Generator,
) -> None:
    scores, measured, true = binary(random)
    fpr, tpr, thresholds = metrics.roc_curve(y_score=scores, drop_intermediate=False, **true)
    known = {float(t): (float(x), float(y)) for x, y, t in zip(fpr, tpr, thresholds, strict=True)}
    assert len(measured.curve) > 30
    for point in measured.curve:
        assert (point.false_positive_rate, point.recall) == pytest.approx(known[point.threshold])
    assert (measured.curve[-1].recall, measured.curve[-1].false_positive_rate) == pytest.approx((1.0, 1.0))
    every = {t: metrics.f1_score(y_pred=(scores >= t).astype(int), **true) for t in np.unique(scores).tolist()}
    assert measured.best is not None
    assert measured.best.f1 == pytest.approx(max(every.values()))
    at_best = metrics.f1_score(y_pred=(scores >= measured.best.threshold).astype(int), **true)
    assert at_best == pytest.approx(measured.best.f1)
    assert measured.best.threshold not in every


def test_a_long_curve_has_at_most_200_points_that_follow_a_steep_beginning(random: np.random.Generator) -> None:
    labels = (np.arange(50_000) < 50).astype(int)
    scores = random.random(50_000) * 0.5 + 0.5 * labels
    curve = measure(scores, table_of(labels), BINARY).curve
    assert len(curve) <= 200
    assert sum(point.recall < 1 for point in curve) >= 45


def test_figures_of_several_classes_are_means_over_the_classes(random: np.random.Generator) -> None:
    scores, table = three_classes(random, 2000)
    measured = measure(scores, table, THREE)
    predicted = scores.argmax(axis=1)
    true = {"y_true": table.labels, "sample_weight": table.weights}
    macro = true | {"average": "macro"}
    assert measured.roc_auc == pytest.approx(metrics.roc_auc_score(y_score=scores, multi_class="ovr", **macro))
    assert measured.pr_auc == pytest.approx(
        np.mean([metrics.average_precision_score(table.labels == c, scores[:, c], sample_weight=table.weights)
                 for c in range(3)])
    )  # fmt: skip
    assert measured.precision == pytest.approx(metrics.precision_score(y_pred=predicted, **macro))
    assert measured.recall == pytest.approx(metrics.recall_score(y_pred=predicted, **macro))
    assert measured.f1 == pytest.approx(metrics.f1_score(y_pred=predicted, **macro))
    assert measured.accuracy == pytest.approx(metrics.accuracy_score(y_pred=predicted, **true))
    assert measured.log_loss == pytest.approx(
        metrics.log_loss(true["y_true"], scores, sample_weight=true["sample_weight"])
    )
    assert measured.brier == pytest.approx(metrics.brier_score_loss(y_proba=scores, scale_by_half=False, **true))
    assert np.allclose(measured.confusion, metrics.confusion_matrix(y_pred=predicted, **true))
    assert (measured.threshold, measured.curve, measured.best) == (None, (), None)


def test_calibration_says_how_often_a_confidence_came_true(random: np.random.Generator) -> None:
    confidences = random.random(200_000)
    table = table_of(random.random(len(confidences)) < confidences)
    honest, overconfident = measure(confidences, table, BINARY), measure(np.sqrt(confidences), table, BINARY)
    assert honest.calibration_error < 0.01
    assert overconfident.calibration_error == pytest.approx(2 / 3 - 1 / 2, abs=0.01)
    assert all(abs(each.confidence - each.share) < 0.02 for each in honest.calibration)
    assert sum(each.weight for each in honest.calibration) == len(table)
    assert measure(np.array([0.2, 0.2]), table_of([0, 1], weights=[3, 1]), BINARY).calibration_error == pytest.approx(
        0.05
    )


def test_a_row_that_weighs_twice_is_as_two_rows(random: np.random.Generator) -> None:
    scores, labels = random.random(300), random.integers(0, 2, 300)
    weights = random.integers(0, 4, 300)
    weighed = measure(scores, table_of(labels, weights=weights), BINARY)
    repeated = measure(np.repeat(scores, weights), table_of(np.repeat(labels, weights)), BINARY)
    assert weighed.metrics == pytest.approx(repeated.metrics)
    assert weighed.confusion == repeated.confusion
    assert weighed.best == repeated.best


def test_anomaly_scores_are_ranked_and_decided_but_are_no_probabilities() -> None:
    measured = measure(np.array([3.0, -1.0, 7.5, 0.1]), table_of([1, 0, 1, 0]), ANOMALY)
    assert measured.metrics == {
        "roc_auc": 1.0,
        "pr_auc": 1.0,
        "accuracy": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "specificity": 1.0,
        "false_positive_rate": 0.0,
        "false_negative_rate": 0.0,
    }
    assert (measured.log_loss, measured.brier, measured.calibration) == (None, None, ())


def test_what_cannot_be_said_of_one_class_is_left_out() -> None:
    measured = measure(np.array([0.2, 0.7]), table_of([0, 0]), BINARY)
    assert not measured.metrics.keys() & {"roc_auc", "pr_auc", "recall", "false_negative_rate"}
    assert measured.metrics["accuracy"] == 0.5
    assert (measured.curve, measured.best) == ((), None)


def test_rows_that_weigh_nothing_say_nothing() -> None:
    assert measure(np.array([0.2, 0.7]), table_of([0, 1], weights=[0, 0]), BINARY).metrics == {}
    assert measure(np.zeros(0), table_of([]), BINARY).metrics == {}


def test_scores_that_are_sure_and_wrong_lose_much_but_not_infinitely() -> None:
    measured = measure(np.array([0.0, 1.0], np.float32), table_of([1, 0]), BINARY)
    assert measured.log_loss == pytest.approx(-np.log(1e-15))
