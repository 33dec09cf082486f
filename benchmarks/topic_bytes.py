"""How many bytes does an event leave on each topic, as it is, and where the topics compress?

One Apache Kafka of its own, one worker with all roles. Streams alike get the same events and labels at a steady rate,
one after the other: the topics of the first are as `penstock topics apply` makes them, those of the others have a
`compression.type` set, so that the broker writes all batches so. What is measured are the files of the topics' logs,
with everything Kafka adds: batch headers, transaction markers. Each event must have its one right prediction and each
label its one sample, else the exit code is 1.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from benchmarks import machine, synthetic
from benchmarks.chaos_producer import LAST_ACK_S, keep_pace, patient_producer
from benchmarks.comparison import OutputsDiffer, differences
from benchmarks.plain import Kafka, until
from benchmarks.stream_fleet import Candidate, declare, deploy, penstock_of
from benchmarks.workers import Worker
from schemas.streams import StreamSpec
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics, topics_of

_PARTITIONS: Final = 4
_TIMEOUT_S: Final = 30.0
_FLUSH_S: Final = 2.0
_LABEL_LAG: Final = 1_000  # events between an event and its label
PLAIN: Final = "none"


def add_command(commands: Any) -> None:
    """Add `bytes` to the benchmarks that can be asked for."""
    parser = commands.add_parser("bytes", help="bytes per event on each topic, with and without compression")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rate", type=int, default=1_000, help="events per second, and as many labels")
    parser.add_argument("--codecs", nargs="*", default=["lz4", "zstd"], help="beside no compression")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    codecs = [PLAIN, *arguments.codecs]
    found: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(KafkaServer())
        penstock = stack.enter_context(penstock_of(folder, server.bootstrap))
        values, booster = synthetic.draw(arguments.events, arguments.seed), synthetic.train(arguments.seed)
        candidate = Candidate(bytes(booster.save_raw("ubj")), baseline_rows=values[:20_000].astype("float32"))
        declare(penstock, dict.fromkeys(codecs, synthetic.FEATURES), _PARTITIONS)
        deploy(penstock, dict.fromkeys(codecs, candidate))
        for codec in arguments.codecs:
            _compress(server.bootstrap, codec)
        worker = penstock.worker("worker")
        worker.wait_until_ready()
        expected = synthetic.expected_scores(booster, values)
        try:
            for codec in codecs:
                before = log_bytes(server.folder / "data", codec)
                _feed(server.bootstrap, codec, synthetic.documents(values), arguments)
                _check(worker, Kafka(server.bootstrap), codec, expected)
                after = log_bytes(server.folder / "data", codec)
                found[codec] = per_event(before, after, arguments.events)
                print(f"{codec}: {found[codec]}", flush=True)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
        if exit_code := worker.end():
            raise RuntimeError(f"the worker ended with {exit_code} when told to drain; see {worker.log}")
    result = {
        "events": arguments.events,
        "rate": arguments.rate,
        "bytes_per_event": found,
        "total": {codec: round(sum(sizes.values())) for codec, sizes in found.items()},
        "machine": machine.describe(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def log_bytes(data: Path, stream: str) -> dict[str, int]:
    """Return the bytes in the logs of each topic of a stream, all partitions together, by the topic's short name."""
    sizes: dict[str, int] = {}
    for segment in data.glob(f"{stream}.*/*.log"):
        topic = segment.parent.name.rpartition("-")[0].removeprefix(f"{stream}.")
        with contextlib.suppress(FileNotFoundError):  # compacted away just now
            sizes[topic] = sizes.get(topic, 0) + segment.stat().st_size
    return sizes


def per_event(before: Mapping[str, int], after: Mapping[str, int], events: int) -> dict[str, float]:
    """Return by topic how many bytes came for each event, the largest first, without topics that got nothing."""
    grown = {topic: (size - before.get(topic, 0)) / events for topic, size in after.items()}
    return {topic: round(grown[topic], 1) for topic in sorted(grown, key=lambda t: -grown[t]) if grown[topic] > 0}


def _compress(bootstrap: str, stream: str) -> None:
    """Let the broker write every topic of a stream with the codec that the stream is named for."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    spec = StreamSpec(name=stream, features=synthetic.FEATURES, partitions=_PARTITIONS)
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic.name,
            incremental_configs=[ConfigEntry("compression.type", stream, incremental_operation=AlterConfigOpType.SET)],
        )
        for topic in topics_of(spec)
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result(_TIMEOUT_S)


def _feed(bootstrap: str, stream: str, records: Iterator[tuple[bytes, bytes]], arguments: argparse.Namespace) -> None:
    """Send the events at the rate, each followed by its label a thousand events later."""
    producer, topics = patient_producer(bootstrap), StreamTopics(stream)
    encode = msgspec.json.Encoder().encode
    labels: list[tuple[bytes, bytes]] = []
    sent = 0

    def send_next() -> None:
        nonlocal sent
        if sent < arguments.events:
            key, value = next(records)
            producer.produce(topics.features, value, key)
            event = msgspec.json.decode(value)
            labels.append((key, encode(_label(event))))
        if sent >= _LABEL_LAG and sent - _LABEL_LAG < len(labels):
            key, value = labels[sent - _LABEL_LAG]
            producer.produce(topics.labels, value, key)
        sent += 1
        producer.poll(0)

    keep_pace(send_next, arguments.rate, lambda: sent >= arguments.events + _LABEL_LAG)
    if producer.flush(LAST_ACK_S):
        raise RuntimeError("not every record was acknowledged")


def _label(event: Mapping[str, Any]) -> dict[str, Any]:
    first = event["features"]["f0"]
    outcome = int(first is not None and first > 0)
    ids = {name: event[name] for name in ("event_id", "entity_id")}
    return ids | {"label": outcome, "label_time_ms": event["event_time_ms"] + 60_000}


def _check(worker: Worker, cluster: Kafka, stream: str, expected: Mapping[str, float]) -> None:
    """Wait for predictions and samples; raise OutputsDiffer when they are not what is expected."""
    topics = StreamTopics(stream)
    waits = {f"penstock-{group}": topic for group, topic in (("score", topics.features), ("join", topics.labels))}
    for group, topic in waits.items():
        ends = cluster.ends(topic)
        until(lambda g=group, t=topic, e=ends: cluster.committed(g, t) == e, f"{group} to drain {topic}", 60.0, 0.5)
    time.sleep(_FLUSH_S)  # evaluation and judgement of the last window
    worker.check()
    found = differences(expected, cluster.read(topics.predictions))
    samples = [msgspec.json.decode(row.value or b"{}").get("event_id") for row in cluster.read(topics.samples)]
    if sorted(filter(None, samples)) != sorted(expected):
        found.append(f"{len(samples)} samples for {len(expected)} labels")
    if found:
        raise OutputsDiffer(f"{stream}: {'; '.join(found)}")
