"""The metrics: what is counted is what Prometheus reads."""

import re

import numpy as np
import pytest
from prometheus_client import generate_latest

from stream import metrics as m
from stream.metric_values import Metrics
from stream.metrics import METRICS, SECONDS


def _buckets(metrics: Metrics, metric: m.Metric, **labels: str) -> dict[str, float]:
    return {
        sample.labels["le"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{metric.name}_bucket" and labels.items() <= sample.labels.items()
    }


def test_a_histogram_counts_each_duration_into_the_first_bucket_that_holds_it_and_all_above() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.0011, 0.3, 60.0, 61.0):
        metrics.observe(m.STEP_SECONDS, seconds, "score")
    buckets = _buckets(metrics, m.STEP_SECONDS, stage="score")
    assert [buckets[bound] for bound in ("0.001", "0.0025", "0.25", "0.5", "60.0", "+Inf")] == [2, 3, 3, 4, 5, 6]
    value = metrics.registry.get_sample_value
    assert value("ml_step_seconds_count", {"stage": "score"}) == 6
    assert value("ml_step_seconds_sum", {"stage": "score"}) == pytest.approx(121.3021)


def test_an_array_counts_as_its_numbers_do_one_by_one() -> None:
    together, alone = Metrics(), Metrics()
    seconds = np.concatenate([np.random.default_rng(1).exponential(0.5, 500), SECONDS, [0.0, 1e6]])
    together.observe_many(m.PREDICTION_LATENCY, seconds, "flights")
    for second in seconds:
        alone.observe(m.PREDICTION_LATENCY, second, "flights")
    wanted = _buckets(alone, m.PREDICTION_LATENCY, stream="flights")
    assert _buckets(together, m.PREDICTION_LATENCY, stream="flights") == wanted
    assert wanted["+Inf"] == len(seconds)


def test_label_sets_are_kept_apart() -> None:
    metrics = Metrics()
    metrics.observe(m.STEP_SECONDS, 0.5, "score")
    metrics.observe(m.STEP_SECONDS, 0.5, "control")
    metrics.count(m.DEAD_LETTERS, 3, "flights", "score", "empty")
    metrics.count(m.DEAD_LETTERS, 2, "flights", "score", "no_key")
    assert _buckets(metrics, m.STEP_SECONDS, stage="score")["+Inf"] == 1
    labels = {"stream": "flights", "stage": "score", "reason": "empty"}
    assert metrics.registry.get_sample_value("ml_dead_letters_total", labels) == 3


def test_a_gauge_that_is_cleared_forgets_its_label_sets() -> None:
    metrics = Metrics()
    metrics.set(m.MODEL_MEMORY, 5, "flights", "old")
    metrics.clear(m.MODEL_MEMORY)
    metrics.set(m.MODEL_MEMORY, 7, "flights", "new")
    value = metrics.registry.get_sample_value
    assert value("ml_model_memory_usage_bytes", {"stream": "flights", "model": "old"}) is None
    assert value("ml_model_memory_usage_bytes", {"stream": "flights", "model": "new"}) == 7


def test_the_values_of_a_gauge_are_those_whose_first_labels_match() -> None:
    metrics = Metrics()
    for stream, partition, waiting in (("flights", "0", 3), ("flights", "1", 4), ("fraud", "0", 5)):
        metrics.set(m.JOIN_PENDING, waiting, stream, partition)
    assert sorted(metrics.values(m.JOIN_PENDING, "flights")) == [3, 4]
    assert metrics.values(m.JOIN_PENDING, "threats") == []


def test_the_page_has_every_metric_with_its_meaning_and_the_process_s_cpu_and_memory() -> None:
    page = generate_latest(Metrics().registry).decode()
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        assert re.search(rf"^# HELP {name}(_total)? {re.escape(metric.meaning)}$", page, re.MULTILINE), metric.name
        assert re.search(rf"^# TYPE {name}(_total)? {metric.kind}$", page, re.MULTILINE), metric.name
    assert "process_cpu_seconds_total" in page
    assert "process_resident_memory_bytes" in page


def test_names_follow_prometheus_and_say_their_unit() -> None:
    inventories = {"ml_models_total", "ml_experiment_active_total"}  # named so from outside; they go down, too
    for metric in METRICS:
        assert metric.name.startswith("ml_")
        counts = metric.kind == "counter" or metric.name in inventories
        assert metric.name.endswith("_total") == counts, metric.name
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.endswith(f"_{metric.unit}"), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)
