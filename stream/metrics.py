"""Every metric by name, kind, unit and meaning, and the registry that keeps their values.

`docs/metrics.md` is generated from `METRICS`; a test compares the two.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """The definition of one metric. `labels` are label names; histograms count into SECONDS."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


PREDICTIONS = Metric(
    "ml_predictions_total",
    "counter",
    "predictions",
    "Events scored.",
    ("stream", "model", "variant", "label"),
)
PREDICTION_LATENCY = Metric(
    "ml_prediction_latency_seconds",
    "histogram",
    "seconds",
    "From the feature record's timestamp in Kafka to the moment its score exists.",
    ("stream",),
)
PREDICTION_ERRORS = Metric(
    "ml_prediction_errors_total",
    "counter",
    "errors",
    "Times a batch could not be scored; it is tried again or the worker stops.",
    ("stream",),
)
SHADOW_ERRORS = Metric(
    "ml_shadow_errors_total",
    "counter",
    "events",
    "Events that a shadow model gave no score for; their predictions go out without it.",
    ("stream", "variant"),
)
VARIANT_ERRORS = Metric(
    "ml_variant_errors_total",
    "counter",
    "events",
    "Events of an experiment's variant that its model gave no score for; they got the champion's.",
    ("stream", "variant"),
)
DEAD_LETTERS = Metric(
    "ml_dead_letters_total",
    "counter",
    "records",
    "Records that could not be used, by reason.",
    ("stream", "stage", "reason"),
)
MODEL_INFO = Metric(
    "ml_model_info",
    "gauge",
    "1",
    "1 for each model that serves, with its algorithm and deployment revision as labels.",
    ("stream", "model", "algorithm", "revision"),
)
MODEL_MEMORY = Metric(
    "ml_model_memory_usage_bytes",
    "gauge",
    "bytes",
    "Estimated memory of each loaded model.",
    ("stream", "model"),
)
MODEL_PROMOTIONS = Metric(
    "ml_model_promotion_total",
    "counter",
    "changes",
    "Times control gave a model version another status.",
    ("stream", "from_status", "to_status"),
)
MODEL_LOAD_FAILURES = Metric(
    "ml_model_load_failures_total",
    "counter",
    "failures",
    "Times a routed model could not be verified or loaded: the previous champion serves on, a variant's events get the "
    "champion's scores, a shadow is left out.",
    ("stream",),
)
CONSUMER_LAG = Metric(
    "ml_consumer_lag_events",
    "gauge",
    "events",
    "Records between what a task has committed and the end of its partition.",
    ("group", "topic", "partition"),
)
COMMIT_SECONDS = Metric(
    "ml_commit_seconds",
    "histogram",
    "seconds",
    "Duration of one commit: outputs acknowledged, offsets written, transaction ended.",
    ("stage",),
)
STEP_SECONDS = Metric(
    "ml_step_seconds",
    "histogram",
    "seconds",
    "Time of one step of a stage (the aim is below 20 ms); it holds the event loop, unless it takes turns or waits.",
    ("stage",),
)
LOOP_LAG = Metric(
    "ml_event_loop_lag_seconds",
    "histogram",
    "seconds",
    "How late a timer of the worker's event loop fires.",
)
TASKS = Metric("ml_partition_tasks", "gauge", "tasks", "Partition tasks that run on this worker.", ("group", "stage"))
TASK_RESTARTS = Metric(
    "ml_task_restarts_total",
    "counter",
    "restarts",
    "Times a partition task was opened again: fenced by another worker, or the broker failed it.",
    ("stage", "reason"),
)
EVENTS_EXPIRED = Metric(
    "ml_events_expired_total",
    "counter",
    "events",
    "Records that retention removed before they were read; they are lost to this deployment.",
    ("topic",),
)
LEARNT_SAMPLES = Metric(
    "ml_learner_samples_total", "counter", "samples", "Samples that a learner has taken.", ("stream", "lineage")
)
LEARNER_UPDATES = Metric(
    "ml_learner_updates_total",
    "counter",
    "updates",
    "What learners did beside taking samples: batches learnt, snapshots published, kept back or pruned.",
    ("stream", "lineage", "action"),
)
PERFORMANCE = Metric(
    "ml_performance",
    "gauge",
    "see figure",
    "A figure (accuracy, roc_auc and the ends of its 95% interval, roc_auc_low and roc_auc_high, n, ...) of each "
    "variant in the newest mature window; NaN when it cannot be computed.",
    ("stream", "variant", "figure"),
)
SAMPLES_EVALUATED = Metric(
    "ml_samples_evaluated_total", "counter", "records", "Records of samples that evaluation has read.", ("stream",)
)
SAMPLES_MISSED = Metric(
    "ml_samples_missed_total",
    "counter",
    "samples",
    "Samples that no window counts, by reason: late, no_room, unknown_event (of a revision) or unusable.",
    ("stream", "reason"),
)
DRIFT_MEASURED = Metric(
    "ml_drift_measured",
    "gauge",
    "1",
    "1 when the events that this worker scores are counted against the champion's baseline, 0 when it has none that "
    "can be used: then the other figures of drift are of an earlier model.",
    ("stream",),
)
DRIFT_EVENTS_COUNTED = Metric(
    "ml_drift_events_counted_total",
    "counter",
    "events",
    "Scored events that were counted against their model's baseline.",
    ("stream",),
)
DRIFT_WINDOWS = Metric(
    "ml_drift_windows_total",
    "counter",
    "windows",
    "Windows by what became of them: judged; not judged, because the baseline cannot be used (no_baseline) or nothing "
    "fits it (misfit); given_up, because the baseline went out of use.",
    ("stream", "outcome"),
)
DRIFT_PARTIALS_MISSED = Metric(
    "ml_drift_partials_missed_total",
    "counter",
    "records",
    "Partial histograms that no window counts, by reason: late, future (by their event times), misfit (other cells "
    "than the baseline's) or unusable.",
    ("stream", "reason"),
)
FEATURE_DRIFT = Metric(
    "ml_feature_drift_score",
    "gauge",
    "see type",
    "How far a feature of the newest judged window is from the baseline, by type (psi, ks, p_value, ...); NaN when "
    "it cannot be computed. Like all gauges of drift, it is not there between a retry or restart of the judge's "
    "task and the next window.",
    ("stream", "feature", "type"),
)
PREDICTION_DRIFT = Metric(
    "ml_prediction_drift_score",
    "gauge",
    "see type",
    "The same of the predictions: of the scores, and of the classes where there are more than two.",
    ("stream", "prediction", "type"),
)
DRIFTED_FEATURES = Metric(
    "ml_drifted_features_ratio",
    "gauge",
    "1",
    "The share of the judged features that have drifted in the newest judged window.",
    ("stream",),
)
DRIFT_ALERTS = Metric(
    "ml_drift_alerts_total", "counter", "alerts", "Alerts of drift, by severity.", ("stream", "severity")
)
VIEW_FAILURES = Metric(
    "ml_view_failures_total",
    "counter",
    "failures",
    "Times that the views in Redis could not be looked at or written; they are tried again, and the stream goes on.",
    ("stream",),
)
EXPERIMENT_ACTIVE = Metric(
    "ml_experiment_active_total", "gauge", "experiments", "1 while an experiment or a rollout runs.", ("stream",)
)
EXPERIMENT_TRAFFIC = Metric(
    "ml_experiment_traffic",
    "gauge",
    "1",
    "The share of the entities that a variant of the running experiment has.",
    ("stream", "experiment", "variant"),
)
EXPERIMENT_METRIC = Metric(
    "ml_experiment_metric",
    "gauge",
    "see metric",
    "A figure of each variant in the newest report: the mean of the target and of each guard metric, its difference "
    "from the champion with low and high (positive is better), events, errors, samples, call_ms, score_psi, f1 and "
    "roc_auc; NaN when it cannot be computed.",
    ("stream", "experiment", "variant", "metric"),
)
EXPERIMENT_SAMPLES_MISSED = Metric(
    "ml_experiment_samples_missed_total",
    "counter",
    "samples",
    "Samples that an experiment does not count, by reason: late (its cohort is judged already), misplaced (its bucket "
    "is another variant's), unknown_event (of a revision).",
    ("stream", "reason"),
)
SHADOW_DISAGREEMENT = Metric(
    "ml_shadow_disagreement_ratio",
    "gauge",
    "1",
    "The share of the events to which a shadow gives another label than was served, since it has stood beside this "
    "champion.",
    ("stream", "variant"),
)
MODELS_REGISTERED = Metric(
    "ml_models_total",
    "gauge",
    "models",
    "Registered models by status, where the role learn runs.",
    ("stream", "status"),
)
MODEL_FILE_SIZE = Metric(
    "ml_model_file_size_bytes",
    "gauge",
    "bytes",
    "Size of the file of each routed model and of the previous champion's, where the role learn runs.",
    ("stream", "model"),
)
READY = Metric("ml_ready", "gauge", "1", "1 when every task of the worker has recovered and can work.")

