"""The dashboard of model quality: how good the models are, and what makes new ones."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Query
from deploy.dashboards.promql import greatest, per_second, shown, total


def _figure(name: str, legend: str, factor: str = "") -> Query:
    """Return a figure of evaluation for each variant."""
    series = shown("ml_performance", f'figure="{name}"')
    return Query(greatest(series, "stream", "variant") + factor, f"{{{{stream}}}} {{{{variant}}}} {legend}".rstrip())


def _figures(*names: str, factor: str = "") -> tuple[Query, ...]:
    """Return figures of evaluation for each variant, under their names."""
    return tuple(_figure(name, name, factor) for name in names)


def _rate(metric: str, legend: str, *by: str) -> Query:
    return Query(per_second(shown(metric), "stream", *by), f"{{{{stream}}}} {legend}")


def _count(metric: str, legend: str, *by: str) -> Query:
    return Query(total(shown(metric), "stream", *by), f"{{{{stream}}}} {legend}")


_JUDGED: Final = (
    (
        Panel(
            "ROC AUC",
            "Of each variant in the newest mature window. The 95% intervals are dashed: two that overlap may be equal.",
            (
                _figure("roc_auc", ""),
                _figure("roc_auc_low", "low"),
                _figure("roc_auc_high", "high"),
            ),
        ),
        Panel("Accuracy and F1", "At the stream's threshold.", _figures("accuracy", "f1"), "percentunit"),
        Panel("Precision and recall", "At the stream's threshold.", _figures("precision", "recall"), "percentunit"),
    ),
    (
        Panel(
            "Wrong decisions",
            "The share of negatives called positive, and of positives called negative.",
            _figures("false_positive_rate", "false_negative_rate"),
            "percentunit",
        ),
        Panel(
            "Probabilities",
            "Log loss, and how far scores are from the share of positives among them; less is better.",
            _figures("log_loss", "calibration_error"),
        ),
        Panel(
            "Samples in the window",
            "How many events the figures are of, and how many labels are assumed or were corrected.",
            _figures("n", "assumed", "revised"),
        ),
    ),
)

_LABELS: Final = (
    Panel(
        "Label delay",
        "From the event to its label, by the times that they carry.",
        _figures("label_delay_p50_ms", "label_delay_p95_ms", factor=" / 1000"),
        "s",
    ),
    Panel(
        "Labels that were of no use",
        "In a second: predictions that stayed without one, labels that came twice, what the join or evaluation left "
        "aside and why.",
        (
            _rate("ml_join_unlabelled_total", "unlabelled"),
            _rate("ml_labels_duplicate_total", "duplicate"),
            _rate("ml_join_ignored_total", "join: {{reason}}", "reason"),
            _rate("ml_samples_missed_total", "evaluation: {{reason}}", "reason"),
        ),
    ),
    Panel(
        "Samples evaluated",
        "In a second.",
        (_rate("ml_samples_evaluated_total", "samples"), _rate("ml_samples_total", "joined")),
    ),
)

_MADE: Final = (
    (
        Panel(
            "Training runs",
            "Since the workers started, by outcome: rejected is a gate's word, failed wants somebody to look.",
            (
                _count("ml_training_runs_total", "{{outcome}}", "outcome"),
                _count("ml_pipeline_updates_total", "candidates"),
            ),
        ),
        Panel(
            "Length of training runs",
            "The mean since the workers started.",
            (
                Query(
                    f"{total(shown('ml_training_duration_seconds_sum'), 'stream')}"
                    f" / {total(shown('ml_training_duration_seconds_count'), 'stream')}",
                    "{{stream}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Accuracy of the newest candidate",
            "On its test data.",
            (Query(greatest(shown("ml_pipeline_accuracy"), "stream"), "{{stream}}"),),
            "percentunit",
        ),
        Panel(
            "Samples read by training",
            "Since the workers started.",
            (_count("ml_pipeline_samples_processed_total", "samples"),),
        ),
    ),
    (
        Panel(
            "Learners",
            "Samples that learners took in a second, by lineage.",
            (_rate("ml_learner_samples_total", "{{lineage}}", "lineage"),),
        ),
        Panel(
            "What learners did",
            "Since the workers started: batches learnt; snapshots published, kept back or pruned.",
            (_count("ml_learner_updates_total", "{{lineage}} {{action}}", "lineage", "action"),),
        ),
        Panel(
            "Registered models",
            "By status: a candidate that waits for a person is in staging.",
            (Query(greatest(shown("ml_models_total"), "stream", "status"), "{{stream}} {{status}}"),),
        ),
        Panel(
            "Changes of status",
            "Since the workers started: promotions, rollbacks and the rest.",
            (_count("ml_model_promotion_total", "{{from_status}} to {{to_status}}", "from_status", "to_status"),),
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "quality",
    "Model quality",
    "How good each variant is in windows whose labels have come, how labels come, and what training and learners make.",
    (*_JUDGED, _LABELS, *_MADE),
)
