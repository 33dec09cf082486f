"""What is said and done about a topic that is not as its stream wants it; no broker is needed to decide."""

from dataclasses import replace

import pytest

from schemas.streams import StreamSpec
from stream.admin import ActualTopic, Difference, differences
from topics import StreamTopics, TopicSpec, topics_of

FLIGHTS = StreamSpec(
    name="flights", features=("a",), partitions=4, replication=2, min_insync_replicas=2, retention_hours=1
)
SPECS = {spec.name: spec for spec in topics_of(FLIGHTS)}
FEATURES = SPECS[StreamTopics("flights").features]
MODELS = SPECS[StreamTopics("flights").models]


def as_wanted(spec: TopicSpec) -> ActualTopic:
    return ActualTopic(partitions=spec.partitions, replication=spec.replication, config=spec.config, own={})


def with_config(spec: TopicSpec, key: str, value: str) -> ActualTopic:
    return replace(as_wanted(spec), config={**spec.config, key: value})


def only(spec: TopicSpec, actual: ActualTopic | None, brokers: int = 3) -> Difference:
    (difference,) = differences(spec, actual, brokers)
    return difference


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_topic_as_wanted_has_no_difference(spec: TopicSpec) -> None:
    assert differences(spec, as_wanted(spec), brokers=3) == []


def test_more_replicas_than_wanted_are_welcome() -> None:
    assert differences(FEATURES, replace(as_wanted(FEATURES), replication=3), brokers=3) == []


def test_settings_that_the_stream_does_not_mention_are_let_alone() -> None:
    assert differences(FEATURES, with_config(FEATURES, "compression.type", "zstd"), brokers=3) == []


def test_a_missing_topic_is_made() -> None:
    missing = only(FEATURES, None)
    assert missing.mend == "create"
    assert str(missing) == "topic flights.features does not exist: run `penstock topics apply`"


def test_a_missing_topic_is_not_made_with_more_replicas_than_brokers() -> None:
    missing = only(FEATURES, None, brokers=1)
    assert missing.mend is None
    assert "cannot have 2 replicas: the cluster has 1 broker" in str(missing)


@pytest.mark.parametrize("partitions", [3, 5])
def test_partitions_of_keyed_topics_are_never_changed(partitions: int) -> None:
    differs = only(FEATURES, replace(as_wanted(FEATURES), partitions=partitions))
    assert differs.mend is None
    assert f"has {partitions} partition(s), but must have 4: set the stream's partitions to {partitions}" in str(
        differs
    )


def test_a_second_partition_where_one_order_is_needed_cannot_be_declared_away() -> None:
    differs = only(MODELS, replace(as_wanted(MODELS), partitions=2))
    assert differs.mend is None
    assert "it needs one order" in str(differs)
    assert "set the stream's partitions" not in str(differs)


def test_too_few_replicas_are_for_a_person_to_mend() -> None:
    differs = only(FEATURES, replace(as_wanted(FEATURES), replication=1, config=FEATURES.config))
    assert differs.mend is None
    assert "has replication factor 1, but must have 2: raise it with kafka-reassign-partitions" in str(differs)


@pytest.mark.parametrize(
    ("key", "present", "wanted"),
    [
        ("retention.ms", "1000", "3600000"),
        ("max.message.bytes", "1048588", "4194304"),
        ("min.insync.replicas", "1", "2"),
    ],
)
def test_a_setting_that_can_lose_nothing_is_set(key: str, present: str, wanted: str) -> None:
    differs = only(FEATURES, with_config(FEATURES, key, present))
    assert differs.mend == (key, wanted)
    assert str(differs) == (
        f"topic flights.features has {key}={present}, but must have {wanted}: run `penstock topics apply`"
    )


@pytest.mark.parametrize("key", ["retention.ms", "retention.bytes"])
def test_a_registry_with_a_limit_loses_it(key: str) -> None:
    assert only(MODELS, with_config(MODELS, key, "1000")).mend == (key, "-1")


@pytest.mark.parametrize(
    ("key", "present", "wanted"),
    [
        ("retention.ms", "3600001", "3600000"),
        ("retention.ms", "-1", "3600000"),
        ("cleanup.policy", "compact", "delete"),
    ],
)
def test_a_setting_that_would_delete_records_is_for_a_person_to_set(key: str, present: str, wanted: str) -> None:
    differs = only(FEATURES, with_config(FEATURES, key, present))
    assert differs.mend is None
    assert f"kafka-configs --alter --entity-type topics --entity-name flights.features --add-config {key}={wanted}" in (
        str(differs)
    )


def test_in_sync_replicas_are_not_set_above_the_replicas_there_are() -> None:
    actual = replace(with_config(FEATURES, "min.insync.replicas", "1"), replication=1)
    found = differences(FEATURES, actual, brokers=3)
    assert [difference.mend for difference in found] == [None, None]
    assert "or nobody can write" in str(found[1])
