"""How two variants differ: means per event compared within epochs, with a variance from bucket to bucket."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.histogram import Floats
from ml.experiments.outcomes import SCALE, Stratum

Part = tuple[Stratum, NDArray[np.intp]]
"""An epoch's sums, and its bucket table, shape (BUCKETS,)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A challenger's mean minus the champion's, and its variance; both in shares of the largest value.

    `spread` is the variance from event to event.
    """

    difference: float
    variance: float
    spread: float


def estimates(parts: Sequence[Part], challenger: int) -> list[Estimate]:
    """Return the difference in each metric; nothing where no epoch has samples of both variants.

    D = Σ ω_k (x̄_1k - x̄_0k) over epochs k, with ω_k in proportion to n_0k n_1k / (n_0k + n_1k), the weights of Mantel
    and Haenszel (1959): a mean that moves with time, while the shares do, is no difference. A bucket's influence is
    φ_b = Σ_k ± ω_k (x_bk - n_bk x̄_k) / n_k over all epochs and both variants that it was in, and V = m/(m - 1) Σ φ_b²
    over the m buckets with samples: so events of one bucket may depend on one another in any way (Liang and Zeger 1986,
    doi:10.1093/biomet/73.1.13). V and the spread are at least what they would be if one event in all had been the worst
    and the others the best: that none was seen yet does not prove that there are none. About 0.1 ms for each epoch.
    """
    used = [part for part in parts if part[0].totals[0, 0] > 0 and part[0].totals[challenger, 0] > 0]
    if not used:
        return []
    metrics = len(used[0][0].cells) - 1
    totals = np.array([stratum.totals[[0, challenger]] for stratum, _ in used], dtype=np.float64)
    n, sums, squares = totals[:, :, :1], totals[:, :, 1 : 1 + metrics] / SCALE, totals[:, :, 1 + metrics :] / SCALE
    means = sums / n
    weights = n.prod(axis=1) / n.sum(axis=1)
    weighed = weights / weights.sum()
    influence, m = _influence(used, challenger, weighed[:, :, np.newaxis] * np.array([[-1.0], [1.0]]) / n, means)
    least = 1.0 / float(n.sum())
    variances = np.maximum((influence**2).sum(axis=1) * m / max(m - 1, 1), least / float(weights.sum()))
    spreads = (squares - sums * means).sum(axis=(0, 1)) / max(float((n - 1).sum()), 1.0)
    differences = (weighed * (means[:, 1] - means[:, 0])).sum(axis=0)
    columns = zip(differences.tolist(), variances.tolist(), np.maximum(spreads, least).tolist(), strict=True)
    return [Estimate(*each) for each in columns]


def _influence(used: Sequence[Part], challenger: int, slopes: Floats, means: Floats) -> tuple[Floats, int]:
    """Return the influence of each bucket on each metric, shape (J, BUCKETS), and how many buckets have samples.

    `slopes` (epochs, 2, 1) say what a unit adds to the difference, `means` (epochs, 2, J) what it is compared with.
    """
    metrics, buckets = means.shape[2], used[0][0].cells.shape[1]
    influence = np.zeros((metrics, buckets))
    seen = np.zeros(buckets, dtype=np.bool_)
    for k, (stratum, table) in enumerate(used):
        slope, level = np.zeros(len(stratum.totals)), np.zeros((metrics, len(stratum.totals)))
        slope[[0, challenger]], level[:, [0, challenger]] = slopes[k, :, 0], means[k].T
        each = slope[table]
        counted = stratum.cells[0] * each
        for metric in range(metrics):
            influence[metric] += stratum.cells[1 + metric] * (each / SCALE) - counted * level[metric][table]
        seen |= counted != 0
    return influence, int(np.count_nonzero(seen))


def shared_unequally(parts: Sequence[Part], challenger: int) -> Estimate | None:
    """Return how much more samples a bucket of the challenger has than one of the champion, as a share of the mean.

    The test of `estimate`, on the number of samples of a bucket instead of their mean: a sample-ratio test that does
    not take the events of an entity to be independent. Each bucket of a table counts, whether it has samples or not.
    Influence is around the mean of both variants, as it is when there is no difference, so that a variant without any
    sample can be told. V is at least that of independent events. None where no epoch has buckets of both.
    """
    influence, difference, weight = np.zeros(0), 0.0, 0.0
    for stratum, table in parts:
        buckets = np.bincount(table, minlength=len(stratum.totals))[[0, challenger]].astype(np.float64)
        n = stratum.totals[[0, challenger], 0].astype(np.float64)
        if not buckets.all() or not n.any():
            continue
        level = n.sum() / buckets.sum()
        expected = level * buckets
        epoch_weight = expected.prod() / expected.sum()
        slopes = np.zeros(len(stratum.totals))
        slopes[[0, challenger]] = epoch_weight * np.array([-1.0, 1.0]) / expected
        if not len(influence):
            influence = np.zeros(len(table))
        influence += slopes[table] * (stratum.cells[0] - level)
        difference += epoch_weight * float(n[1] / expected[1] - n[0] / expected[0])
        weight += epoch_weight
    if not weight:
        return None
    variance = max(float(influence @ influence), weight) / weight**2
    return Estimate(difference / weight, variance, 1.0)
