"""Quix Streams: a StreamingDataFrame that ends in a custom sink, which is how its documentation batches work.

StreamingDataFrame has no operation on batches: `apply` gets one message. Its count windows are by message key, so with
many keys they neither fill nor close in time. What gets batches are its sinks: a checkpoint flushes them, and commits
offsets only after that. So events are scored and written in a sink derived from BaseSink, as the page "Creating a
Custom Sink" describes: `add()` accumulates, sends a full batch at once, and `flush()` sends the rest and waits for all
acknowledgements. Quix Streams' own KafkaReplicatorSink writes to Kafka in the same way. This sink is what is measured.
The same with `apply(expand=True)` and `to_topic`, one event at a time, was about ten times slower by the wall clock.

Pages: "Creating a Custom Sink", "Checkpointing", "Application API" (processing guarantees, extra client options).
"""

import tempfile
from typing import Any, Final

from quixstreams import Application
from quixstreams.kafka import Producer
from quixstreams.sinks import BaseSink
from work import Job, Work, read_job

# No gain was seen from 2,000.
_BATCH_EVENTS: Final = 1_000
# A checkpoint closes what is not a full batch, so this bounds the latency of a quiet stream. It also stops the world
# (flush, then a synchronous commit), so it must not come too often: the default is 5 s.
_COMMIT_INTERVAL_S: Final = 0.05
# The loop looks at the checkpoint only after a poll returns; the default lets a quiet poll last 1 s.
_POLL_TIMEOUT_S: Final = 0.005
_CONSUMER: Final = {
    "fetch.wait.max.ms": 10,  # the default, 500, does not add latency while events come, but after a pause
    "fetch.queue.backoff.ms": 10,  # the default of Quix Streams is 100: it pauses fetching when the queue is full
    "queued.min.messages": 100_000,
    "log_level": 3,
}
_PRODUCER: Final = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,  # batches arrive as one burst; flush() does not wait for it
    "batch.size": 1_000_000,
    "batch.num.messages": 10_000,
    "compression.type": "none",
    "queue.buffering.max.messages": 200_000,
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,  # the callback is wanted for failures only, and costs at each call
    "log_level": 3,
}


class ScoringSink(BaseSink):  # type: ignore[misc]
    """Scores what is added in batches, and writes predictions and histograms to Kafka."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self._work = Work(job)
        self._producer: Any = None
        self._held: list[tuple[bytes, bytes, int, int, int]] = []
        self._error: Any = None

    def setup(self) -> None:
        """Make the producer: called once, as the application starts."""
        self._producer = Producer(broker_address=self._job.bootstrap, extra_config=_PRODUCER)

    def add(
        self, value: bytes, key: bytes, timestamp: int, headers: Any, topic: str, partition: int, offset: int
    ) -> None:
        """Hold an event, and score and send what is held when it is enough."""
        self._held.append((value, key, partition, offset, timestamp))
        if len(self._held) >= _BATCH_EVENTS:
            self._send()

    def flush(self) -> None:
        """Score and send the rest, and wait until the broker has acknowledged everything; the checkpoint commits next.

        Raises RuntimeError when something was not delivered: then the offsets are not committed.
        """
        if self._held:
            self._send()
        if self._producer.flush() or self._error is not None:
            raise RuntimeError(f"not every prediction was acknowledged: {self._error}")

    def _send(self) -> None:
        values, keys, partitions, offsets, timestamps = zip(*self._held, strict=True)
        self._held = []
        produce, topic = self._producer.produce, self._job.predictions
        for key, prediction in zip(keys, self._work.score(values, partitions, offsets, timestamps), strict=True):
            produce(topic, prediction, key, on_delivery=self._delivered)
        histogram = self._work.histogram()
        if histogram is not None:
            produce(self._job.histograms, histogram, on_delivery=self._delivered)

    def _delivered(self, error: Any, message: Any) -> None:
        self._error = self._error or error


def main() -> None:
    """Score until SIGTERM, which Application.run() takes for the sign to commit and end."""
    job = read_job()
    application = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        processing_guarantee="at-least-once",
        commit_interval=_COMMIT_INTERVAL_S,
        consumer_poll_timeout=_POLL_TIMEOUT_S,
        consumer_extra_config=_CONSUMER,
        producer_extra_config=_PRODUCER,
        auto_create_topics=False,
        use_changelog_topics=False,  # there is no state
        state_dir=tempfile.mkdtemp(prefix="quix-"),
        loglevel="WARNING",
    )
    events = application.topic(job.source, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(events).sink(ScoringSink(job))
    application.run()


if __name__ == "__main__":
    main()
