"""What the benchmarks and the chaos run are built from does what their results rely on, on Apache Kafka."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaException, Producer

from benchmarks import drift_producer, synthetic
from benchmarks.bad_events import KINDS
from benchmarks.chaos_producer import GOOD
from benchmarks.comparison import differences
from benchmarks.label_producer import Journaled
from benchmarks.plain import Kafka, until
from benchmarks.workers import Penstock
from tests.kafka.server import KafkaServer


@pytest.fixture
async def cluster(kafka: KafkaServer, unique: str) -> Kafka:
    """Kafka with two topics of four partitions, `<unique>.in` and `<unique>.out`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        wide = {"max.message.bytes": str(4 << 20)}
        await admin.create_topics(
            [NewTopic(f"{unique}.{end}", synthetic.PARTITIONS, 1, topic_configs=wide) for end in ("in", "out")]
        )
    finally:
        await admin.close()
    cluster = Kafka(kafka.bootstrap)
    until(lambda: all(_answers(cluster, f"{unique}.{end}") for end in ("in", "out")), "the new topics to have leaders")
    return cluster


def _answers(cluster: Kafka, topic: str) -> bool:
    try:
        return cluster.ends(topic) == {}
    except KafkaException:
        return False


@contextmanager
def running(module: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the test, however that ends."""
    process = subprocess.Popen([sys.executable, "-m", module, *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_bare_loop_scores_every_event_once_and_right_and_commits(
    cluster: Kafka, unique: str, tmp_path: Path
) -> None:
    values = synthetic.draw(20_000, seed=1)
    booster = synthetic.train(seed=1, trees=10)
    model_file = synthetic.save(booster, tmp_path / "model.ubj")
    cluster.fill(f"{unique}.in", synthetic.documents(values))
    command = [sys.executable, "-m", "benchmarks.bare_loop", cluster.bootstrap, f"{unique}.in", f"{unique}.out"]
    subprocess.run([*command, str(model_file), unique], check=True, timeout=60)
    assert differences(synthetic.expected_scores(booster, values), cluster.read(f"{unique}.out")) == []
    assert cluster.committed(unique, f"{unique}.in") == cluster.ends(f"{unique}.in")


def test_the_chaos_producer_says_of_each_event_where_it_is_and_what_is_wrong_with_it(
    cluster: Kafka, unique: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    words = [cluster.bootstrap, f"{unique}.in", str(journal), "1000", "0.3", "7"]
    with running("benchmarks.chaos_producer", *words) as process:
        until(lambda: sum(cluster.ends(f"{unique}.in").values()) > 2_000, "two thousand events")
        process.terminate()
        assert process.wait(60) == 0
    lines = [line.split() for line in journal.read_text(encoding="utf-8").splitlines()]
    rows = {(row.partition, row.offset): row for row in cluster.read(f"{unique}.in")}
    assert {(int(partition), int(offset)) for _, partition, offset, _ in lines} == rows.keys()
    assert Counter(kind for *_, kind in lines).keys() == {GOOD, *KINDS}
    for event_id, partition, offset, kind in lines:
        row = rows[int(partition), int(offset)]
        at_home = row.key is None or (murmur2(row.key) & 0x7FFFFFFF) % synthetic.PARTITIONS == row.partition
        assert at_home == (kind != "wrong_partition")
        assert (event_id.encode() in (row.value or b"")) == (kind not in ("empty_value", "null_value"))


def test_the_label_producer_says_of_each_label_where_it_is_and_what_must_become_of_it(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    with Penstock(tmp_path, kafka.bootstrap, synthetic.CONFIG) as penstock:
        penstock.run("topics", "apply")
    journal, cluster = tmp_path / "journal", Kafka(kafka.bootstrap)
    words = [kafka.bootstrap, str(journal), "1000", "7"]
    with running("benchmarks.label_producer", *words) as process:
        until(lambda: sum(cluster.ends(f"{synthetic.STREAM}.labels").values()) > 2_000, "two thousand labels")
        process.terminate()
        assert process.wait(60) == 0
    lines = map(msgspec.json.Decoder(Journaled).decode, journal.read_bytes().splitlines())
    told = {(line.partition, line.offset): line.fate for line in lines if not line.fate.assumed}
    labels = {(row.partition, row.offset): row for row in cluster.read(f"{synthetic.STREAM}.labels")}
    assert told.keys() == labels.keys()
    assert len(told) > 1_000
    for place, fate in told.items():
        assert labels[place].key == fate.entity_id.encode()
        assert fate.event_id.encode() in (labels[place].value or b"")
    events = [row.value or b"" for row in cluster.read(f"{synthetic.STREAM}.features")]
    first = {fate.event_id for fate in told.values() if fate.outcome == "sample"}
    assert len(events) == len({json.loads(event)["event_id"] for event in events})
    assert first <= {json.loads(event)["event_id"] for event in events}


def test_the_drift_producer_sends_at_least_so_many_events_and_they_are_those_that_are_drawn(
    cluster: Kafka, unique: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    words = [cluster.bootstrap, f"{unique}.in", str(journal), "2500", "200", "7"]
    with running("benchmarks.drift_producer", *words) as process:
        until(lambda: sum(cluster.ends(f"{unique}.in").values()) > 100, "the first events")
        process.terminate()
        assert process.wait(60) == 0
    events = int(journal.read_text(encoding="utf-8"))
    found = {row.value for row in cluster.read(f"{unique}.in")}
    assert found == {value for _, value in synthetic.documents(drift_producer.draw(events, 7))}
    assert len(found) == events == 2500


async def test_the_last_offsets_do_not_count_the_markers_of_transactions(cluster: Kafka, unique: str) -> None:
    topic = f"{unique}.out"
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=unique) as producer:
        for _ in range(2):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"value", partition=2)
            await producer.commit_transaction()
    assert cluster.last_offsets(topic) == {2: 3}
    assert cluster.ends(topic) == {2: 4}


def test_records_can_be_given_their_times(cluster: Kafka, unique: str) -> None:
    cluster.fill(f"{unique}.in", [(b"a", b"1"), (b"a", b"2")], [1_000, 2_000])
    assert [row.time_ms for row in cluster.read(f"{unique}.in")] == [1_000, 2_000]


async def test_a_reader_sees_aborted_records_only_when_it_asks_for_uncommitted_ones(
    cluster: Kafka, unique: str
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=unique) as producer:
        for value, keep in ((b"aborted", False), (b"committed", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(f"{unique}.out", value, partition=2)
            await (producer.commit_transaction() if keep else producer.abort_transaction())
    assert [row.value for row in cluster.read(f"{unique}.out")] == [b"committed"]
    assert [row.value for row in cluster.read(f"{unique}.out", committed=False)] == [b"aborted", b"committed"]


def test_a_stamped_topic_carries_the_brokers_time_whatever_the_client_says(cluster: Kafka, unique: str) -> None:
    topic, began_ms = f"{unique}.out", time.time_ns() // 1_000_000
    producer = Producer({"bootstrap.servers": cluster.bootstrap})

    def newest_time_ms() -> int:
        producer.produce(topic, b"value", partition=0, timestamp=1)
        producer.flush(10)
        return max(row.time_ms for row in cluster.read(topic))

    assert newest_time_ms() == 1
    cluster.stamp_by_broker(topic)
    until(lambda: newest_time_ms() >= began_ms, "the broker to stamp records", timeout_s=10)


def test_a_deleted_topic_is_gone_at_once(cluster: Kafka, unique: str) -> None:
    cluster.fill(f"{unique}.out", [(b"key", b"value")])
    assert sum(cluster.ends(f"{unique}.out").values()) == 1
    cluster.delete_topics(f"{unique}.out")
    assert cluster.ends(f"{unique}.out") == {}
