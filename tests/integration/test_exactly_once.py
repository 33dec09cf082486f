"""Exactly once on Apache Kafka, as a reader of committed records counts: kills, zombies, rebalances, restarts."""

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from agents.score import Score
from stream.batches import Batch, Outbox, TopicPartition
from stream.connection import KafkaConnection
from stream.delivery import ExactlyOnce
from stream.links import Links
from stream.tasks import PartitionTask
from tests.conftest import Broker
from tests.kafka.server import KafkaServer, RunningKafka
from tests.workers import (
    PARTITIONS,
    PATIENCE_S,
    Deployment,
    Running,
    Sent,
    document,
    draw,
    events,
    eventually,
    placed,
    process,
    train,
)
from topics import StreamTopics

Kafka = KafkaServer | RunningKafka


class Load:
    """Events that go out at a steady pace until told to stop; every tenth is broken."""

    def __init__(self, deployment: Deployment, stream: str) -> None:
        self.sent = 0
        self._deployment = deployment
        self._stream = stream
        self._stopping = False

    async def run(self) -> None:
        values = iter(events(draw(20_000)))
        async with self._deployment.producer(self._stream) as send:
            while not self._stopping:
                good = [next(values) for _ in range(9)]
                await send([*good, good[0]._replace(value=b"{broken")])
                self.sent += 10
                await asyncio.sleep(0.03)

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def load(deployment: Deployment, stream: str) -> AsyncIterator[Load]:
    """Load on `stream` for the time of the block; afterwards all of it must be there, each event exactly once."""
    load = Load(deployment, stream)
    running = asyncio.create_task(load.run())
    yield load
    load.stop()
    await running
    predictions, letters = await deployment.outputs(stream, load.sent)
    places = Counter([(p.partition, p.offset) for p in predictions] + [(p.partition, p.offset) for p in letters])
    assert [place for place, count in places.items() if count > 1] == []
    assert len(predictions) == len({p.event_id for p in predictions}) == load.sent * 9 // 10
    assert len(letters) == load.sent // 10


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Let asyncio complain at the end of each test of errors that aiokafka left, and not in the middle of another."""
    yield
    gc.collect()


@pytest.fixture
def deployment(kafka: Kafka, unique: str, tmp_path: Path) -> Deployment:
    # A Kafka that is not ours may refuse the short session time-out that ours allows.
    session_ms = "1500" if isinstance(kafka, KafkaServer) else "6000"
    environ = {"ML_KAFKA_SESSION_TIMEOUT_MS": session_ms, "ML_DEAD_LETTER_SHARE": "1"}
    return Deployment(Broker("kafka", kafka.bootstrap), unique, tmp_path, environ, **{f"{unique}-flights": []})


@pytest.fixture
async def stream(deployment: Deployment) -> str:
    """The deployment's only stream, with a champion."""
    [stream] = deployment.streams
    [version] = (await deployment.prepare(**{stream: train(1)})).values()
    async with deployment.worker(["learn"]):
        await deployment.promote(version)
    return stream


def _score_tasks(running: Running) -> list[PartitionTask]:
    return [task for task in running.worker.tasks() if task.name.stage == "score"]


def _owns(running: Running, partitions: int) -> Callable[[], bool]:
    """Whether the worker works on so many partitions."""
    return lambda: len(tasks := _score_tasks(running)) == partitions and all(task.running for task in tasks)


def _counted(running: Running, name: str, **labels: str) -> float:
    return running.worker.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_worker_that_is_stopped_continued_and_killed_loses_and_doubles_nothing(
    deployment: Deployment, stream: str
) -> None:
    async with deployment.worker(["score"]) as survivor:
        await eventually(_owns(survivor, PARTITIONS))
        async with load(deployment, stream):
            with process(deployment) as victim:
                await eventually(_owns(survivor, 2))
                await asyncio.sleep(1.0)
                victim.send_signal(signal.SIGSTOP)
                await eventually(_owns(survivor, PARTITIONS))
                victim.send_signal(signal.SIGCONT)
                await eventually(_owns(survivor, 2))
                await asyncio.sleep(1.0)
                victim.kill()
                await eventually(_owns(survivor, PARTITIONS))
            await asyncio.sleep(0.5)


async def test_workers_that_join_and_leave_under_load_lose_and_double_nothing(
    deployment: Deployment, stream: str
) -> None:
    async with deployment.worker(["score"]) as first:
        await eventually(_owns(first, PARTITIONS))
        async with load(deployment, stream):
            for _ in range(2):
                async with deployment.worker(["score"]) as second:
                    await eventually(_owns(second, 2))
                    await asyncio.sleep(0.3)
                await eventually(_owns(first, PARTITIONS))
                await asyncio.sleep(0.3)
        assert _counted(first, "ml_task_restarts_total", stage="score", reason="retry") == 0


