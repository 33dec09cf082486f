"""From counts to figures. A figure whose denominator is 0 is None."""

import msgspec
import numpy as np

from ml.evaluation.histogram import Histogram, Ints


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one variant in one window. VariantPerformance in schemas/events.py tells what each means."""

    n: int
    assumed: int
    revised: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    specificity: float | None
    false_positive_rate: float | None
    false_negative_rate: float | None
    roc_auc: float | None
    log_loss: float | None
    calibration_error: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    label_delay_p50_ms: float | None
    label_delay_p95_ms: float | None


def decisions(confusion: Ints) -> dict[str, float | None]:
    """Return the figures of a confusion matrix, shape (K, K), rows true and columns predicted.

    Two classes: figures of class 1. More: means over the classes that occur, each against the rest (macro averages);
    a class that occurs and is never predicted has precision 0. Costs 30 to 60 µs.
    """
    total = int(confusion.sum())
    accuracy = ratio(int(np.trace(confusion)), total)
    if len(confusion) == 2:
        return {"accuracy": accuracy} | _against_the_rest(confusion, 1)
    each = [_against_the_rest(confusion, label) for label in np.flatnonzero(confusion.sum(axis=1)).tolist()]
    for one in each:
        one["precision"] = one["precision"] or 0.0
    names = _against_the_rest(confusion, 0)
    return {"accuracy": accuracy} | {name: mean([one[name] for one in each]) for name in names}


def _against_the_rest(confusion: Ints, label: int) -> dict[str, float | None]:
    hits = int(confusion[label, label])
    misses = int(confusion[label].sum()) - hits
    false_alarms = int(confusion[:, label].sum()) - hits
    passes = int(confusion.sum()) - hits - misses - false_alarms
    return {
        "precision": ratio(hits, hits + false_alarms),
        "recall": ratio(hits, hits + misses),
        "f1": ratio(2 * hits, 2 * hits + false_alarms + misses),
        "specificity": ratio(passes, passes + false_alarms),
        "false_positive_rate": ratio(false_alarms, passes + false_alarms),
        "false_negative_rate": ratio(misses, hits + misses),
    }


def roc_auc(scores: Histogram) -> float | None:
    """Return the area under the ROC curve of scores counted in two columns, negatives and positives.

    It is the share of (positive, negative) pairs in the right order, ties counting half (Mann and Whitney 1947). Only
    pairs within one bin can be wrong: the error is at most ½ Σ p·n / (P·N) over the bins, and 0 while every distinct
    score has a bin of its own.
    """
    _, counts = scores.counted()
    negatives, positives = counts[:, 0], counts[:, 1]
    total = int(negatives.sum()) * int(positives.sum())
    below = np.cumsum(negatives) - negatives
    return ratio(int((positives * (2 * below + negatives)).sum()), 2 * total)


def calibration_error(calibration: Ints, scale: int) -> float | None:
    """Return the expected calibration error of counts, shape (3, bins): events, hits, and summed confidence x `scale`.

    Σ over the bins of |hits - confidence|, divided by the events (Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017).
    """
    events, hits, confidence = calibration
    return ratio(int(np.abs(hits * scale - confidence).sum()), int(events.sum()) * scale)


def ratio(part: int, whole: int) -> float | None:
    """Return the quotient, or None when `whole` is 0."""
    return part / whole if whole else None


def mean(values: list[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None when there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
