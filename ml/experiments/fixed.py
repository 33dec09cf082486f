"""Tests with a fixed horizon, for comparison: each holds for one look, at a time chosen before, of independent events.

Arguments are counts and sums of two variants. Without variance, or without samples of both, the answer is None.
"""

import math

from scipy import special

from ml.evaluation.histogram import Floats, Ints


def two_proportion_z(hits: Floats, n: Floats) -> float | None:
    """Return the two-sided p-value that both shares `hits` of `n`, shape (2,), are the same, with pooled variance."""
    if not n.all():
        return None
    share = hits.sum() / n.sum()
    variance = share * (1 - share) * (1 / n).sum()
    if variance <= 0:
        return None
    z = abs(hits[1] / n[1] - hits[0] / n[0]) / math.sqrt(variance)
    return float(2 * special.ndtr(-z))


def welch(n: Floats, sums: Floats, squares: Floats) -> float | None:
    """Return the two-sided p-value that both means are the same, by Welch's t-test (1947).

    doi:10.1093/biomet/34.1-2.28. Each has shape (2,): counts, sums, and sums of squares.
    """
    if n.min() < 2:
        return None
    means = sums / n
    variances = (squares - sums * means) / (n - 1) / n
    total = variances.sum()
    if total <= 0:
        return None
    freedom = total**2 / (variances**2 / (n - 1)).sum()
    return float(2 * special.stdtr(freedom, -abs(means[1] - means[0]) / math.sqrt(total)))


def chi_square(labels: Ints) -> float | None:
    """Return the p-value of Pearson's χ² (1900) that both variants predict each label as rightly.

    `labels` (2, classes, 2) are events by label, wrongly and rightly predicted; so it compares the cells of two
    confusion matrices, and sees it, too, when the variants met other labels. Cells without events count for nothing.
    """
    cells = labels.reshape(2, -1)
    cells = cells[:, cells.sum(axis=0) > 0]
    rows = cells.sum(axis=1, keepdims=True)
    if cells.shape[1] < 2 or not rows.all():
        return None
    expected = rows * cells.sum(axis=0, keepdims=True) / cells.sum()
    statistic = ((cells - expected) ** 2 / expected).sum()
    return float(special.chdtrc(cells.shape[1] - 1, statistic))
