"""The dashboard of experiments: who is better of variants and champion, and what shadows would have said."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Query
from deploy.dashboards.promql import greatest, shown, total


def _metric(name: str, legend: str = "") -> Query:
    """Return a figure of each variant in the newest report; `name` is a regular expression."""
    series = shown("ml_experiment_metric", f'metric=~"{name}"')
    expr = greatest(series, "stream", "experiment", "variant", "metric")
    return Query(expr, f"{{{{stream}}}} {{{{variant}}}} {legend or '{{metric}}'}")


_MEANS: Final = "accuracy|brier|log_loss|cost"

DASHBOARD: Final = Dashboard(
    "experiments",
    "Experiments",
    "What each variant of an experiment or rollout does, whether it is better, and what shadows would have said.",
    (
        (
            Panel(
                "Running",
                "1 while an experiment or a rollout runs.",
                (Query(greatest(shown("ml_experiment_active_total"), "stream"), "{{stream}}"),),
                "none",
                "stat",
            ),
            Panel(
                "Samples",
                "Mature samples of each variant; no verdict comes before the least number.",
                (_metric("samples", "samples"),),
                "short",
                "stat",
            ),
        ),
        (
            Panel(
                "Better or worse than the champion",
                "The difference of the means, positive is better. The interval holds however often one looks: when it "
                "leaves zero, that is a verdict.",
                (
                    _metric(f"({_MEANS})_difference"),
                    _metric(f"({_MEANS})_low", "low"),
                    _metric(f"({_MEANS})_high", "high"),
                ),
            ),
            Panel("Means", "Of the target and of each guard metric, by variant.", (_metric(_MEANS),)),
        ),
        (
            Panel(
                "Traffic",
                "The share of the entities that each variant has.",
                (
                    Query(
                        greatest(shown("ml_experiment_traffic"), "stream", "experiment", "variant"),
                        "{{stream}} {{experiment}} {{variant}}",
                    ),
                ),
                "percentunit",
            ),
            Panel("Events", "Events that each variant served, in this epoch.", (_metric("events"), _metric("samples"))),
            Panel("ROC AUC and F1", "Of each variant's mature samples.", (_metric("roc_auc|f1"),)),
        ),
        (
            Panel(
                "Guard rails",
                "How long a call of the model takes (ms), and how far its scores are from the champion's (PSI).",
                (_metric("call_ms"), _metric("score_psi")),
            ),
            Panel(
                "Errors",
                "Events that a variant or a shadow gave no score for, since the workers started or the report began.",
                (
                    _metric("errors", "in the report"),
                    Query(total(shown("ml_variant_errors_total"), "stream", "variant"), "{{stream}} {{variant}}"),
                    Query(total(shown("ml_shadow_errors_total"), "stream", "variant"), "{{stream}} {{variant}}"),
                ),
            ),
            Panel(
                "Samples that do not count",
                "Since the workers started, by reason.",
                (
                    Query(
                        total(shown("ml_experiment_samples_missed_total"), "stream", "reason"), "{{stream}} {{reason}}"
                    ),
                ),
            ),
        ),
        (
            Panel(
                "Shadows that disagree",
                "The share of the events to which a shadow gives another label than was served.",
                (
                    Query(
                        greatest(shown("ml_shadow_disagreement_ratio"), "stream", "variant"),
                        "{{stream}} {{variant}}",
                    ),
                ),
                "percentunit",
            ),
        ),
    ),
)
