"""Does the stream feel that a model is being trained beside it?

One worker with all roles, one Apache Kafka, one producer of 1,000 events per second, on all the cores that there are.
Calm spans and spans in which a run trains take turns. The latency of an event is from its record's timestamp until a
`read_committed` reader has its prediction in hand.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks import machine, synthetic
from benchmarks.chaos_learn import until_committed
from benchmarks.chaos_score import deployed, producing
from benchmarks.plain import Follower, Kafka
from benchmarks.recovery import now_ms
from benchmarks.train_samples import DECLARATION, sample_records
from schemas.events import RetrainRequest
from schemas.runs import TrainingEvent
from schemas.wire import encode
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_SETTLE_S: Final = 5.0
_LEAST_SPAN_S: Final = 10.0
_MOST_RUN_S: Final = 600.0
_POLL_S: Final = 0.005
_ASK_S: Final = 0.2
_CONFIG: Final = f"""\
{DECLARATION}
min_samples = 5000

[streams.{synthetic.STREAM}.training.parameters]
max_depth = 8
learning_rate = 0.02
"""


class _Scored(msgspec.Struct):
    scored_time_ms: int
    latency_ms: int


_read: Final = msgspec.json.Decoder(_Scored)


@dataclass(frozen=True, slots=True)
class _Span:
    """The latencies of the events of one span, in milliseconds."""

    seconds: float
    events: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: float, latencies_ms: Sequence[float]) -> "_Span":
        """Measure a span."""
        p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99)).tolist()
        return cls(round(seconds, 1), len(latencies_ms), round(p50_ms, 2), round(p99_ms, 2))


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
        spans: dict[str, list[_Span]] = {"calm": [], "training": []}
        with producing("benchmarks.chaos_producer", cluster.bootstrap, *words):
            reader = stack.enter_context(contextlib.closing(Follower(server.bootstrap, _TOPICS.predictions)))
            runs = stack.enter_context(contextlib.closing(Follower(server.bootstrap, _TOPICS.training)))
            _read_for(reader, _SETTLE_S)
            for number in range(arguments.rounds):
                spans["calm"].append(_read_for(reader, arguments.calm))
                spans["training"].append(_train(reader, runs, cluster, number))
                for kind, found in spans.items():
                    print(f"round {number + 1}: {kind:9}{found[-1]}", flush=True)
                _read_for(reader, _SETTLE_S)
        ended = [msgspec.json.decode(row.value or b"", type=TrainingEvent) for row in cluster.read(_TOPICS.training)]
        outcomes = [event.outcome for event in ended if event.phase == "ended"]
        worker.end()
    result = _result(spans) | {"outcomes": outcomes, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    long_enough = all(span.seconds >= _LEAST_SPAN_S for span in spans["training"])
    return 0 if long_enough and set(outcomes) <= {"accepted", "rejected"} and len(outcomes) == arguments.rounds else 1


def _read_for(reader: Follower, seconds: float) -> _Span:
    """Read predictions for so long."""
    return _read_until(reader, lambda elapsed_s: elapsed_s >= seconds)


def _train(reader: Follower, runs: Follower, cluster: Kafka, number: int) -> _Span:
    """Ask for a run, and read predictions from its first phase to its end."""
    request = RetrainRequest(
        id=f"{number:032x}", stream=synthetic.STREAM, reason="manual", evidence={}, requested_time_ms=now_ms()
    )
    cluster.fill(_TOPICS.retrain, [(synthetic.STREAM.encode(), encode(request))])
    _read_until(reader, lambda _: "read" in _phases(runs))
    return _read_until(reader, lambda _: "ended" in _phases(runs))


def _phases(runs: Follower) -> set[str]:
    """Return what runs were said to be at since the last call."""
    return {msgspec.json.decode(row.value or b"", type=TrainingEvent).phase for row in runs.poll(0)}


def _read_until(reader: Follower, done: Callable[[float], bool]) -> _Span:
    """Read predictions until `done`, which is asked now and then with the seconds since the beginning."""
    began = asked = time.monotonic()
    latencies_ms: list[float] = []
    while asked - began < _MOST_RUN_S:
        rows, seen_ms = reader.poll(_POLL_S), time.time() * 1000
        for row in rows:
            scored = _read.decode(row.value or b"")
            latencies_ms.append(seen_ms - (scored.scored_time_ms - scored.latency_ms))
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            if done(asked - began):
                return _Span.of(asked - began, latencies_ms)
    raise TimeoutError(f"a run of training did not end within {_MOST_RUN_S:g} s")


def _result(spans: Mapping[str, Sequence[_Span]]) -> dict[str, Any]:
    """Return the spans, and the ratio of the medians of their 99th percentiles."""
    p99_ms = {kind: statistics.median(span.p99_ms for span in found) for kind, found in spans.items()}
    return {
        "p99_ms": p99_ms,
        "p50_ms": {kind: statistics.median(span.p50_ms for span in found) for kind, found in spans.items()},
        "p99_ratio": round(p99_ms["training"] / p99_ms["calm"], 3),
        "spans": {kind: [asdict(span) for span in found] for kind, found in spans.items()},
    }
