"""Bytewax: KafkaSource, flat_map_batch and a sink that waits for acknowledgements once a snapshot; one worker thread.

`flat_map_batch` scores what KafkaSource has consumed at once. Bytewax commits no offsets to Kafka and joins no group:
it keeps them in its recovery partition, as the pages "Recovery" and "Kafka" say it must. There is one such partition,
beside the job's file and named by the group: started again with the same job, the flow goes on from its snapshot.

Its own KafkaSink flushes the producer after every batch, and so waits with an idle core. Here the sink is of the other
kind that the page "Custom Connectors" has: a FixedPartitionedSink, whose `snapshot()` is called at the end of each
epoch, before the epoch is recorded as done. That is where this one flushes, so nothing is skipped after a crash. Both
were tried, in two alternating rounds on a busy machine: for 300,000 events KafkaSink took 4.8 to 7.3 s of processor
time with batches of 1,000 to 10,000, and this sink 3.6 to 4.8 s.

Pages: "Kafka", "Recovery", "Custom Connectors", and the docstrings of `flat_map_batch` and of bytewax.outputs.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from confluent_kafka import Producer
from work import Job, Work, read_job

# KafkaSource's own default, "a suitable starting point for higher throughput"; no gain was seen from 4,000.
_BATCH_EVENTS: Final = 1_000
# An epoch ends with a snapshot and here with a flush. The default is 10 s; with 1 s less is done twice after a crash,
# and two alternating runs showed no clear cost. No old snapshots are wanted: the backup interval stays at zero.
_EPOCH: Final = timedelta(seconds=1)
_SINK_PARTITION: Final = "all"
_CONSUMER: Final = {
    "fetch.wait.max.ms": "10",  # a quiet partition answers soon; events that are there are sent at once anyway
    "queued.min.messages": "100000",
}
_PRODUCER: Final = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "batch.num.messages": 10_000,
    "compression.type": "none",
    "queue.buffering.max.messages": 200_000,
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,  # the callback is wanted for failures only, and costs at each call
}

_Message = tuple[str, bytes | None, bytes]
"""Topic, key and value."""


class _ProducingPartition(StatefulSinkPartition[list[_Message], None]):
    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._error: Any = None

    def write_batch(self, values: list[list[_Message]]) -> None:
        """Hand all messages of all batches to the producer, and do not wait for them."""
        for messages in values:
            for topic, key, value in messages:
                self._produce(topic, key, value)
            self._producer.poll(0)

    def snapshot(self) -> None:
        """Wait until everything is acknowledged: the epoch counts as done only after this.

        Raises RuntimeError, which ends the flow, when something was not delivered.
        """
        if self._producer.flush() or self._error is not None:
            raise RuntimeError(f"not every prediction was acknowledged: {self._error}")

    def close(self) -> None:
        """Wait for what is left."""
        self.snapshot()

    def _produce(self, topic: str, key: bytes | None, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered)
                return
            except BufferError:  # the producer's queue is full: the broker is slower than this
                self._producer.poll(0.05)

    def _delivered(self, error: Any, message: Any) -> None:
        self._error = self._error or error


class ProducingSink(FixedPartitionedSink[list[_Message], None]):
    """Writes lists of messages, each to the topic that it names, through one producer."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def list_parts(self) -> list[str]:
        """There is one worker, and so one partition."""
        return [_SINK_PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ProducingPartition:
        """Make the producer; there is no position to resume from."""
        return _ProducingPartition(Producer({"bootstrap.servers": self._bootstrap, **_PRODUCER}))


def dataflow(job: Job) -> Dataflow:
    """Return source, scoring and sink in a line. An event that is none, or an error of Kafka's, ends the flow."""
    work = Work(job)

    def score(events: list[KafkaSourceMessage[bytes, bytes]]) -> list[tuple[str, list[_Message]]]:
        predictions = work.score(
            [event.value for event in events],
            [event.partition for event in events],
            [event.offset for event in events],
            [event.timestamp[1] for event in events],
        )
        messages = [
            (job.predictions, event.key, prediction) for event, prediction in zip(events, predictions, strict=True)
        ]
        histogram = work.histogram()
        if histogram is not None:
            messages.append((job.histograms, None, histogram))
        return [(_SINK_PARTITION, messages)]  # one item of the flow is a whole batch: each costs some microseconds

    flow = Dataflow("scoring")
    source = KafkaSource([job.bootstrap], [job.source], add_config=_CONSUMER, batch_size=_BATCH_EVENTS)
    events = op.input("events", flow, source)
    op.output("messages", op.flat_map_batch("score", events, score), ProducingSink(job.bootstrap))
    return flow


def main() -> None:
    """Score until SIGTERM, which ends it at once, as Bytewax has no handler: what no snapshot has yet is repeated."""
    job = read_job()
    folder = Path(sys.argv[1]).parent / f"{job.group}-recovery"
    if not folder.exists():
        folder.mkdir()
        init_db_dir(folder, 1)
    cli_main(dataflow(job), epoch_interval=_EPOCH, recovery_config=RecoveryConfig(folder))


if __name__ == "__main__":
    main()
