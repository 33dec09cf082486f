"""What the topics of a stream are."""

import pytest

from schemas.events import EVENT_TYPES, DeadLetter, Trigger
from schemas.streams import StreamSpec
from topics import MAX_MESSAGE_BYTES, StreamTopics, TopicSpec, topics_of

FLIGHTS = StreamSpec(
    name="flights", features=("a",), partitions=6, replication=3, min_insync_replicas=2, retention_hours=48
)
HOUR_MS = 3_600_000


def specs() -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in topics_of(FLIGHTS)}


def test_the_names_are_the_ones_that_producers_and_consumers_know() -> None:
    assert sorted(specs()) == [
        "flights.alerts",
        "flights.alerts.dead",
        "flights.audit",
        "flights.checkpoints",
        "flights.commands",
        "flights.commands.dead",
        "flights.deployments",
        "flights.drift",
        "flights.experiments",
        "flights.features",
        "flights.features.dead",
        "flights.histograms",
        "flights.labels",
        "flights.labels.dead",
        "flights.models",
        "flights.performance",
        "flights.predictions",
        "flights.retrain",
        "flights.samples",
        "flights.training",
        "flights.updates",
        "flights.variants",
    ]


def test_every_name_of_a_stream_has_a_topic_and_the_other_way_round() -> None:
    assert set(vars(StreamTopics("flights")).values()) == set(specs())


def test_an_entity_is_at_the_same_partition_in_every_topic_of_events() -> None:
    many = {name for name, spec in specs().items() if spec.partitions == 6}
    assert many == {f"flights.{name}" for name in ("features", "features.dead", "labels", "labels.dead", "predictions")}
    assert {spec.partitions for name, spec in specs().items() if name not in many} == {1}


@pytest.mark.parametrize("name", ["models", "deployments", "audit"])
def test_the_registry_is_kept_forever_whatever_the_cluster_defaults_to(name: str) -> None:
    config = specs()[f"flights.{name}"].config
    assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")


@pytest.mark.parametrize(
    "name",
    [
        "features",
        "features.dead",
        "labels",
        "labels.dead",
        "predictions",
        "samples",
        "histograms",
        "commands",
        "commands.dead",
    ],
)
def test_flows_are_kept_for_the_declared_time(name: str) -> None:
    assert specs()[f"flights.{name}"].config["retention.ms"] == str(48 * HOUR_MS)


@pytest.mark.parametrize("name", ["alerts", "alerts.dead", "drift", "performance", "updates", "retrain"])
def test_what_is_told_of_the_models_is_kept_longer_than_the_events_it_is_about(name: str) -> None:
    assert int(specs()[f"flights.{name}"].config["retention.ms"]) > 48 * HOUR_MS


def test_only_checkpoints_are_compacted_and_nothing_else_removes_one() -> None:
    policies = {name: spec.config["cleanup.policy"] for name, spec in specs().items()}
    assert {name for name, policy in policies.items() if policy != "delete"} == {"flights.checkpoints"}
    assert policies["flights.checkpoints"] == "compact"
    assert "retention.ms" not in specs()["flights.checkpoints"].config


def test_an_oversized_event_reaches_the_dead_letters_and_a_large_state_its_topic() -> None:
    wide = {name for name, spec in specs().items() if spec.config.get("max.message.bytes") == str(MAX_MESSAGE_BYTES)}
    assert wide == {f"flights.{name}" for name in ("features", "features.dead", "labels", "labels.dead", "checkpoints")}


def test_replication_holds_for_every_topic() -> None:
    assert {(spec.replication, spec.config["min.insync.replicas"]) for spec in specs().values()} == {(3, "2")}


def test_every_event_type_has_its_topic() -> None:
    values = [spec.value for spec in topics_of(FLIGHTS)]
    assert {value for value in values if isinstance(value, type)} == set(EVENT_TYPES) - {Trigger}  # which is in samples
    assert values.count(DeadLetter) == 4
    assert [value for value in values if isinstance(value, str)] == ["FeatureEvent"]


def test_two_streams_share_no_topic() -> None:
    other = StreamSpec(name="flights-2", features=("a",))
    assert not set(specs()) & {spec.name for spec in topics_of(other)}