SAMPLES = Metric("ml_samples_total", "counter", "samples", "Predictions that met a label, and revisions.", ("stream",))
LABELS_DUPLICATE = Metric(
    "ml_labels_duplicate_total", "counter", "labels", "Labels that had come before, dropped.", ("stream",)
)
JOIN_PENDING = Metric(
    "ml_join_pending", "gauge", "predictions", "Predictions that wait for their label.", ("stream", "partition")
)
JOIN_UNLABELLED = Metric(
    "ml_join_unlabelled_total",
    "counter",
    "predictions",
    "Predictions for which no label came within the join window, where that is not taken for a negative.",
    ("stream",),
)
JOIN_IGNORED = Metric(
    "ml_join_ignored_total",
    "counter",
    "predictions",
    "Predictions that the join left aside: of an event that waits already, or not to be read.",
    ("stream", "reason"),
)
TRAINING_RUNS = Metric(
    "ml_training_runs_total",
    "counter",
    "runs",
    "Training runs that ended: accepted, rejected (by a gate), failed or skipped.",
    ("stream", "outcome"),
)
TRAINING_DURATION = Metric(
    "ml_training_duration_seconds",
    "histogram",
    "seconds",
    "From the beginning of a training run to its end, of runs that were not skipped.",
    ("stream",),
)
PIPELINE_UPDATES = Metric(
    "ml_pipeline_updates_total",
    "counter",
    "models",
    "Candidates that training runs registered.",
    ("stream",),
)
PIPELINE_SAMPLES = Metric(
    "ml_pipeline_samples_processed_total",
    "counter",
    "samples",
    "Samples that training runs read.",
    ("stream",),
)
PIPELINE_ACCURACY = Metric(
    "ml_pipeline_accuracy",
    "gauge",
    "share",
    "The accuracy of the newest candidate on its test data.",
    ("stream",),
)
SAMPLES_ARCHIVED = Metric(
    "ml_samples_archived_total",
    "counter",
    "samples",
    "Samples that were written to the archive and committed.",
    ("stream",),
)
NOTIFICATIONS = Metric(
    "ml_notifications_total",
    "counter",
    "attempts",
    "What became of alerts at each sink: delivered, failed (it is tried again), undeliverable, or too_old.",
    ("stream", "sink", "outcome"),
)
NOTIFICATIONS_WAITING = Metric(
    "ml_notifications_waiting",
    "gauge",
    "alerts",
    "Alerts that wait to be delivered to a sink.",
    ("stream", "sink"),
)
NOTIFICATION_DELAY = Metric(
    "ml_notification_delay_seconds",
    "histogram",
    "seconds",
    "From the alert record's timestamp in Kafka to its delivery.",
    ("stream", "sink"),
)

