"""What a plain Kafka client (librdkafka) sees of topics and groups. Nothing of Penstock is used here."""

import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

_TIMEOUT_S: Final = 30.0


class Row(NamedTuple):
    """One record as a reader sees it; `time_ms` is its timestamp, whoever set it."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    time_ms: int


class Kafka:
    """Questions and small requests to the cluster at `bootstrap`."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    def read(self, topic: str, *, committed: bool = True) -> Iterator[Row]:
        """Yield every record of `topic` from its start to its present end, each partition in order.

        With `committed`, what belongs to aborted transactions is left out; otherwise it is in. About 400,000 rows/s.
        """
        follower = Follower(self.bootstrap, topic, committed=committed)
        while not follower.at_end:
            yield from follower.poll(1.0)
        follower.close()

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end offset of each partition that has ever had a record."""
        probe = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "log_level": 2})
        try:
            found = {}
            for number in self.partitions(topic):
                _, end = probe.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
                found[number] = end
            return {number: end for number, end in found.items() if end}
        finally:
            probe.close()

    def last_offsets(self, topic: str) -> dict[int, int]:
        """Return by partition the offset after the last committed record, which is what a group commits in the end.

        Behind it there may be markers of transactions, up to the end of the partition. Reads the whole topic.
        """
        return {row.partition: row.offset + 1 for row in self.read(topic)}

    def partitions(self, topic: str) -> list[int]:
        """Return the partition numbers of a topic."""
        return sorted(self._admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the offsets that `group` has committed on `topic`; empty when there are none yet."""
        asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in self.partitions(topic)])]
        (answer,) = self._admin.list_consumer_group_offsets(asked).values()
        return {p.partition: p.offset for p in answer.result(_TIMEOUT_S).topic_partitions if p.offset >= 0}

    def delete_topics(self, *topics: str) -> None:
        """Delete topics and wait until they are gone."""
        for future in self._admin.delete_topics(list(topics)).values():
            future.result(_TIMEOUT_S)
        until(lambda: not set(topics) & set(self._admin.list_topics(timeout=_TIMEOUT_S).topics), "topics to be deleted")

    def stamp_by_broker(self, topic: str) -> None:
        """Let the broker write the time of appending into every record, so that no client tells its own time.

        It does so from some milliseconds after this call on.
        """
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result(_TIMEOUT_S)

    def fill(self, topic: str, records: Iterable[tuple[bytes, bytes]], times_ms: Iterable[int] = ()) -> None:
        """Write keyed records, placed as Java clients place them, and wait for every acknowledgement.

        `times_ms` are their timestamps; where these end, it is the time of writing.
        """
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "batch.size": 500_000,
                "queue.buffering.max.messages": 200_000,
                "log_level": 2,
            }
        )
        for (key, value), time_ms in zip(records, chain(times_ms, repeat(0)), strict=False):
            while True:
                try:
                    producer.produce(topic, value, key, timestamp=time_ms)
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
        if producer.flush(_TIMEOUT_S):
            raise RuntimeError(f"not every record of {topic} was acknowledged")


class Follower:
    """Follows a topic from its start, or from the end that it has at the first poll.

    `at_end` tells whether the last poll had reached the end everywhere.
    """

    def __init__(self, bootstrap: str, topic: str, *, committed: bool = True, from_end: bool = False) -> None:
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "enable.partition.eof": True,
                "log_level": 2,
            }
        )
        numbers = self._consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
        self._open = set(numbers)
        start = OFFSET_END if from_end else OFFSET_BEGINNING
        self._consumer.assign([TopicPartition(topic, number, start) for number in numbers])

    @property
    def at_end(self) -> bool:
        """Whether every partition had nothing more to give."""
        return not self._open

    def poll(self, timeout_s: float) -> list[Row]:
        """Return what has arrived, waiting at most `timeout_s` for the first 10,000 records."""
        rows = []
        for message in self._consumer.consume(10_000, timeout_s):
            error = message.error()
            if error is None:
                self._open.add(message.partition())
                _, time_ms = message.timestamp()
                rows.append(Row(message.key(), message.value(), message.partition(), message.offset(), time_ms))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._open.discard(message.partition())
            elif not error.retriable():
                raise KafkaException(error)
        return rows

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def until(holds: Any, what: str, timeout_s: float = 60.0, every_s: float = 0.1) -> None:
    """Wait until `holds()` is true; raise TimeoutError, which names `what` was waited for, when it does not."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(every_s)
