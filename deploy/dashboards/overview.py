"""The dashboard that one begins with: whether the models are well, on one screen."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Query
from deploy.dashboards.promql import greatest, per_second, quantile, shown, total

_SCORED: Final = per_second(shown("ml_predictions_total"), "stream")
_DEAD: Final = per_second(shown("ml_dead_letters_total", 'stage="score"'), "stream")
_LATENCY: Final = shown("ml_prediction_latency_seconds_bucket")
_EVENTS: Final = '{topic=~"$stream[.]features"}'
_WAITING: Final = total(f"ml_consumer_lag_events{_EVENTS}", "topic")
_COMMITTED: Final = per_second(f"ml_committed_records_total{_EVENTS}", "topic")


def _of_champion(figure: str) -> str:
    series = shown("ml_performance", 'variant="champion"', f'figure="{figure}"')
    return greatest(series, "stream")


_NUMBERS: Final = (
    Panel("Scored", "Events that got their score, in a second.", (Query(_SCORED, "{{stream}}"),), "eps", "stat"),
    Panel(
        "Waiting",
        "How long the events that are not yet scored take at the present pace. If it grows, score with more workers.",
        (Query(f"({_WAITING} > 0) / {_COMMITTED} or 0 * {_WAITING}", "{{topic}}"),),
        "s",
        "stat",
        bad_from=60,
    ),
    Panel(
        "Latency p99",
        "From the event's record in Kafka to its score, for all but one in a hundred.",
        (Query(quantile(0.99, _LATENCY, "stream"), "{{stream}}"),),
        "s",
        "stat",
        bad_from=1,
    ),
    Panel(
        "Dead letters",
        "The share of events that could not be used. `penstock dead-letters` shows them with their reasons.",
        (Query(f"{_DEAD} / ({_DEAD} + ({_SCORED} or 0 * {_DEAD}))", "{{stream}}"),),
        "percentunit",
        "stat",
        bad_from=0.01,
    ),
    Panel(
        "ROC AUC",
        "Of the champion, in the newest window whose labels have come.",
        (Query(_of_champion("roc_auc"), "{{stream}}"),),
        "short",
        "stat",
    ),
    Panel(
        "Drifted features",
        "The share of features that have moved away from the champion's training data.",
        (Query(greatest(shown("ml_drifted_features_ratio"), "stream"), "{{stream}}"),),
        "percentunit",
        "stat",
        bad_from=0.3,
    ),
)

DASHBOARD: Final = Dashboard(
    "overview",
    "Overview",
    "Whether the models are well: what goes in and out, how good the scores are, and what asks for somebody.",
    (
        _NUMBERS,
        (
            Panel(
                "Scored, by model",
                "Who scores how much: the champion, and an experiment's variants.",
                (
                    Query(
                        per_second(shown("ml_predictions_total"), "stream", "model", "variant"),
                        "{{stream}} {{variant}} {{model}}",
                    ),
                ),
                "eps",
            ),
            Panel(
                "Latency",
                "From the event's record in Kafka to its score.",
                (
                    Query(quantile(0.5, _LATENCY, "stream"), "{{stream}} p50"),
                    Query(quantile(0.99, _LATENCY, "stream"), "{{stream}} p99"),
                ),
                "s",
            ),
        ),
        (
            Panel(
                "ROC AUC",
                "Of the champion, window by window, with its 95% interval. A fall that leaves the interval is one.",
                (
                    Query(_of_champion("roc_auc"), "{{stream}}"),
                    Query(_of_champion("roc_auc_low"), "{{stream}} low"),
                    Query(_of_champion("roc_auc_high"), "{{stream}} high"),
                ),
            ),
            Panel(
                "Labels",
                "Predictions that met their label in a second, and those that are pending: they wait for it.",
                (
                    Query(per_second(shown("ml_samples_total"), "stream"), "{{stream}} labelled in a second"),
                    Query(total(shown("ml_join_pending"), "stream"), "{{stream}} pending"),
                ),
            ),
        ),
        (
            Panel(
                "Rules that fire",
                "Prometheus's rules; docs/operations.md has a section for each.",
                (Query('ALERTS{service="penstock", alertstate="firing"}'),),
                kind="table",
            ),
            Panel(
                "Models",
                "Who is routed, by the revision of the deployment.",
                (Query(greatest(shown("ml_model_info"), "stream", "model", "algorithm", "revision")),),
                kind="table",
            ),
        ),
    ),
)