METRICS: tuple[Metric, ...] = (
    PREDICTIONS,
    PREDICTION_LATENCY,
    PREDICTION_ERRORS,
    SHADOW_ERRORS,
    VARIANT_ERRORS,
    DEAD_LETTERS,
    MODEL_INFO,
    MODEL_MEMORY,
    MODEL_PROMOTIONS,
    MODEL_LOAD_FAILURES,
    CONSUMER_LAG,
    COMMIT_SECONDS,
    STEP_SECONDS,
    LOOP_LAG,
    TASKS,
    TASK_RESTARTS,
    EVENTS_EXPIRED,
    LEARNT_SAMPLES,
    LEARNER_UPDATES,
    PERFORMANCE,
    SAMPLES_EVALUATED,
    SAMPLES_MISSED,
    DRIFT_MEASURED,
    DRIFT_EVENTS_COUNTED,
    DRIFT_WINDOWS,
    DRIFT_PARTIALS_MISSED,
    FEATURE_DRIFT,
    PREDICTION_DRIFT,
    DRIFTED_FEATURES,
    DRIFT_ALERTS,
    VIEW_FAILURES,
    EXPERIMENT_ACTIVE,
    EXPERIMENT_TRAFFIC,
    EXPERIMENT_METRIC,
    EXPERIMENT_SAMPLES_MISSED,
    SHADOW_DISAGREEMENT,
    MODELS_REGISTERED,
    MODEL_FILE_SIZE,
    READY,
    SAMPLES,
    LABELS_DUPLICATE,
    JOIN_PENDING,
    JOIN_UNLABELLED,
    JOIN_IGNORED,
    TRAINING_RUNS,
    TRAINING_DURATION,
    PIPELINE_UPDATES,
    PIPELINE_SAMPLES,
    PIPELINE_ACCURACY,
    SAMPLES_ARCHIVED,
    NOTIFICATIONS,
    NOTIFICATIONS_WAITING,
    NOTIFICATION_DELAY,
)


