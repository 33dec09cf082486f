"""Does the stream feel that a model is being trained beside it?

One worker with all roles, one Apache Kafka, one producer of 1,000 events per second, on all the cores that there are.
Calm spans and spans in which a run trains take turns.
"""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import machine, synthetic
from benchmarks.chaos_learn import until_committed
from benchmarks.chaos_score import deployed, producing
from benchmarks.plain import Follower, Kafka
from benchmarks.recovery import now_ms
from benchmarks.spans import Span, read_for, read_until, summary
from benchmarks.train_samples import DECLARATION, sample_records
from schemas.events import RetrainRequest
from schemas.runs import TrainingEvent
from schemas.wire import encode
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_SETTLE_S: Final = 5.0
_LEAST_SPAN_S: Final = 10.0
_CONFIG: Final = f"""\
{DECLARATION}
min_samples = 5000

[streams.{synthetic.STREAM}.training.parameters]
max_depth = 8
learning_rate = 0.02
"""


def add_command(commands: Any) -> None:
    """Add `training` to the benchmarks that can be asked for."""
    parser = commands.add_parser("training", help="train beside the stream: what that does to its latency")
    parser.add_argument("--samples", type=int, default=120_000, help="what a run trains on")
    parser.add_argument("--rate", type=int, default=1_000, help="events per second")
    parser.add_argument("--rounds", type=int, default=3, help="calm spans, and runs")
    parser.add_argument("--calm", type=float, default=20.0, help="seconds of a calm span")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when a run made no model, or was too short to tell."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        print(f"writing {arguments.samples:,} samples", flush=True)
        penstock = stack.enter_context(deployed(folder, server, _CONFIG, arguments.seed))
        cluster.fill(_TOPICS.samples, sample_records(arguments.samples, arguments.seed + 1))
        worker = penstock.worker("worker")
        worker.wait_until_ready()
        until_committed(cluster, "penstock-archive", _TOPICS.samples)
        words = [_TOPICS.features, str(folder / "journal"), str(arguments.rate), "0", str(arguments.seed)]
        spans: dict[str, list[Span]] = {"calm": [], "training": []}
        with producing("benchmarks.chaos_producer", cluster.bootstrap, *words):
            reader = stack.enter_context(contextlib.closing(Follower(server.bootstrap, _TOPICS.predictions)))
            runs = stack.enter_context(contextlib.closing(Follower(server.bootstrap, _TOPICS.training)))
            read_for(reader, _SETTLE_S)
            for number in range(arguments.rounds):
                spans["calm"].append(read_for(reader, arguments.calm))
                spans["training"].append(_train(reader, runs, cluster, number))
                for kind, found in spans.items():
                    print(f"round {number + 1}: {kind:9}{found[-1]}", flush=True)
                read_for(reader, _SETTLE_S)
        ended = [msgspec.json.decode(row.value or b"", type=TrainingEvent) for row in cluster.read(_TOPICS.training)]
        outcomes = [event.outcome for event in ended if event.phase == "ended"]
        worker.end()
    result = summary(spans) | {"outcomes": outcomes, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    long_enough = all(span.seconds >= _LEAST_SPAN_S for span in spans["training"])
    return 0 if long_enough and set(outcomes) <= {"accepted", "rejected"} and len(outcomes) == arguments.rounds else 1


def _train(reader: Follower, runs: Follower, cluster: Kafka, number: int) -> Span:
    """Ask for a run, and read predictions from its first phase to its end."""
    request = RetrainRequest(
        id=f"{number:032x}", stream=synthetic.STREAM, reason="manual", evidence={}, requested_time_ms=now_ms()
    )
    cluster.fill(_TOPICS.retrain, [(synthetic.STREAM.encode(), encode(request))])
    read_until(reader, lambda _: "read" in _phases(runs))
    return read_until(reader, lambda _: "ended" in _phases(runs))


def _phases(runs: Follower) -> set[str]:
    """Return what runs were said to be at since the last call."""
    return {msgspec.json.decode(row.value or b"", type=TrainingEvent).phase for row in runs.poll(0)}
