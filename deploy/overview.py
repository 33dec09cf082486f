"""Whether the models are well, on one screen."""

from typing import Final

from deploy.panels import Dashboard, Panel, Query

EVENTS: Final = 'sum by (stream) (rate(ml_predictions_total{stream=~"$stream"}[$__rate_interval]))'
DEAD: Final = 'sum by (stream) (rate(ml_dead_letters_total{stream=~"$stream", stage="score"}[$__rate_interval]))'
LATENCY: Final = (
    "histogram_quantile(%s, sum by (stream, le) "
    '(rate(ml_prediction_latency_seconds_bucket{stream=~"$stream"}[$__rate_interval])))'
)
CHAMPION: Final = 'max by (stream) (ml_performance{stream=~"$stream", variant="champion", figure="%s"})'

_NUMBERS: Final = (
    Panel("Scored", "Events that got their score, in a second.", (Query(EVENTS, "{{stream}}"),), "eps", "stat"),
    Panel(
        "Waiting",
        "Events that are not yet scored and committed. If it grows, score with more workers.",
        (Query('sum(ml_consumer_lag_events{topic=~"$stream[.]features"})', "events"),),
        "short",
        "stat",
        bad_from=10_000,
    ),
    Panel(
        "Latency p99",
        "From the event's record in Kafka to its score, for all but one in a hundred.",
        (Query(LATENCY % 0.99, "{{stream}}"),),
        "s",
        "stat",
        bad_from=1,
    ),
    Panel(
        "Dead letters",
        "The share of events that could not be used. `penstock dead-letters` shows them with their reasons.",
        (Query(f"{DEAD} / ({DEAD} + {EVENTS})", "{{stream}}"),),
        "percentunit",
        "stat",
        bad_from=0.01,
    ),
    Panel(
        "ROC AUC",
        "Of the champion, in the newest window whose labels have come.",
        (Query(CHAMPION % "roc_auc", "{{stream}}"),),
        "percentunit",
        "stat",
    ),
    Panel(
        "Drifted features",
        "The share of features that have moved away from the champion's training data.",
        (Query('max by (stream) (ml_drifted_features_ratio{stream=~"$stream"})', "{{stream}}"),),
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
                        "sum by (stream, model, variant) "
                        '(rate(ml_predictions_total{stream=~"$stream"}[$__rate_interval]))',
                        "{{stream}} {{variant}} {{model}}",
                    ),
                ),
                "eps",
            ),
            Panel(
                "Latency",
                "From the event's record in Kafka to its score.",
                (Query(LATENCY % 0.5, "{{stream}} p50"), Query(LATENCY % 0.99, "{{stream}} p99")),
                "s",
            ),
        ),
        (
            Panel(
                "ROC AUC",
                "Of the champion, window by window, with its 95% interval. A fall that leaves the interval is one.",
                (
                    Query(CHAMPION % "roc_auc", "{{stream}}"),
                    Query(CHAMPION % "roc_auc_low", "{{stream}} low"),
                    Query(CHAMPION % "roc_auc_high", "{{stream}} high"),
                ),
                "percentunit",
            ),
            Panel(
                "Labels",
                "Predictions that met their label in a second, and those that wait for it.",
                (
                    Query(
                        'sum by (stream) (rate(ml_samples_total{stream=~"$stream"}[$__rate_interval]))',
                        "{{stream}} labelled in a second",
                    ),
                    Query('sum by (stream) (ml_join_pending{stream=~"$stream"})', "{{stream}} waiting"),
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
                (Query('max by (stream, model, algorithm, revision) (ml_model_info{stream=~"$stream"})'),),
                kind="table",
            ),
        ),
    ),
)