@pytest.mark.parametrize("transaction", ["", ".b"])
async def test_a_task_fenced_by_a_stranger_comes_back_and_doubles_nothing(
    deployment: Deployment, stream: str, transaction: str
) -> None:
    async with deployment.worker(["score"]) as running:
        await eventually(_owns(running, PARTITIONS))
        async with load(deployment, stream):
            await asyncio.sleep(0.5)
            task = _score_tasks(running)[1]
            options = {
                "bootstrap_servers": deployment.connection.bootstrap,
                "transactional_id": f"{task.name}{transaction}",
            }
            async with AIOKafkaProducer(**options) as stranger, stranger.transaction():
                await eventually(lambda: not task.running)
            await eventually(_owns(running, PARTITIONS))
            await asyncio.sleep(0.3)
        assert _counted(running, "ml_task_restarts_total", stage="score", reason="fenced") == 1


async def test_a_broker_s_restart_under_load_loses_and_doubles_nothing(
    kafka_server: KafkaServer, deployment: Deployment, stream: str
) -> None:
    async with deployment.worker(["score"]) as running:
        await eventually(_owns(running, PARTITIONS))
        async with load(deployment, stream):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(kafka_server.restart)
            await asyncio.sleep(1.0)


async def test_without_transactions_a_clean_restart_loses_and_doubles_nothing(
    deployment: Deployment, stream: str
) -> None:
    async with AsyncExitStack() as last, load(deployment, stream):
        async with deployment.worker(["score"], delivery="at_least_once") as running:
            await eventually(_owns(running, PARTITIONS))
            await asyncio.sleep(0.7)
        await last.enter_async_context(deployment.worker(["score"], delivery="at_least_once"))


async def test_events_written_in_transactions_are_scored_once_committed_and_leave_no_lag(
    deployment: Deployment, stream: str
) -> None:
    source = TopicPartition(StreamTopics(stream).features, 0)
    records = [record for record in events(draw(200)) if record.partition == 0]
    async with deployment.worker(["score"]) as running:
        await eventually(_owns(running, PARTITIONS))
        [task] = [task for task in _score_tasks(running) if task.name.partition == 0]
        options = {"bootstrap_servers": deployment.connection.bootstrap, "transactional_id": stream}
        async with AIOKafkaProducer(**options) as producer:
            for keep in (False, True):
                await producer.begin_transaction()
                for record in records:
                    await producer.send(source.topic, record.value, key=record.key, partition=0)
                await producer.flush()
                await asyncio.sleep(0.5)
                assert task.lag_events == {source: 0}  # nobody may read them yet
                await (producer.commit_transaction() if keep else producer.abort_transaction())
        predictions, letters = await deployment.outputs(stream, len(records))
        assert sorted(p.event_id for p in predictions) == sorted(f"e{_number(record)}" for record in records)
        assert letters == []
        await eventually(lambda: task.lag_events == {source: 0})


def _number(record: Sent) -> int:
    return int((record.value or b"").split(b'"e', 2)[2].split(b'"')[0])


