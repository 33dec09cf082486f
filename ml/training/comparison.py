"""Whether a candidate is better than the champion on the same rows, or only lucky: a difference and its interval.

The events of an entity may depend on one another in any way, so an entity counts as one (a cluster). The area under
the ROC curve: Obuchowski 1997 (Biometrics 53:567), which is DeLong, DeLong and Clarke-Pearson 1988 where every entity
has one event. Means over rows: the jackknife over entities (MacKinnon, Nielsen and Webb 2023, J. Econometrics 232:272),
which is the paired t interval there, and holds better than other cluster-robust variances where a few entities have
most events. What moves all entities at once, like the weather of a day, is not in the interval.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ml.errors import ModelError
from ml.evaluation.tally import Scoring
from ml.models.protocol import Scores
from ml.training.losses import brier_scores, hits, log_losses
from ml.training.table import Table

_LEAST_REST: Final = 1e-9  # of the weight, that is not one entity's

Metric = Literal["roc_auc", "accuracy", "log_loss", "brier"]
Floats = NDArray[np.float64]


class NotComparable(ModelError):
    """Two models cannot be compared by this metric on these rows; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The figures of both models, and `value`, the candidate's minus the champion's.

    `low` and `high` are the ends of its interval, at confidence 1 - `alpha`; None when there are too few entities to
    tell, or nobody knows which events are of one. `entities` is how many of equally many events they are worth, of the
    rarer class where that matters.
    """

    metric: Metric
    candidate: float
    champion: float
    value: float
    low: float | None
    high: float | None
    alpha: float
    entities: float
    entities_known: bool = True

    @property
    def gain(self) -> float:
        """How much better the candidate is: above 0 when it is better, whichever way the metric points."""
        return -self.value if lower_is_better(self.metric) else self.value

    @property
    def surely_better(self) -> bool:
        """Whether the interval lies wholly on the better side of 0."""
        worst = self.high if lower_is_better(self.metric) else self.low
        return worst is not None and (worst < 0 if lower_is_better(self.metric) else worst > 0)


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A figure of both models, the variance of their difference, and the degrees of freedom of that variance."""

    candidate: float
    champion: float
    variance: float
    freedom: float


def lower_is_better(metric: Metric) -> bool:
    """Return whether the metric is a loss."""
    return metric in ("log_loss", "brier")


def compare(
    metric: Metric, candidate: Scores, champion: Scores, table: Table, scoring: Scoring, alpha: float = 0.05
) -> Difference:
    """Return how the scores of two models, both for the n rows of `table`, differ in `metric`.

    The interval is that of Student's t with one degree of freedom less than the entities are worth. Rows weigh as they
    do in the table; those of weight 0 do not count. Raises NotComparable. Costs 0.3 µs a row, of ROC AUC 1.3 µs.
    """
    if scoring.task == "multiclass" and metric == "roc_auc":
        raise NotComparable("several classes have no one ROC AUC")
    if scoring.task == "anomaly" and lower_is_better(metric):
        raise NotComparable(f"an anomaly score is no probability, so it has no {metric}")
    counts = table.weights > 0
    rows = table.rows(counts)
    if not len(rows):
        raise NotComparable("there is no row to compare on")
    both = np.stack([candidate[counts], champion[counts]]).astype(np.float64)
    estimate = _areas(both, rows) if metric == "roc_auc" else _means(metric, both, rows, scoring)
    value = estimate.candidate - estimate.champion
    half = _half_width(estimate, alpha) if table.entities_known else None
    return Difference(
        metric=metric,
        candidate=estimate.candidate,
        champion=estimate.champion,
        value=value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        alpha=alpha,
        entities=estimate.freedom + 1,
        entities_known=table.entities_known,
    )


