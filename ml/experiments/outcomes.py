"""Samples as whole-number sums by epoch and bucket, so that any order and any cut into batches gives the same."""

import zlib
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.evaluation.histogram import Floats, Ints
from ml.evaluation.tally import Tally, TallyState
from ml.experiments.assignment import BUCKETS
from ml.experiments.rules import Metric, Outcomes, Rules

LEAST_PROBABILITY: Final = 1e-3  # of a label, in the log loss: no event costs more than 6.9, and variances exist
SCALE: Final = 2**30  # values from 0 to 1 are summed as whole multiples of 1/SCALE: exact to 5e-10 each
_PENDING: Final = 8192  # scores that wait before they are summed


def bounds(rules: Rules) -> Floats:
    """Return the largest value that one event can have, by metric, shape (J,)."""
    costs = max(rules.false_positive_cost, rules.false_negative_cost) or 1.0
    brier = 2.0 if rules.scoring.task == "multiclass" else 1.0
    largest = {"accuracy": 1.0, "brier": brier, "log_loss": -float(np.log(LEAST_PROBABILITY)), "cost": costs}
    return np.array([largest[metric] for metric in rules.metrics])


def values_of(rules: Rules, labels: Ints, scores: Floats) -> Floats:
    """Return each event's value of each metric as a share of the largest one (see `bounds`), shape (J, n)."""
    values = [_values(rules, metric, labels, scores) for metric in rules.metrics]
    shares: Floats = np.array(values) / bounds(rules)[:, np.newaxis]
    return shares


def _values(rules: Rules, metric: Metric, labels: Ints, scores: Floats) -> Floats:
    """Return the metric of each event, shape (n,).

    The Brier score (Brier 1950) is (p - y)², of several classes its sum over them. The log loss is -ln p of the label,
    with p at least LEAST_PROBABILITY. Of several classes, the first stands for negative where costs are meant: to
    predict it for another is a false negative, and every other mistake a false positive.
    """
    if metric in ("accuracy", "cost"):
        predicted = rules.scoring.predicted(scores)
        if metric == "accuracy":
            right: Floats = (predicted == labels).astype(np.float64)
            return right
        costs = np.where(predicted == 0, rules.false_negative_cost, rules.false_positive_cost)
        return np.where(predicted == labels, 0.0, costs)
    p = np.clip(scores, 0.0, 1.0)
    if rules.scoring.task == "multiclass":
        likely = p[np.arange(len(labels)), labels]
        squares: Floats = (p * p).sum(axis=1) - likely * likely + (1.0 - likely) ** 2
    else:
        likely = np.where(labels == 1, p, 1.0 - p)
        squares = (1.0 - likely) ** 2
    return squares if metric == "brier" else -np.log(np.maximum(likely, LEAST_PROBABILITY))


class StratumState(msgspec.Struct, frozen=True, array_like=True):
    """A Stratum at rest: the buckets that have anything, and their columns."""

    epoch: int
    buckets: int
    packed: bytes
    totals: list[int]


class Stratum:
    """Sums of one epoch's samples. Values are shares of the largest, times SCALE.

    `cells` (1 + J, BUCKETS): samples, and the values of each metric. `totals` (variants, 1 + 2 J): samples, values,
    and squared values. 160 kB for one metric, and 80 for each other.
    """

    def __init__(self, variants: int, metrics: int) -> None:
        self.cells: Ints = np.zeros((1 + metrics, BUCKETS), dtype=np.int64)
        self.totals: Ints = np.zeros((variants, 1 + 2 * metrics), dtype=np.int64)

    def merge(self, other: "Stratum") -> None:
        """Add everything that `other` counted."""
        self.cells += other.cells
        self.totals += other.totals

    def dump(self, epoch: int) -> StratumState:
        """Return the state, some 10 bytes for each bucket that has samples. Bytes of one place stand together."""
        places = np.flatnonzero(self.cells.any(axis=0))
        columns = np.column_stack([np.diff(places, prepend=0), self.cells[:, places].T]).astype("<i8")
        planes = columns.view(np.uint8).reshape(len(places), 8 * columns.shape[1]).T
        return StratumState(epoch, len(places), zlib.compress(planes.tobytes(), 1), self.totals.ravel().tolist())

    def load(self, state: StratumState) -> None:
        """Take over what `dump` of a stratum of as many variants and metrics gave; ValueError when it is not that."""
        planes = np.frombuffer(zlib.decompress(state.packed), dtype=np.uint8)
        planes = planes.reshape(8 * (1 + len(self.cells)), state.buckets)
        columns = np.ascontiguousarray(planes.T).view("<i8").astype(np.int64)
        self.cells[:, np.cumsum(columns[:, 0])] = columns[:, 1:].T
        self.totals = np.array(state.totals, dtype=np.int64).reshape(self.totals.shape)


class CountsState(msgspec.Struct, frozen=True, array_like=True):
    """Counts at rest. `tallies` are None for variants without samples."""

    n: int
    strata: list[StratumState]
    labels: list[int]
    tallies: list[TallyState | None]