async def test_records_that_retention_took_are_counted_and_the_rest_is_scored(
    deployment: Deployment, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TopicPartition(StreamTopics(stream).features, 0)
    busy, go_on = asyncio.Event(), asyncio.Event()
    process = Score.process

    async def wait_and_process(self: Score, batch: Batch, outbox: Outbox) -> None:
        busy.set()
        await go_on.wait()
        await process(self, batch, outbox)

    monkeypatch.setattr(Score, "process", wait_and_process)
    entity = next(record for record in events(draw(50)) if record.partition == 0).key
    assert entity is not None
    large = [
        placed(document(number, [0.5, 0.5, 0.5], entity_id=entity.decode(), more="x" * 20_000))
        for number in range(1200)
    ]
    async with deployment.worker(["score"]) as running:
        await eventually(_owns(running, PARTITIONS))
        go_on.set()
        await deployment.send(stream, large[:1])
        await deployment.outputs(stream, 1)
        go_on.clear()
        busy.clear()
        await deployment.send(stream, large[1:2])
        await asyncio.wait_for(busy.wait(), PATIENCE_S)
        await deployment.send(stream, large[2:1100])
        admin = AIOKafkaAdminClient(bootstrap_servers=deployment.connection.bootstrap)
        await admin.start()
        await admin.delete_records({source: RecordsToDelete(before_offset=1100)})
        await admin.close()
        go_on.set()
        await deployment.send(stream, large[1100:])
        await eventually(lambda: _counted(running, "ml_events_expired_total", topic=source.topic) > 0)
        lost = int(_counted(running, "ml_events_expired_total", topic=source.topic))
        predictions, _ = await deployment.outputs(stream, 1200 - lost)
    assert [p.offset for p in predictions] == [*range(1100 - lost), *range(1100, 1200)]


async def _small_topics(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    small = NewTopic(f"{name}.out", 1, 1, topic_configs={"max.message.bytes": "2000"})
    await admin.create_topics([NewTopic(f"{name}.in", 1, 1), small])
    await admin.close()


@asynccontextmanager
async def _links(bootstrap: str) -> AsyncIterator[Links]:
    links = Links(KafkaConnection(bootstrap=bootstrap))
    await links.start()
    yield links
    await links.stop()


def _outbox(name: str, value: bytes) -> Outbox:
    outbox = Outbox()
    outbox.add(f"{name}.out", 0, None, value)
    return outbox


async def _committed(bootstrap: str, group: str) -> dict[TopicPartition, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    found = await admin.list_consumer_group_offsets(group)
    await admin.close()
    return {source: each.offset for source, each in found.items()}


async def _readable(bootstrap: str, topic: str) -> list[bytes | None]:
    """What a reader of committed records sees of a partition."""
    options = {"bootstrap_servers": bootstrap, "isolation_level": "read_committed", "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(topic, **options) as consumer:
        found = []
        while batches := await consumer.getmany(timeout_ms=500):
            found += [record.value for records in batches.values() for record in records]
        return found


async def test_no_offset_is_committed_past_an_output_that_kafka_refused(kafka: Kafka, unique: str) -> None:
    await _small_topics(kafka.bootstrap, unique)
    source = TopicPartition(f"{unique}.in", 0)
    async with _links(kafka.bootstrap) as links:
        delivery = ExactlyOnce(links, unique, f"{unique}-score")
        await delivery.start()
        await delivery.send(_outbox(unique, b"x" * 5000))
        with pytest.raises(MessageSizeTooLargeError):
            await delivery.commit(Outbox(), {source: 7})
        await delivery.stop()
    assert await _committed(kafka.bootstrap, f"{unique}-score") == {}


async def test_what_is_sent_during_a_commit_is_committed_by_the_next_one(kafka: Kafka, unique: str) -> None:
    await _small_topics(kafka.bootstrap, unique)
    source = TopicPartition(f"{unique}.in", 0)
    async with _links(kafka.bootstrap) as links:
        delivery = ExactlyOnce(links, unique, f"{unique}-score")
        await delivery.start()
        for number in range(20):
            await delivery.send(_outbox(unique, b"%d" % number))
            commit = asyncio.ensure_future(delivery.commit(_outbox(unique, b"saved %d" % number), {source: number + 1}))
            await delivery.send(_outbox(unique, b"after %d" % number))
            await commit
        before = await _readable(kafka.bootstrap, f"{unique}.out")
        await delivery.stop()
    assert await _committed(kafka.bootstrap, f"{unique}-score") == {source: 20}
    written = await _readable(kafka.bootstrap, f"{unique}.out")
    assert before == written, "stopping aborts what was sent after the last commit"
    expected = [word % number for number in range(20) for word in (b"%d", b"saved %d", b"after %d")]
    assert written == expected[:-1], "in the order in which they were sent"


async def test_starting_gives_up_both_transactions_of_who_had_the_task_before(
    kafka: Kafka, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _small_topics(kafka.bootstrap, unique)
    source = TopicPartition(f"{unique}.in", 0)
    async with _links(kafka.bootstrap) as links:
        old, new = (ExactlyOnce(links, unique, f"{unique}-score") for _ in range(2))
        await old.start()
        for number in range(2):
            await old.send(_outbox(unique, b"%d" % number))
            await old.commit(Outbox(), {source: number + 1})
        await old.send(_outbox(unique, b"in the first"))
        may_end, end = asyncio.Event(), old._open.commit

        async def end_late() -> None:
            await may_end.wait()
            await end()

        monkeypatch.setattr(old._open, "commit", end_late)
        unfinished = asyncio.ensure_future(old.commit(Outbox(), {source: 3}))
        await old.send(_outbox(unique, b"in the second"))
        await new.start()
        may_end.set()
        with pytest.raises(ProducerFenced):
            await unfinished
        with pytest.raises(ProducerFenced):
            await old.commit(Outbox(), {source: 4})
        await new.send(_outbox(unique, b"new"))
        await new.commit(Outbox(), {source: 3})
        await old.stop()
        await new.stop()
    assert await _readable(kafka.bootstrap, f"{unique}.out") == [b"0", b"1", b"new"]
    assert await _committed(kafka.bootstrap, f"{unique}-score") == {source: 3}


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
async def test_a_fenced_delivery_says_that_it_was_fenced_however_late_it_notices(
    kafka: Kafka, unique: str, pause_s: float
) -> None:
    await _small_topics(kafka.bootstrap, unique)
    source = TopicPartition(f"{unique}.in", 0)
    async with _links(kafka.bootstrap) as links:
        old, new = (ExactlyOnce(links, unique, f"{unique}-score") for _ in range(2))
        await old.start()
        await old.send(_outbox(unique, b"1"))
        await old.commit(Outbox(), {source: 1})
        await new.start()
        with pytest.raises(ProducerFenced):
            await old.send(_outbox(unique, b"2"))
            await asyncio.sleep(pause_s)
            await old.commit(Outbox(), {source: 2})
        await old.stop()
        await new.stop()
