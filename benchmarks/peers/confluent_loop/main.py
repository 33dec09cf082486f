"""A bare loop on confluent-kafka: what librdkafka can reach with Python on top, and nothing of a framework.

It follows the overview of confluent-kafka-python
(https://docs.confluent.io/kafka-clients/python/current/overview.html), on "synchronous commits" and on
delivery reports, and librdkafka's INTRODUCTION.md on throughput, latency and fetching
(https://github.com/confluentinc/librdkafka/blob/master/INTRODUCTION.md).

Rounds follow each other without waiting: librdkafka fetches and sends in threads of its own. Once a second, all that
was sent is flushed and then the offsets are committed. A crash repeats at most what came in that second.
"""

import signal
import time
from operator import methodcaller
from types import FrameType
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from work import Job, Work, read_job

_ROUND_RECORDS: Final = 4_096
_POLL_S: Final = 0.2
_COMMIT_EVERY_S: Final = 1.0
_FLUSH_S: Final = 30.0

_error, _key, _value = methodcaller("error"), methodcaller("key"), methodcaller("value")
_partition, _offset, _timestamp = methodcaller("partition"), methodcaller("offset"), methodcaller("timestamp")


class Loop:
    """Consume, score, produce, commit, until stopped."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._work = Work(job)
        self._positions: dict[int, int] = {}  # by partition: the offset after the last one that was sent on
        self._failed: KafkaError | None = None
        self._stopping = False
        self._consumer = Consumer(_consumer_settings(job))
        self._producer = Producer(_producer_settings(job, self._delivered))

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """End `run` after the round that is in the making."""
        self._stopping = True

    def run(self) -> None:
        """Raises KafkaException when a prediction could not be written: nothing is committed from there on."""
        self._consumer.subscribe([self._job.source])
        due_s = time.monotonic() + _COMMIT_EVERY_S
        while not self._stopping:
            # `consume` alone, with a timeout, was seen to hold a lone event for about 60 ms: so wait with `poll`, and
            # take with it what has arrived.
            first = self._consumer.poll(_POLL_S)
            messages = [] if first is None else [first, *self._consumer.consume(_ROUND_RECORDS - 1, 0)]
            if messages:
                self._round(messages)
            self._producer.poll(0)
            if time.monotonic() >= due_s:
                self._settle()
                due_s = time.monotonic() + _COMMIT_EVERY_S
        self._settle()
        self._consumer.close()

    def _round(self, messages: list[Message]) -> None:
        for error in filter(None, map(_error, messages)):
            raise KafkaException(error)
        partitions, offsets = list(map(_partition, messages)), list(map(_offset, messages))
        times_ms = [time_ms for _, time_ms in map(_timestamp, messages)]
        outputs = self._work.score(list(map(_value, messages)), partitions, offsets, times_ms)
        produce, topic = self._producer.produce, self._job.predictions
        for key, value, partition in zip(map(_key, messages), outputs, partitions, strict=True):
            produce(topic, value, key, partition)
        counted = self._work.histogram()
        if counted is not None:
            self._producer.produce(self._job.histograms, counted)
        self._positions.update(zip(partitions, (offset + 1 for offset in offsets), strict=True))

    def _settle(self) -> None:
        """Wait for every acknowledgement, then commit what was read until now."""
        if not self._positions:
            return
        left = self._producer.flush(_FLUSH_S)
        if self._failed is not None or left:
            raise KafkaException(self._failed or KafkaError(KafkaError._TIMED_OUT))
        offsets = [TopicPartition(self._job.source, number, offset) for number, offset in self._positions.items()]
        self._consumer.commit(offsets=offsets, asynchronous=False)
        self._positions.clear()

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        self._failed = self._failed or error


def _consumer_settings(job: Job) -> dict[str, Any]:
    return {
        "bootstrap.servers": job.bootstrap,
        "group.id": job.group,
        "enable.auto.commit": False,  # this loop commits what was acknowledged
        "auto.offset.reset": "earliest",
        "max.partition.fetch.bytes": 4 * 1024 * 1024,  # few fetches, each of several rounds
        "queued.min.messages": 20_000,  # by partition; the default of 100,000 is more than is ever in the making
        "fetch.queue.backoff.ms": 5,  # the default of 1 s after a full queue lets it run dry
    }


def _producer_settings(job: Job, delivered: Any) -> dict[str, Any]:
    return {
        "bootstrap.servers": job.bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,  # the default, written down: it bounds what batching costs a lone event
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 1_000_000,  # a second of predictions must fit
        "queue.buffering.max.kbytes": 1024 * 1024,
        "on_delivery": delivered,
        "delivery.report.only.error": True,  # flush() counts the others; a call of Python for each would tell no more
    }


if __name__ == "__main__":
    loop = Loop(read_job())
    signal.signal(signal.SIGTERM, loop.stop)
    loop.run()