def _half_width(estimate: _Estimate, alpha: float) -> float | None:
    """Return half the interval's width; below one degree of freedom an interval would say nothing."""
    if estimate.freedom < 1:
        return None
    return float(special.stdtrit(estimate.freedom, 1 - alpha / 2)) * math.sqrt(estimate.variance)


def _means(metric: Metric, both: Floats, table: Table, scoring: Scoring) -> _Estimate:
    """D = Σ w d / Σ w over rows; without entity k, which has the share s_k of the weight, it is φ_k / (1 - s_k) less.

    There φ_k = Σ w (d - D) / Σ w over its rows. V = (G - 1)/G Σ (φ_k / (1 - s_k))², over G entities.
    """
    candidate, champion = (_row_values(metric, scores, table, scoring) for scores in both)
    shares = table.weights / table.weights.sum()
    difference = candidate - champion
    clusters = _clusters(table)
    influence = np.bincount(clusters, shares * (difference - shares @ difference))
    without = influence / np.maximum(1.0 - np.bincount(clusters, shares), _LEAST_REST)
    variance = float(without @ without) / _unbiased(len(influence))
    return _Estimate(float(shares @ candidate), float(shares @ champion), variance, _worth(shares, clusters) - 1)


def _row_values(metric: Metric, scores: Floats, table: Table, scoring: Scoring) -> Floats:
    if metric == "accuracy":
        return hits(scores, table.labels, scoring)
    return (log_losses if metric == "log_loss" else brier_scores)(scores, table.labels)


def _areas(both: Floats, table: Table) -> _Estimate:
    """Obuchowski's V = S10/M + S01/N + 2 S11/(M N), of the difference of two areas, with weights.

    An entity's part is `above` of its positives and `below` of its negatives; each sum of squares is made unbiased by
    the number of entities that have such rows.
    """
    positive = table.labels == 1
    if positive.all() or not positive.any():
        raise NotComparable("all rows are of one class, so there is no ROC AUC to compare")
    clusters = _clusters(table)
    shares = np.where(positive, table.weights, 0.0), np.where(positive, 0.0, table.weights)
    shares = shares[0] / shares[0].sum(), shares[1] / shares[1].sum()
    candidate, champion = (_placements(scores, positive, table.weights) for scores in both)
    areas = float(shares[0] @ candidate), float(shares[0] @ champion)
    centred = candidate - champion - (areas[0] - areas[1])
    above, below = (np.bincount(clusters, share * centred) for share in shares)
    with_positives, with_negatives = (len(np.unique(clusters[rows])) for rows in (positive, ~positive))
    variance = (
        _unbiased(with_positives) * above @ above
        + _unbiased(with_negatives) * below @ below
        + 2 * _unbiased(len(above)) * above @ below
    )
    worth = min(_worth(share, clusters) for share in shares)
    return _Estimate(*areas, float(variance), worth - 1)


def _placements(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return, for each row, the share of the other class that it is on the right side of; ties count half."""
    placed = np.empty(len(scores))
    for own, sign in ((positive, 1.0), (~positive, -1.0)):
        others = sign * scores[~own]
        order = np.argsort(others)
        passed = np.append(0.0, np.cumsum(weights[~own][order]))
        mine, others = sign * scores[own], others[order]
        sides = passed[np.searchsorted(others, mine)] + passed[np.searchsorted(others, mine, side="right")]
        placed[own] = sides / (2 * passed[-1])
    return placed


def _clusters(table: Table) -> NDArray[np.intp]:
    """Return the entities as numbers from 0 on, without gaps."""
    return np.unique(table.entities, return_inverse=True)[1]


def _worth(shares: Floats, clusters: NDArray[np.intp]) -> float:
    """Return how many entities of equal weight these are worth: 1 / Σ share_k² (Kish, Survey Sampling, 1965)."""
    by_cluster = np.bincount(clusters, shares)
    return 1.0 / float(by_cluster @ by_cluster)


def _unbiased(clusters: int) -> float:
    return clusters / max(clusters - 1, 1)
