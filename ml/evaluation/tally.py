"""What is counted of one variant in one window: whole numbers only, so that any order of adding gives the same."""

import zlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.evaluation.figures import Figures, calibration_error, decisions, mean, ratio, roc_auc, roc_auc_interval
from ml.evaluation.histogram import Floats, Histogram, HistogramState, Ints, ordered_keys, probability_keys

CLIP: Final = 1e-15  # the least probability that counts, or one mistake made in certainty would be infinite
CALIBRATION_BINS: Final = 15  # as in Guo et al. 2017
_SCALE: Final = 2**30  # losses and confidences are summed as whole multiples of 1/_SCALE: each is exact to 5e-10
_TIME_LEVEL: Final = 46  # six bits behind the leading one: 64 bins for each doubling
_SCORE_BINS: Final = 32768  # for all classes of a variant together
_BINS: Final = (512, 8192)  # fewest and most for one class
_LEAST_BYTES: Final = (500, 36)  # of a tally with its names, and of one of its histograms, at rest
_CELL_BYTES: Final = 3  # of the confusion matrix at rest, where it is not 0; of zeros 28 take a byte


@dataclass(frozen=True, slots=True)
class Scoring:
    """How scores are read: the stream's task, its number of classes (2 unless multiclass), and its threshold."""

    task: Literal["binary", "multiclass", "anomaly"]
    classes: int
    threshold: float

    def predicted(self, scores: Floats) -> Ints:
        """Return class indices, shape (n,), for scores of shape (n,), or (n, classes) when multiclass."""
        if self.task == "multiclass":
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        return (scores >= self.threshold).astype(np.int64)


class TallyState(msgspec.Struct, frozen=True, array_like=True):
    """A Tally at rest."""

    model_id: str
    n: int
    assumed: int
    revised: int
    loss: int
    counts: bytes
    histograms: list[HistogramState]


