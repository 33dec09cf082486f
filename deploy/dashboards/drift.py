"""The dashboard of drift: what is no longer as it was when the champion was trained."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Query
from deploy.dashboards.promql import greatest, least, per_second, shown, total


def _feature(figure: str) -> tuple[Query, ...]:
    series = shown("ml_feature_drift_score", f'type="{figure}"')
    return (Query(greatest(series, "stream", "feature"), "{{stream}} {{feature}}"),)


def _prediction(figure: str) -> Query:
    series = shown("ml_prediction_drift_score", f'type="{figure}"')
    return Query(greatest(series, "stream", "prediction"), f"{{{{stream}}}} {{{{prediction}}}} {figure}")


DASHBOARD: Final = Dashboard(
    "drift",
    "Drift",
    "How far the newest judged window is from the data that the champion was trained on, feature by feature.",
    (
        (
            Panel(
                "Drifted features",
                "The share of the judged features that have drifted; from 30% on, a new model is asked for by default.",
                (Query(greatest(shown("ml_drifted_features_ratio"), "stream"), "{{stream}}"),),
                "percentunit",
                "stat",
                bad_from=0.3,
            ),
            Panel(
                "Measured",
                "1 when scored events are counted against the champion's baseline; with 0, register it with one.",
                (Query(least(shown("ml_drift_measured"), "stream"), "{{stream}}"),),
                "none",
                "stat",
                good_from=1,
            ),
            Panel(
                "Events counted",
                "In a second, against their model's baseline.",
                (Query(per_second(shown("ml_drift_events_counted_total"), "stream"), "{{stream}}"),),
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
            Panel("p-value", "After correction for the number of features.", _feature("p_value")),
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
                    Query(total(shown("ml_drift_windows_total"), "stream", "outcome"), "{{stream}} {{outcome}}"),
                    Query(
                        total(shown("ml_drift_partials_missed_total"), "stream", "reason"),
                        "{{stream}} partials missed: {{reason}}",
                    ),
                ),
            ),
            Panel(
                "Alerts",
                "Since the workers started, by severity.",
                (Query(total(shown("ml_drift_alerts_total"), "stream", "severity"), "{{stream}} {{severity}}"),),
            ),
        ),
    ),
)
