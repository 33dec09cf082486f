"""Every metric by name, kind, unit and meaning; `metric_values` keeps what they are at.

`docs/metrics.md` is generated from `METRICS`; a test compares the two.
"""

from dataclasses import dataclass
from typing import Final, Literal

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
COMMITTED_RECORDS = Metric(
    "ml_committed_records_total",
    "counter",
    "records",
    "Offsets that tasks have come forward by committing, markers of transactions among them, as in the lag.",
    ("group", "topic"),
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
READY = Metric(
    "ml_ready",
    "gauge",
    "1",
    "1 when every task of the worker has recovered and, if it scores, each of its streams has a champion.",
)

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
    "What became of alerts at each sink: delivered, failed (it is tried again), undeliverable, too_old, "
    "or duplicate (it came within a day).",
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

METRICS: Final = tuple(found for found in tuple(globals().values()) if isinstance(found, Metric))
