"""A stage's memory on Apache Kafka: the newest checkpoint that counts, and the records before what is committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from schemas.events import Checkpoint
from stream.batches import Outbox, TopicPartition
from stream.memory import KafkaMemory
from tests.kafka.server import KafkaServer, RunningKafka

Kafka = KafkaServer | RunningKafka
REACHED = {TopicPartition("in", 0): 1_000}


def memory(kafka: Kafka, topic: str, stage: str = "join", partition: int = 0) -> KafkaMemory:
    return KafkaMemory(topic, stage, partition, lambda: consumer(kafka))


def consumer(kafka: Kafka) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,
    )


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(
        stage="join", partition=0, format=1, offsets={"in": number}, state=msgspec.Raw(b'{"n":%d}' % number)
    )


@asynccontextmanager
async def transactional(kafka: Kafka, name: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, outbox: Outbox) -> None:
    for target, records in outbox.targets.items():
        for key, value in records:
            await producer.send_and_wait(target.topic, value, key=key, partition=target.partition)


async def save(producer: AIOKafkaProducer, keeper: KafkaMemory, number: int, *, commit: bool) -> None:
    outbox = Outbox()
    keeper.save(checkpoint(number), outbox)
    await producer.begin_transaction()
    await send(producer, outbox)
    await (producer.commit_transaction() if commit else producer.abort_transaction())


@pytest.fixture
async def topic(kafka: Kafka, unique: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(unique, 1, 1)])
    await admin.close()
    return unique


async def test_the_newest_committed_checkpoint_of_this_stage_and_partition_counts(kafka: Kafka, topic: str) -> None:
    ours, others = memory(kafka, topic), memory(kafka, topic, partition=1)
    assert await ours.newest(REACHED) is None
    async with transactional(kafka, f"{topic}-a") as producer:
        for number in range(3):
            await save(producer, ours, number, commit=True)
            await save(producer, others, 10 + number, commit=True)
        await save(producer, ours, 99, commit=False)
    assert await ours.newest(REACHED) == checkpoint(2)
    assert await ours.newest({TopicPartition("in", 0): 1}) == checkpoint(1)  # the others are ahead


async def test_a_checkpoint_behind_the_open_transaction_of_another_stage_is_waited_for(
    kafka: Kafka, topic: str
) -> None:
    ours, others = memory(kafka, topic), memory(kafka, topic, "evaluate")
    async with transactional(kafka, f"{topic}-a") as mine, transactional(kafka, f"{topic}-b") as theirs:
        await save(mine, ours, 1, commit=True)
        outbox = Outbox()
        others.save(checkpoint(50), outbox)
        await theirs.begin_transaction()
        await send(theirs, outbox)
        await save(mine, ours, 2, commit=True)
        reading = asyncio.create_task(ours.newest(REACHED))
        await asyncio.sleep(1.0)
        assert not reading.done()
        await theirs.commit_transaction()
        assert await asyncio.wait_for(reading, 20) == checkpoint(2)


async def test_a_range_is_read_to_its_last_record_whatever_lies_behind_it(kafka: Kafka, topic: str) -> None:
    source = TopicPartition(topic, 0)
    async with transactional(kafka, f"{topic}-a") as producer:
        for number in range(5):  # each is followed by a commit marker, and every other one is aborted
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
            await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
    keeper = memory(kafka, topic)

    async def read(start: int, stop: int) -> list[bytes]:
        return [record.value async for batch in keeper.read(source, start, stop) for record in batch.records]  # type: ignore[misc]

    assert await read(0, 10) == [b"0", b"2", b"4"]
    assert await read(1, 8) == [b"2"]
    assert await read(4, 4) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({source: RecordsToDelete(5)})
    await admin.close()
    assert await read(0, 10) == [b"4"]


async def test_a_checkpoint_that_cannot_be_read_is_none(kafka: Kafka, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(topic, b"{}", key=b"join.0", partition=0)
    assert await memory(kafka, topic).newest(REACHED) is None
