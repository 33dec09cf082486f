"""Who is better: variants of experiments and rollouts, and shadows."""

from typing import Final

from deploy.panels import Dashboard, Panel, Query


def _metric(name: str, legend: str = "") -> Query:
    """Return a figure of each variant in the newest report; `name` is a regular expression."""
    by = "stream, experiment, variant, metric"
    expr = f'max by ({by}) (ml_experiment_metric{{stream=~"$stream", metric=~"{name}"}})'
    return Query(expr, f"{{{{stream}}}} {{{{variant}}}} {legend or '{{metric}}'}")


def _total(metric: str, by: str, legend: str) -> Query:
    return Query(f'sum by (stream, {by}) ({metric}{{stream=~"$stream"}})', f"{{{{stream}}}} {legend}")


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
                (Query('max by (stream) (ml_experiment_active_total{stream=~"$stream"})', "{{stream}}"),),
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
                        'max by (stream, experiment, variant) (ml_experiment_traffic{stream=~"$stream"})',
                        "{{stream}} {{experiment}} {{variant}}",
                    ),
                ),
                "percentunit",
            ),
            Panel("Events", "Events that each variant served, in this epoch.", (_metric("events"), _metric("samples"))),
            Panel("ROC AUC and F1", "Of each variant's mature samples.", (_metric("roc_auc|f1"),), "percentunit"),
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
                    _total("ml_variant_errors_total", "variant", "{{variant}}"),
                    _total("ml_shadow_errors_total", "variant", "{{variant}}"),
                ),
            ),
            Panel(
                "Samples that do not count",
                "Since the workers started, by reason.",
                (_total("ml_experiment_samples_missed_total", "reason", "{{reason}}"),),
            ),
        ),
        (
            Panel(
                "Shadows that disagree",
                "The share of the events to which a shadow gives another label than was served.",
                (
                    Query(
                        'max by (stream, variant) (ml_shadow_disagreement_ratio{stream=~"$stream"})',
                        "{{stream}} {{variant}}",
                    ),
                ),
                "percentunit",
            ),
        ),
    ),
)
