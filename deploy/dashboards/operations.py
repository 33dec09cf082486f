"""The dashboard of operations: whether the workers keep up, and what goes wrong in them."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Query
from deploy.dashboards.promql import greatest, per_second, quantile, shown, total

_WORKERS: Final = '{job="penstock"}'
_TOPICS: Final = '{topic=~"$stream[.].+"}'


def _slowest(metric: str, by: str) -> Query:
    """Return the p99 of durations."""
    return Query(quantile(0.99, f"{metric}_bucket", by), f"{{{{{by}}}}}")


def _total(metric: str, legend: str, *by: str) -> Query:
    return Query(total(metric, *by), legend)


def _of_streams(metric: str, legend: str, *by: str) -> Query:
    return Query(total(shown(metric), "stream", *by), f"{{{{stream}}}} {legend}")


_FLOW: Final = (
    (
        Panel(
            "Ready",
            "Workers whose every task has recovered, with a champion where they score, of those that are scraped.",
            (Query("sum(ml_ready)", "ready"), Query(f"count(up{_WORKERS})", "scraped")),
            "none",
            "stat",
        ),
        Panel(
            "Tasks", "Partition tasks that run, on all workers.", (Query("sum(ml_partition_tasks)"),), "none", "stat"
        ),
        Panel(
            "Processor",
            "Of all workers, in cores.",
            (Query(per_second(f"process_cpu_seconds_total{_WORKERS}", "job"), "processor"),),
            "none",
            "stat",
        ),
        Panel(
            "Memory",
            "Resident, of all workers.",
            (Query(f"sum(process_resident_memory_bytes{_WORKERS})"),),
            "bytes",
            "stat",
        ),
    ),
    (
        Panel(
            "Lag",
            "Records that wait, by consumer group and topic. What grows wants more workers of that role.",
            (_total(f"ml_consumer_lag_events{_TOPICS}", "{{group}} {{topic}}", "group", "topic"),),
        ),
        Panel(
            "Committed",
            "Records in a second, by consumer group and topic. Lag without commits is a stage that is stuck.",
            (Query(per_second(f"ml_committed_records_total{_TOPICS}", "group", "topic"), "{{group}} {{topic}}"),),
        ),
        Panel("Tasks", "By group and stage.", (_total("ml_partition_tasks", "{{group}} {{stage}}", "group", "stage"),)),
    ),
    (
        Panel("Commit, p99", "How long a commit takes.", (_slowest("ml_commit_seconds", "stage"),), "s"),
        Panel(
            "Step, p99",
            "How long a stage holds the event loop at a time; the aim is below 20 ms.",
            (_slowest("ml_step_seconds", "stage"),),
            "s",
        ),
        Panel(
            "Event loop, p99",
            "How late timers of the worker fire: above 0.1 s, the latency of scores is not the models'.",
            (_slowest("ml_event_loop_lag_seconds", "instance"),),
            "s",
        ),
    ),
)

_WRONG: Final = (
    Panel(
        "Dead letters",
        "Since the workers started, by stage and reason.",
        (_of_streams("ml_dead_letters_total", "{{stage}} {{reason}}", "stage", "reason"),),
    ),
    Panel(
        "Failures",
        "Since the workers started: batches not scored, models not loaded, views not written. They are tried again.",
        (
            _of_streams("ml_prediction_errors_total", "scoring"),
            _of_streams("ml_model_load_failures_total", "loading of models"),
            _of_streams("ml_view_failures_total", "views"),
        ),
    ),
    Panel(
        "Restarts and losses",
        "Since the workers started: tasks opened again, and records that retention removed before they were read.",
        (
            _total("ml_task_restarts_total", "restart: {{stage}} {{reason}}", "stage", "reason"),
            _total("ml_events_expired_total", "lost: {{topic}}", "topic"),
        ),
    ),
)

_TOLD: Final = (
    Panel(
        "Alerts sent",
        "Since the workers started, by sink and outcome; the undeliverable ones are in <stream>.alerts.dead.",
        (_of_streams("ml_notifications_total", "{{sink}} {{outcome}}", "sink", "outcome"),),
    ),
    Panel(
        "Alerts that wait",
        "To be delivered, by sink. A sink that is down delays no other.",
        (_of_streams("ml_notifications_waiting", "{{sink}}", "sink"),),
    ),
    Panel(
        "Delivery, p99",
        "From the alert's record in Kafka to its delivery, over the last hour.",
        (
            Query(
                quantile(0.99, shown("ml_notification_delay_seconds_bucket"), "stream", "sink", over="1h"),
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
        (Query(per_second(shown("ml_samples_archived_total"), "stream"), "{{stream}}"),),
    ),
    Panel(
        "Processes",
        "Resident memory of each worker.",
        (Query(f"process_resident_memory_bytes{_WORKERS}", "{{instance}}"),),
        "bytes",
    ),
    Panel(
        "Models",
        "The size of each loaded model in memory, and of each routed model's file.",
        (
            Query(greatest(shown("ml_model_memory_usage_bytes"), "stream", "model"), "{{model}} in memory"),
            Query(greatest(shown("ml_model_file_size_bytes"), "stream", "model"), "{{model}} file"),
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