class Counts:
    """Everything that is counted of some samples: those of one cohort, or all mature ones.

    `n` are events: revisions do not count. `labels` (variants, classes, 2) are events by label, wrongly and rightly
    predicted. Samples wait until there are enough for one pass, which never shows.
    """

    def __init__(self, rules: Rules) -> None:
        self.n = 0
        self._rules = rules
        self._strata: dict[int, Stratum] = {}
        self._labels: Ints = np.zeros((len(rules.variants), rules.scoring.classes, 2), dtype=np.int64)
        self._tallies: list[Tally | None] = [None] * len(rules.variants)
        self._waiting: list[Outcomes] = []
        self._size = 0

    def add(self, samples: Outcomes) -> None:
        """Count samples; a revision takes back what the label before it gave. About 1 µs for each."""
        self.n += int(np.count_nonzero(samples.revisions == 0))
        self._waiting.append(samples)
        self._size += samples.scores.size
        if self._size >= _PENDING:
            self.settle()

    def merge(self, other: "Counts") -> None:
        """Add everything that `other` counted. It must not be used any more."""
        for samples in other._waiting:
            self.add(samples)
        self.n += other.n - sum(int(np.count_nonzero(samples.revisions == 0)) for samples in other._waiting)
        for epoch, stratum in other._strata.items():
            self._stratum(epoch).merge(stratum)
        self._labels += other._labels
        for variant, tally in enumerate(other._tallies):
            mine = self._tallies[variant]
            if mine is None:
                self._tallies[variant] = tally
            elif tally is not None:
                mine.merge(tally)

    def strata(self) -> dict[int, Stratum]:
        """Return the sums by epoch, of the epochs that have samples."""
        self.settle()
        return {epoch: self._strata[epoch] for epoch in sorted(self._strata)}

    def has_before(self, epoch: int) -> bool:
        """Return whether there are samples of an earlier epoch."""
        return any(each < epoch for each in self._strata) or any((w.epochs < epoch).any() for w in self._waiting)

    def labels(self) -> Ints:
        """Return events by variant, label, and whether it was predicted: shape (variants, classes, 2)."""
        self.settle()
        return self._labels

    def ranking(self, variant: int) -> tuple[float | None, float | None]:
        """Return F1 and ROC AUC of a variant."""
        self.settle()
        tally = self._tallies[variant]
        return (None, None) if tally is None else tally.ranking()

    def settle(self) -> None:
        """Sum up what waits."""
        if not self._waiting:
            return
        samples = Outcomes.joined(self._waiting)
        self._waiting, self._size = [], 0
        first = samples.revisions == 0
        brought = self._brought(samples.variants, samples.labels, samples.scores, 1)
        if not first.all():
            old = np.flatnonzero(~first)
            brought[:, old] += self._brought(samples.variants[old], samples.replaced[old], samples.scores[old], -1)
        self._sum_up(samples, brought)
        for variant in np.flatnonzero(np.bincount(samples.variants)).tolist():
            self._rank(variant, samples, samples.variants == variant, first)

    def _brought(self, variants: Ints, labels: Ints, scores: Floats, sign: int) -> Ints:
        """Count labels; return what each adds to the totals, or takes away from them: shape (1 + 2 J, n)."""
        right = (self._rules.scoring.predicted(scores) == labels).astype(np.int64)
        np.add.at(self._labels, (variants, labels, right), sign)
        values = values_of(self._rules, labels, scores)
        parts = [np.ones((1, len(labels))), values * SCALE, values * values * SCALE]
        return sign * np.rint(np.concatenate(parts)).astype(np.int64)

    def _sum_up(self, samples: Outcomes, sums: Ints) -> None:
        """Add to cells and totals what each sample brings."""
        metrics = len(self._rules.metrics)
        for epoch in np.unique(samples.epochs).tolist():
            rows = np.flatnonzero(samples.epochs == epoch)
            stratum = self._stratum(epoch)
            buckets, brought = samples.buckets[rows], sums[:, rows]
            for column in range(1 + metrics):
                np.add.at(stratum.cells[column], buckets, brought[column])
            np.add.at(stratum.totals, samples.variants[rows], brought.T)

    def _rank(self, variant: int, samples: Outcomes, mine: NDArray[np.bool_], first: NDArray[np.bool_]) -> None:
        tally = self._tallies[variant]
        if tally is None:
            tally = self._tallies[variant] = Tally(self._rules.scoring)
        new, old = np.flatnonzero(mine & first), np.flatnonzero(mine & ~first)
        assumed = int(np.count_nonzero(samples.assumed[new]))
        tally.add(samples.labels[new], samples.scores[new], np.zeros(len(new), dtype=np.int64), assumed, None)
        if len(old):
            revised = int(np.count_nonzero(samples.revisions[old] == 1))
            tally.correct(samples.replaced[old], samples.labels[old], samples.scores[old], revised)

    def _stratum(self, epoch: int) -> Stratum:
        if epoch not in self._strata:
            self._strata[epoch] = Stratum(len(self._rules.variants), len(self._rules.metrics))
        return self._strata[epoch]

    def dump(self) -> CountsState:
        """Return the state: it follows from what was counted alone."""
        strata = [stratum.dump(epoch) for epoch, stratum in self.strata().items()]
        tallies = [None if tally is None else tally.dump() for tally in self._tallies]
        return CountsState(self.n, strata, self._labels.ravel().tolist(), tallies)

    @classmethod
    def restored(cls, rules: Rules, state: CountsState) -> "Counts":
        """Return the counts of which `state` is the dump; ValueError when it is one of other rules."""
        counts = cls(rules)
        counts.n = state.n
        for stratum in state.strata:
            counts._stratum(stratum.epoch).load(stratum)
        counts._labels = np.array(state.labels, dtype=np.int64).reshape(counts._labels.shape)
        pairs = zip(counts._tallies, state.tallies, strict=True)
        counts._tallies = [None if kept is None else Tally.restored(rules.scoring, kept) for _, kept in pairs]
        return counts