class Metrics:
    """The values of all METRICS in one Prometheus registry. Not thread-safe: the event loop owns it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._counters = {m: Counter(m.name, m.meaning, m.labels, registry=self.registry) for m in _of("counter")}
        self._gauges = {m: Gauge(m.name, m.meaning, m.labels, registry=self.registry) for m in _of("gauge")}
        self._histograms = {m: _Histogram(m) for m in _of("histogram")}
        for histogram in self._histograms.values():
            self.registry.register(histogram)

    def count(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add `amount` to a counter."""
        counter = self._counters[metric]
        (counter.labels(*labels) if labels else counter).inc(amount)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[metric]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def clear(self, metric: Metric) -> None:
        """Forget every label set of a gauge, before it is set anew."""
        self._gauges[metric].clear()

    def forget(self, metric: Metric, *labels: str) -> None:
        """Forget the values of a gauge whose first labels are these."""
        gauge = self._gauges[metric]
        for sample in next(iter(gauge.collect())).samples:
            values = [sample.labels[name] for name in metric.labels]
            if values[: len(labels)] == list(labels):
                gauge.remove(*values)

    def values(self, metric: Metric, *labels: str) -> list[float]:
        """Return the values of a gauge whose first labels are these."""
        samples = next(iter(self._gauges[metric].collect())).samples
        return [s.value for s in samples if [s.labels[name] for name in metric.labels[: len(labels)]] == list(labels)]

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Count one duration into a histogram."""
        self._histograms[metric].add(seconds, labels)

    def observe_many(self, metric: Metric, seconds: ArrayLike, *labels: str) -> None:
        """Count an array of durations into a histogram; about 10 µs for a thousand."""
        self._histograms[metric].add_many(np.asarray(seconds, dtype=float), labels)


def _of(kind: str) -> Iterable[Metric]:
    return (metric for metric in METRICS if metric.kind == kind)


class _Histogram(Collector):
    """A histogram that takes whole arrays, which prometheus_client's own does not."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._counts: dict[tuple[str, ...], np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, seconds: float, labels: tuple[str, ...]) -> None:
        self._row(labels)[bisect_left(SECONDS, seconds)] += 1
        self._sums[labels] += seconds

    def add_many(self, seconds: np.ndarray[tuple[int], np.dtype[np.float64]], labels: tuple[str, ...]) -> None:
        row = self._row(labels)
        row += np.bincount(np.searchsorted(SECONDS, seconds), minlength=row.size)
        self._sums[labels] += float(seconds.sum())

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._metric.name, self._metric.meaning, labels=self._metric.labels)
        bounds = [*map(str, SECONDS), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family

    def _row(self, labels: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        if labels not in self._counts:
            self._counts[labels] = np.zeros(len(SECONDS) + 1, dtype=np.int64)
            self._sums[labels] = 0.0
        return self._counts[labels]
