"""What is no longer as it was when the champion was trained."""

from typing import Final

from deploy.panels import Dashboard, Panel, Query


def _feature(figure: str) -> tuple[Query, ...]:
    expr = f'max by (stream, feature) (ml_feature_drift_score{{stream=~"$stream", type="{figure}"}})'
    return (Query(expr, "{{stream}} {{feature}}"),)


def _prediction(figure: str) -> Query:
    expr = f'max by (stream, prediction) (ml_prediction_drift_score{{stream=~"$stream", type="{figure}"}})'
    return Query(expr, f"{{{{stream}}}} {{{{prediction}}}} {figure}")


DASHBOARD: Final = Dashboard(
    "drift",
    "Drift",
    "How far the newest judged window is from the data that the champion was trained on, feature by feature.",
    (
        (
            Panel(
                "Drifted features",
                "The share of the judged features that have drifted; from 30% on, a new model is asked for by default.",
                (Query('max by (stream) (ml_drifted_features_ratio{stream=~"$stream"})', "{{stream}}"),),
                "percentunit",
                "stat",
                bad_from=0.3,
            ),
            Panel(
                "Measured",
                "1 when scored events are counted against the champion's baseline; with 0, register it with one.",
                (Query('min by (stream) (ml_drift_measured{stream=~"$stream"})', "{{stream}}"),),
                "none",
                "stat",
                good_from=1,
            ),
            Panel(
                "Events counted",
                "In a second, against their model's baseline.",
                (
                    Query(
                        'sum by (stream) (rate(ml_drift_events_counted_total{stream=~"$stream"}[$__rate_interval]))',
                        "{{stream}}",
                    ),
                ),
                "eps",
                "stat",
            ),
        ),
        (
            Panel(
                "PSI",
                "Population stability index: below 0.1 little has moved, above 0.25 much has.",
                _feature("psi"),
            ),
            Panel(
                "Distance",
                "Wasserstein's, in deviations of the baseline: how far values have moved.",
                _feature("wasserstein_scaled"),
            ),
            Panel("Kolmogorov-Smirnov", "The largest difference of the two distributions.", _feature("ks")),
        ),
        (
            Panel(
                "Missing",
                "The share of values that are missing. A jump is a broken source more often than a changed world.",
                _feature("missing_share"),
                "percentunit",
            ),
            Panel(
                "Never seen before",
                "The share of values that the baseline has none of.",
                _feature("unseen_share"),
                "percentunit",
            ),
            Panel("p-value", "After correction for the number of features.", _feature("p_value"), "percentunit"),
        ),
        (
            Panel(
                "Predictions",
                "The same of what is predicted: it moves when the features that matter do.",
                (_prediction("psi"), _prediction("wasserstein_scaled")),
            ),
            Panel(
                "Windows",
                "Since the workers started, by what became of them.",
                (
                    Query(
                        'sum by (stream, outcome) (ml_drift_windows_total{stream=~"$stream"})', "{{stream}} {{outcome}}"
                    ),
                    Query(
                        'sum by (stream, reason) (ml_drift_partials_missed_total{stream=~"$stream"})',
                        "{{stream}} partials missed: {{reason}}",
                    ),
                ),
            ),
            Panel(
                "Alerts",
                "Since the workers started, by severity.",
                (
                    Query(
                        'sum by (stream, severity) (ml_drift_alerts_total{stream=~"$stream"})',
                        "{{stream}} {{severity}}",
                    ),
                ),
            ),
        ),
    ),
)
