"""The brokers under the other tests do what those tests rely on."""

import asyncio
import socket

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.embedded import EmbeddedBroker
from tests.conftest import Broker
from tests.kafka.server import KafkaServer


async def _create(bootstrap: str, topic: str, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 4, 1, topic_configs=configs)])
    finally:
        await admin.close()


async def _write(bootstrap: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=4 << 20) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=1)


async def _read(bootstrap: str, topic: str, isolation_level: str = "read_committed") -> list[bytes]:
    options = {"isolation_level": isolation_level, "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, **options) as consumer:
        partition = TopicPartition(topic, 1)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(partition, timeout_ms=200)
            found += [record.value for record in batches.get(partition, [])]
        return found


def _address(bootstrap: str) -> tuple[str, int]:
    host, port = bootstrap.split(":")
    return host, int(port)


async def test_what_is_written_is_read_back_on_either_broker(broker: Broker, unique: str) -> None:
    if broker.kind == "kafka":
        await _create(broker.bootstrap, unique)
    await _write(broker.bootstrap, unique, b"one", b"two")
    assert await _read(broker.bootstrap, unique) == [b"one", b"two"]


async def test_a_group_remembers_where_it_was_on_either_broker(broker: Broker, unique: str) -> None:
    if broker.kind == "kafka":
        await _create(broker.bootstrap, unique)
    await _write(broker.bootstrap, unique, b"one", b"two")
    partition = TopicPartition(unique, 1)
    found = []
    for _ in range(2):
        options = {"group_id": unique, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, **options) as consumer:
            consumer.assign([partition])
            record = await consumer.getone()
            await consumer.commit({partition: record.offset + 1})
            found.append(record.value)
    assert found == [b"one", b"two"]


def test_a_closed_embedded_broker_is_gone_and_another_goes_on(embedded: EmbeddedBroker) -> None:
    with EmbeddedBroker() as closed:
        pass
    socket.create_connection(_address(embedded.bootstrap)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(closed.bootstrap))


async def test_a_topic_of_kafka_may_allow_larger_records(kafka: KafkaServer, unique: str) -> None:
    large = b"x" * (2 << 20)
    await _create(kafka.bootstrap, unique, **{"max.message.bytes": str(4 << 20)})
    await _write(kafka.bootstrap, unique, large)
    assert await _read(kafka.bootstrap, unique) == [large]


async def test_kafka_hides_an_aborted_transaction_from_committed_readers_only(kafka: KafkaServer, unique: str) -> None:
    await _create(kafka.bootstrap, unique)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=unique) as producer:
        for value, keep in ((b"aborted", False), (b"committed", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(unique, value, partition=1)
            await (producer.commit_transaction() if keep else producer.abort_transaction())
    assert await _read(kafka.bootstrap, unique) == [b"committed"]
    assert await _read(kafka.bootstrap, unique, "read_uncommitted") == [b"aborted", b"committed"]


async def test_kafka_keeps_address_and_data_over_a_restart_and_a_power_cut(
    kafka_server: KafkaServer, unique: str
) -> None:
    await _create(kafka_server.bootstrap, unique)
    await _write(kafka_server.bootstrap, unique, b"one")
    kafka_server.restart()
    await _write(kafka_server.bootstrap, unique, b"two")
    kafka_server.kill()
    kafka_server.start()
    assert await _read(kafka_server.bootstrap, unique) == [b"one", b"two"]


async def test_a_paused_kafka_answers_late_but_loses_nothing(kafka_server: KafkaServer, unique: str) -> None:
    await _create(kafka_server.bootstrap, unique)
    async with AIOKafkaProducer(bootstrap_servers=kafka_server.bootstrap) as producer:
        await producer.send_and_wait(unique, b"one", partition=1)
        with kafka_server.paused():
            pending = await producer.send(unique, b"two", partition=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pending), 0.5)
        await asyncio.wait_for(pending, 30)
    assert await _read(kafka_server.bootstrap, unique) == [b"one", b"two"]
