"""Topics applied and checked on brokers that run."""

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.embedded import EmbeddedBroker
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from stream.admin import apply, check, require
from stream.connection import KafkaConnection
from tests.conftest import Broker
from tests.kafka.server import KafkaServer, RunningKafka
from topics import MAX_MESSAGE_BYTES, StreamTopics, TopicSpec, topics_of

Kafka = KafkaServer | RunningKafka


@pytest.fixture
def stream(unique: str) -> StreamSpec:
    return StreamSpec(name=unique, features=("a",), partitions=3, retention_hours=2)


async def make(connection: KafkaConnection, name: str, partitions: int, **config: str) -> None:
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dotted)])
    await admin.close()


async def config_of(connection: KafkaConnection, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    await admin.close()
    [(_, _, _, _, entries)] = response.resources
    return {key: value for key, value, *_ in entries}


async def test_a_topic_that_was_applied_passes_the_check_and_applying_again_changes_nothing(
    broker: Broker, stream: StreamSpec
) -> None:
    connection = KafkaConnection(bootstrap=broker.bootstrap)
    specs = topics_of(stream)
    first = await apply(connection, specs)
    assert [outcome.topic for outcome in first] == [spec.name for spec in specs]
    assert await check(connection, specs) == []
    assert {outcome.action for outcome in await apply(connection, specs)} == {"unchanged"}


async def test_created_topics_are_what_their_stream_says(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    outcomes = await apply(connection, topics_of(stream))
    assert {outcome.action for outcome in outcomes} == {"created"}
    names = StreamTopics(stream.name)
    features, models = await config_of(connection, names.features), await config_of(connection, names.models)
    assert features["retention.ms"] == str(2 * 3_600_000)
    assert features["max.message.bytes"] == str(MAX_MESSAGE_BYTES)
    assert (models["retention.ms"], models["cleanup.policy"]) == ("-1", "delete")
    async with AIOKafkaProducer(**connection.client_options()) as producer:
        assert await producer.partitions_for(names.features) == {0, 1, 2}
        assert await producer.partitions_for(names.models) == {0}


async def test_a_worker_on_an_empty_cluster_is_told_to_apply(kafka: Kafka, stream: StreamSpec) -> None:
    sentences = await check(KafkaConnection(bootstrap=kafka.bootstrap), topics_of(stream))
    assert f"topic {stream.name}.features does not exist: run `penstock topics apply`" in sentences
    assert len(sentences) == len(topics_of(stream))


async def test_what_is_required_is_counted_and_what_is_missing_is_told_in_one_sentence(
    broker: Broker, stream: StreamSpec
) -> None:
    connection, names = KafkaConnection(bootstrap=broker.bootstrap), StreamTopics(stream.name)
    await apply(connection, [topic for topic in topics_of(stream) if topic.name in (names.features, names.models)])
    absent = [names.labels, names.samples, names.drift]
    if (await connection.reachable()).embedded:
        assert await require(connection, absent) == {}
        return
    assert await require(connection, [names.models, names.features]) == {names.models: 1, names.features: 3}
    for wanted, words in ((absent, "and 2 more do"), (absent[:1], "does")):
        with pytest.raises(
            SettingsError, match=f"^topic {names.labels} {words} not exist: run `penstock topics apply`"
        ):
            await require(connection, [names.features, *wanted])
    assert len(await check(connection, topics_of(stream))) == len(topics_of(stream)) - 2  # none was made by asking


async def test_checking_makes_no_topic(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    assert await check(connection, topics_of(stream)) == await check(connection, topics_of(stream))
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    assert not [name for name in await admin.list_topics() if name.startswith(f"{stream.name}.")]
    await admin.close()


async def test_what_is_safe_is_changed_and_the_settings_of_others_stay(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    name = StreamTopics(stream.name).features
    await make(connection, name, 3, retention_ms="1000", compression_type="zstd")
    sentences = [s for s in await check(connection, topics_of(stream)) if name in s and f"{name}.dead" not in s]
    assert sentences == [
        f"topic {name} has retention.ms=1000, but must have 7200000: run `penstock topics apply`",
        f"topic {name} has max.message.bytes=1048588, but must have 4194304: run `penstock topics apply`",
    ]
    outcomes = await apply(connection, topics_of(stream))
    assert [(o.topic, o.detail) for o in outcomes if o.action == "changed"] == [
        (name, "retention.ms=7200000, max.message.bytes=4194304")
    ]
    assert await check(connection, topics_of(stream)) == []
    after = await config_of(connection, name)
    assert (after["retention.ms"], after["max.message.bytes"]) == ("7200000", "4194304")
    assert after["compression.type"] == "zstd"


async def test_other_partition_counts_are_refused_and_left_alone(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    names = StreamTopics(stream.name)
    for name in (names.labels, names.commands):
        await make(connection, name, 2, retention_ms=str(2 * 3_600_000))
    refused = {o.topic: o.detail for o in await apply(connection, topics_of(stream)) if o.action == "refused"}
    assert refused.keys() == {names.labels, names.commands}
    assert "has 2 partition(s), but must have 3" in refused[names.labels]
    assert "it needs one order" in refused[names.commands]
    problems = await check(connection, topics_of(stream))
    assert [problem.split(" has ")[0] for problem in problems] == [f"topic {names.labels}", f"topic {names.commands}"]
    async with AIOKafkaProducer(**connection.client_options()) as producer:
        assert await producer.partitions_for(names.labels) == {0, 1}


async def test_a_shorter_retention_is_refused_and_no_record_is_lost(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    name = StreamTopics(stream.name).features
    await apply(connection, topics_of(stream))
    shorter = topics_of(msgspec.structs.replace(stream, retention_hours=1))
    refused = [outcome for outcome in await apply(connection, shorter) if outcome.action == "refused"]
    assert name in {outcome.topic for outcome in refused}
    assert all("kafka-configs" in outcome.detail for outcome in refused)
    assert (await config_of(connection, name))["retention.ms"] == "7200000"


async def test_more_replicas_than_brokers_are_refused_in_a_sentence(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    brokers = (await connection.reachable()).brokers
    specs = [replace(spec, replication=brokers + 1) for spec in topics_of(stream)]
    outcomes = await apply(connection, specs)
    assert Counter(outcome.action for outcome in outcomes) == {"refused": len(specs)}
    assert f"cannot have {brokers + 1} replicas: the cluster has {brokers} broker(s)" in outcomes[0].detail
    assert f"cannot have {brokers + 1} replicas" in (await check(connection, specs))[0]


async def test_what_kafka_itself_refuses_is_an_outcome_with_its_words(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    impossible: list[TopicSpec] = [replace(topics_of(stream)[0], config={"retention.ms": "soon"})]
    (outcome,) = await apply(connection, impossible)
    assert outcome.action == "refused"
    assert "Invalid value soon for configuration retention.ms" in outcome.detail


async def test_records_outlive_applying(kafka: Kafka, stream: StreamSpec) -> None:
    connection = KafkaConnection(bootstrap=kafka.bootstrap)
    name = StreamTopics(stream.name).features
    await make(connection, name, 3)
    async with AIOKafkaProducer(**connection.client_options()) as producer:
        sent = await producer.send_and_wait(name, b"{}", partition=1)
        await apply(connection, topics_of(stream))
        again = await producer.send_and_wait(name, b"{}", partition=1)
    assert (sent.topic_partition, again.offset) == (TopicPartition(name, 1), sent.offset + 1)


async def test_the_embedded_broker_needs_no_topics(embedded: EmbeddedBroker, stream: StreamSpec) -> None:
    outcomes = await apply(KafkaConnection(bootstrap=embedded.bootstrap), topics_of(stream))
    assert {(outcome.action, outcome.detail) for outcome in outcomes} == {
        ("unchanged", "the embedded broker makes topics on first use")
    }


@pytest.mark.parametrize("what", [apply, check])
async def test_a_broker_that_is_away_is_one_sentence(what: object, stream: StreamSpec) -> None:
    with EmbeddedBroker() as broker:
        gone = broker.bootstrap
    assert callable(what)
    with pytest.raises(RetryableError, match="nothing listens there"):
        await what(KafkaConnection(bootstrap=gone), topics_of(stream))