class Tally:
    """Counts of one variant. `model_id` is the newest of its models that was added.

    At most 32,768 score bins in all (8,192 for one class): about 200 kB at worst, 8 bytes a sample while there are few.
    """

    def __init__(self, scoring: Scoring) -> None:
        self.model_id = ""
        self.n = 0
        self._scoring = scoring
        self._assumed = 0
        self._revised = 0
        self._loss = 0
        self._confusion: Ints = np.zeros((scoring.classes, scoring.classes), dtype=np.int64)
        self._calibration: Ints = np.zeros((3, CALIBRATION_BINS), dtype=np.int64)
        ranked = scoring.classes if scoring.task == "multiclass" else 1
        bins = min(max(_SCORE_BINS // ranked, _BINS[0]), _BINS[1])
        self._scores = [Histogram(2, max_bins=bins) for _ in range(ranked)]
        self._latency = Histogram(1, _TIME_LEVEL)
        self._delay = Histogram(1, _TIME_LEVEL)

    @property
    def weight_bytes(self) -> int:
        """What `dump` needs, from above, and from the counts alone."""
        cells = self._confusion.size // 25 + _CELL_BYTES * int(np.count_nonzero(self._confusion))
        bins = sum(_LEAST_BYTES[1] + h.bins * (10 - h.level // 8) for h in self._histograms())
        return _LEAST_BYTES[0] + cells + bins

    def add(self, labels: Ints, scores: Floats, delays_ms: Ints, assumed: int, latencies_ms: Ints | None) -> None:
        """Count events: `labels` are class indices, shape (n,); `scores` are as in Scoring; `assumed` have no label.

        `delays_ms` run from event to label. A variant whose latency is not known has None.
        """
        self.n += len(labels)
        self._assumed += assumed
        self._count(labels, scores, 1)
        ones = np.ones((len(labels), 1), dtype=np.int64)
        self._rank([labels], scores, [1])
        self._delay.add(ordered_keys(delays_ms), ones)
        if latencies_ms is not None:
            self._latency.add(ordered_keys(latencies_ms), ones)

    def correct(self, before: Ints, after: Ints, scores: Floats, first: int) -> None:
        """Replace the labels `before` by `after`, of events with these scores that were added.

        `first` of them had no label replaced yet. The label delay stays that of the first label.
        """
        self._revised += first
        self._count(before, scores, -1)
        self._count(after, scores, 1)
        self._rank([before, after], scores, [-1, 1])

    def merge(self, other: "Tally") -> None:
        """Add everything that `other` counted."""
        self.n += other.n
        self._assumed += other._assumed
        self._revised += other._revised
        self._loss += other._loss
        self._confusion += other._confusion
        self._calibration += other._calibration
        for mine, theirs in zip(self._histograms(), other._histograms(), strict=True):
            mine.merge(theirs)

    def figures(self) -> Figures:
        """Return the figures of everything counted so far; 0.2 ms and more with many bins."""
        probable = self._scoring.task != "anomaly"
        # Each class's ROC AUC is of the same events, and how they vary together is not counted.
        low, high = roc_auc_interval(self._scores[0]) if len(self._scores) == 1 else (None, None)
        return Figures(
            n=self.n,
            assumed=self._assumed,
            revised=self._revised,
            **decisions(self._confusion),
            roc_auc=mean([roc_auc(scores) for scores in self._scores]),
            roc_auc_low=low,
            roc_auc_high=high,
            log_loss=ratio(self._loss, self.n * _SCALE) if probable else None,
            calibration_error=calibration_error(self._calibration, _SCALE) if probable else None,
            latency_p50_ms=self._latency.quantile(0.5),
            latency_p99_ms=self._latency.quantile(0.99),
            label_delay_p50_ms=self._delay.quantile(0.5),
            label_delay_p95_ms=self._delay.quantile(0.95),
        )

    def ranking(self) -> tuple[float | None, float | None]:
        """Return F1 and ROC AUC, as `figures` has them; about 60 µs with few bins."""
        return decisions(self._confusion)["f1"], mean([roc_auc(scores) for scores in self._scores])

    def dump(self) -> TallyState:
        """Return the state."""
        counts = np.concatenate([self._confusion.ravel(), self._calibration.ravel()]).astype("<i8")
        return TallyState(
            self.model_id,
            self.n,
            self._assumed,
            self._revised,
            self._loss,
            zlib.compress(counts.tobytes(), 1),
            [histogram.dump() for histogram in self._histograms()],
        )

    @classmethod
    def restored(cls, scoring: Scoring, state: TallyState) -> "Tally":
        """Return the tally of which `state` is the dump."""
        tally = cls(scoring)
        tally.model_id, tally.n, tally._loss = state.model_id, state.n, state.loss
        tally._assumed, tally._revised = state.assumed, state.revised
        counts = np.frombuffer(zlib.decompress(state.counts), dtype="<i8").astype(np.int64)
        cells = tally._confusion.size
        tally._confusion = counts[:cells].reshape(tally._confusion.shape)
        tally._calibration = counts[cells:].reshape(tally._calibration.shape)
        for histogram, stored in zip(tally._histograms(), state.histograms, strict=True):
            histogram.load(stored)
        return tally

    def _histograms(self) -> list[Histogram]:
        return [*self._scores, self._latency, self._delay]

    def _count(self, labels: Ints, scores: Floats, sign: int) -> None:
        """Count all but the ranking. At most a few million rows at once, or the sums would leave float64's integers."""
        classes = self._scoring.classes
        predicted = self._scoring.predicted(scores)
        cells = np.bincount(labels * classes + predicted, minlength=classes * classes)
        self._confusion += sign * cells.reshape(classes, classes)
        if self._scoring.task == "anomaly":
            return
        if self._scoring.task == "multiclass":
            likely = scores[np.arange(len(labels)), labels]
            confidence, hits = scores.max(axis=1), labels == predicted
        else:
            likely = np.where(labels == 1, scores, 1.0 - scores)
            confidence, hits = scores, labels == 1
        losses = -np.log(np.clip(likely, CLIP, 1.0))
        self._loss += sign * int(np.rint(losses * _SCALE).astype(np.int64).sum())
        self._calibration += sign * _calibrated(confidence, hits)

    def _rank(self, labels: list[Ints], scores: Floats, signs: list[int]) -> None:
        """Count scores by class. What is taken back goes in together with what takes its place: no bin falls to 0."""
        columns = scores.T if scores.ndim == 2 else scores[np.newaxis]
        for column, histogram in enumerate(self._scores):
            positive = column if len(self._scores) > 1 else 1
            counts = np.zeros((len(scores), 2), dtype=np.int64)
            for label, sign in zip(labels, signs, strict=True):
                counts[:, 1] += sign * (label == positive)
                counts[:, 0] += sign * (label != positive)
            histogram.add(self._keys(columns[column]), counts)

    def _keys(self, scores: Floats) -> Ints:
        return ordered_keys(scores) if self._scoring.task == "anomaly" else probability_keys(scores)


def growth_bytes(scoring: Scoring) -> int:
    """Return the most that one more score adds to the `weight_bytes` of all tallies: those of a tally of its own."""
    one = Tally(scoring)
    scores = np.zeros((1, scoring.classes) if scoring.task == "multiclass" else 1)
    zero = np.zeros(1, dtype=np.int64)
    one.add(zero, scores, zero, 0, zero)
    return one.weight_bytes


def _calibrated(confidence: Floats, hits: NDArray[np.bool_]) -> Ints:
    """Return events, hits and scaled confidence by bin of confidence, shape (3, CALIBRATION_BINS)."""
    confidence = np.clip(confidence, 0.0, 1.0)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    sums = [np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, hits, np.rint(confidence * _SCALE))]
    return np.array(sums).astype(np.int64)
