"""Pathway: io.kafka.read, a batched UDF, io.kafka.write; one worker thread, no licence key, telemetry off by default.

`@pw.udf(max_batch_size=...)` with the synchronous executor gets lists of column values, as the page "User-defined
functions" has it. The reader's metadata column tells partition, offset and timestamp. Pathway commits no offsets to
Kafka: persistence keeps them. Its mode is PERSISTING, the default, which also stores the input: OPERATOR_PERSISTING,
which the documentation calls the most efficient, is refused without a licence key. The folder is beside the job's file
and named by the group: started again with the same job, the flow goes on.

Pages: "Using Kafka connectors", "User-defined functions", "Persistence", and the docstrings of pathway.io.kafka.

Pathway is under the Business Source License 1.1, which grants "the right to copy, modify, create derivative works,
redistribute, and make non-production use of the Licensed Work"; it says nothing of benchmarks.
"""

import sys
from pathlib import Path
from typing import Any, Final

import pathway as pw
from work import Work, read_job

_BATCH_EVENTS: Final = 1_000
# The time between two commits, each a minibatch, which the default of 1.5 s would make the latency.
_AUTOCOMMIT_MS: Final = 50
# "A few thousand to a few tens of thousands is a reasonable starting point". With 100,000 all of such a backlog is held
# back and then written in one burst, for as much processor time.
_BACKLOG_EVENTS: Final = 20_000
_SNAPSHOT_MS: Final = 1_000
_CONSUMER: Final = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": "false",
    "fetch.wait.max.ms": "10",  # the default, 500, is for how long an answer to a quiet partition is held back
}
_PRODUCER: Final = {
    "acks": "all",
    "enable.idempotence": "true",
    "linger.ms": "5",
    "batch.size": "1000000",
    "batch.num.messages": "10000",
    "compression.type": "none",
    "partitioner": "murmur2_random",
}


def main() -> None:
    """Build the graph and run it until SIGTERM, which Pathway takes for the sign to end, with exit code 143."""
    job = read_job()
    work = Work(job)

    # It is not deterministic, as it tells the time; but the input only grows, so there is nothing to be memoized for.
    @pw.udf(max_batch_size=_BATCH_EVENTS, deterministic=True, executor=pw.udfs.sync_executor())  # type: ignore[misc]
    def score(data: list[bytes], metadata: list[pw.Json]) -> list[tuple[bytes, bytes | None]]:
        places: list[Any] = [each.value for each in metadata]
        predictions = work.score(
            data,
            [place["partition"] for place in places],
            [place["offset"] for place in places],
            [place["timestamp_millis"] for place in places],
        )
        rows: list[tuple[bytes, bytes | None]] = [(prediction, None) for prediction in predictions]
        rows[-1] = (predictions[-1], work.histogram())
        return rows

    events = pw.io.kafka.read(
        {"bootstrap.servers": job.bootstrap, "group.id": job.group, **_CONSUMER},
        topic=job.source,
        format="raw",
        autocommit_duration_ms=_AUTOCOMMIT_MS,
        autogenerate_key=True,  # a row of its own for each event: the message's key is the entity, which has many
        with_metadata=True,
        max_backlog_size=_BACKLOG_EVENTS,
        name="events",
    )
    scored = events.select(pw.this.key, result=score(pw.this.data, pw.this._metadata))
    outputs = scored.select(pw.this.key, value=pw.this.result[0], histogram=pw.this.result[1])
    histograms = outputs.filter(pw.this.histogram.is_not_none()).select(value=pw.unwrap(pw.this.histogram))
    producer = {"bootstrap.servers": job.bootstrap, **_PRODUCER}
    pw.io.kafka.write(
        outputs, producer, job.predictions, format="raw", key=outputs.key, value=outputs.value, name="predictions"
    )
    pw.io.kafka.write(histograms, producer, job.histograms, format="raw", value=histograms.value, name="histograms")

    folder = Path(sys.argv[1]).parent / f"{job.group}-persistence"
    backend = pw.persistence.Backend.filesystem(folder)
    persistence = pw.persistence.Config(backend, snapshot_interval_ms=_SNAPSHOT_MS)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=persistence)


if __name__ == "__main__":
    main()
