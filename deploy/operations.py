"""Whether the workers keep up, and what goes wrong in them."""

from typing import Final

from deploy.panels import Dashboard, Panel, Query


def _quantile(metric: str, by: str, legend: str) -> Query:
    labels = f"{by}, le" if by else "le"
    expr = f"histogram_quantile(0.99, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"
    return Query(expr, legend)


def _total(metric: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) ({metric})", legend)


def _of_streams(metric: str, by: str, legend: str) -> Query:
    return _total(f'{metric}{{stream=~"$stream"}}', by, legend)


_FLOW: Final = (
    (
        Panel(
            "Ready",
            "Workers whose every task has recovered, of those that are scraped.",
            (Query("sum(ml_ready)", "ready"), Query('count(up{job="penstock"})', "scraped")),
            "none",
            "stat",
        ),
        Panel(
            "Tasks", "Partition tasks that run, on all workers.", (Query("sum(ml_partition_tasks)"),), "none", "stat"
        ),
        Panel(
            "Processor",
            "Of all workers, in cores.",
            (Query('sum(rate(process_cpu_seconds_total{job="penstock"}[$__rate_interval]))'),),
            "none",
            "stat",
        ),
        Panel(
            "Memory",
            "Resident, of all workers.",
            (Query('sum(process_resident_memory_bytes{job="penstock"})'),),
            "bytes",
            "stat",
        ),
    ),
    (
        Panel(
            "Lag",
            "Records that wait, by consumer group and topic. What grows wants more workers of that role.",
            (Query('sum by (group, topic) (ml_consumer_lag_events{topic=~"$stream[.].+"})', "{{group}} {{topic}}"),),
        ),
        Panel(
            "Commits",
            "In a second, by stage. Lag without commits is a stage that is stuck.",
            (Query("sum by (stage) (rate(ml_commit_seconds_count[$__rate_interval]))", "{{stage}}"),),
        ),
        Panel("Tasks", "By group and stage.", (_total("ml_partition_tasks", "group, stage", "{{group}} {{stage}}"),)),
    ),
    (
        Panel("Commit, p99", "How long a commit takes.", (_quantile("ml_commit_seconds", "stage", "{{stage}}"),), "s"),
        Panel(
            "Step, p99",
            "How long a stage holds the event loop at a time; the aim is below 20 ms.",
            (_quantile("ml_step_seconds", "stage", "{{stage}}"),),
            "s",
        ),
        Panel(
            "Event loop, p99",
            "How late timers of the worker fire: above 0.1 s, the latency of scores is not the models'.",
            (_quantile("ml_event_loop_lag_seconds", "instance", "{{instance}}"),),
            "s",
        ),
    ),
)

_WRONG: Final = (
    Panel(
        "Dead letters",
        "Since the workers started, by stage and reason.",
        (_of_streams("ml_dead_letters_total", "stream, stage, reason", "{{stream}} {{stage}} {{reason}}"),),
    ),
    Panel(
        "Failures",
        "Since the workers started: batches not scored, models not loaded, views not written. They are tried again.",
        (
            _of_streams("ml_prediction_errors_total", "stream", "{{stream}} scoring"),
            _of_streams("ml_model_load_failures_total", "stream", "{{stream}} loading of models"),
            _of_streams("ml_view_failures_total", "stream", "{{stream}} views"),
        ),
    ),
    Panel(
        "Restarts and losses",
        "Since the workers started: tasks opened again, and records that retention removed before they were read.",
        (
            _total("ml_task_restarts_total", "stage, reason", "restart: {{stage}} {{reason}}"),
            _total("ml_events_expired_total", "topic", "lost: {{topic}}"),
        ),
    ),
)

_TOLD: Final = (
    Panel(
        "Alerts sent",
        "Since the workers started, by sink and outcome; the undeliverable ones are in <stream>.alerts.dead.",
        (_of_streams("ml_notifications_total", "stream, sink, outcome", "{{stream}} {{sink}} {{outcome}}"),),
    ),
    Panel(
        "Alerts that wait",
        "To be delivered, by sink. A sink that is down delays no other.",
        (_of_streams("ml_notifications_waiting", "stream, sink", "{{stream}} {{sink}}"),),
    ),
    Panel(
        "Delivery, p99",
        "From the alert's record in Kafka to its delivery, over the last hour.",
        (
            Query(
                "histogram_quantile(0.99, sum by (stream, sink, le) "
                '(rate(ml_notification_delay_seconds_bucket{stream=~"$stream"}[1h])))',
                "{{stream}} {{sink}}",
            ),
        ),
        "s",
    ),
)

_SIZE: Final = (
    Panel(
        "Samples archived",
        "In a second.",
        (
            Query(
                'sum by (stream) (rate(ml_samples_archived_total{stream=~"$stream"}[$__rate_interval]))', "{{stream}}"
            ),
        ),
    ),
    Panel(
        "Processes",
        "Resident memory of each worker.",
        (Query('process_resident_memory_bytes{job="penstock"}', "{{instance}}"),),
        "bytes",
    ),
    Panel(
        "Models",
        "The size of each loaded model in memory, and of each routed model's file.",
        (
            Query('max by (stream, model) (ml_model_memory_usage_bytes{stream=~"$stream"})', "{{model}} in memory"),
            Query('max by (stream, model) (ml_model_file_size_bytes{stream=~"$stream"})', "{{model}} file"),
        ),
        "bytes",
    ),
)

DASHBOARD: Final = Dashboard(
    "operations",
    "Operations",
    "Whether the workers keep up, how long their steps and commits take, and what goes wrong in them.",
    (*_FLOW, _WRONG, _TOLD, _SIZE),
)
