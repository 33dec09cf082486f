"""Does bad input become what it should, and nothing else?

One exactly-once worker on Apache Kafka is first asked to promote three models that it must refuse: one whose stored
file was changed, one whose registration is not signed, one whose file is gone. Then it gets a million events, of which
1% are spoilt in every way of `bad_events`, and another 1% carry a feature that nobody declared, which does no harm.
A plain `read_committed` reader counts: each bad record has exactly one dead letter, with its place, its digest and a
reason that fits; each good one has exactly one prediction, by the champion, with the score of a direct prediction.
Meanwhile the worker's memory may not grow.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import bad_input_checker, machine, synthetic
from benchmarks.bad_artifacts import BadArtifacts
from benchmarks.plain import Kafka, until
from benchmarks.spoilt_stream import SpoiltStream
from benchmarks.workers import Penstock, Worker
from tests.kafka.server import KafkaServer, on_cpus

_FEATURES: Final = f"{synthetic.STREAM}.features"
_GROUP: Final = "penstock-score"
_MEGABYTE: Final = 1024 * 1024
_GROWTH_LIMIT_PERCENT: Final = 10.0
_SAMPLE_S: Final = 0.5
_SLOWEST_EPS: Final = 2_000


def add_command(commands: Any) -> None:
    """Add `bad-input` to the benchmarks that can be asked for."""
    parser = commands.add_parser("bad-input", help="bad events and bad models: dead letters, refusals, flat memory")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; print and write the result. Returns 1 when an outcome is wrong or memory grows by more than 10%."""
    cores = machine.split_cores() or machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bad-input-")))
        server = stack.enter_context(KafkaServer(cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, synthetic.CONFIG))
        result = measure(Kafka(server.bootstrap), penstock, cores.contestant, arguments)
    result |= {"machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if is_right(result) else 1


def is_right(result: Mapping[str, Any]) -> bool:
    """Whether every event and every command has the outcome it should have, and memory stayed flat."""
    return (
        not any(result[flaw] for flaw in ("lost", "duplicated", "misjudged"))
        and result["dead_letters"] == result["bad"]
        and result["reasons"].keys() == bad_input_checker.REASONS.keys()
        and all(result["refused"].values())
        and result["champion_stayed"]
        and result["rss_mb"]["growth_percent"] <= _GROWTH_LIMIT_PERCENT
    )


def measure(cluster: Kafka, penstock: Penstock, cpus: frozenset[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """Deploy, refuse, write, drain and count."""
    booster = synthetic.train(arguments.seed)
    penstock.run("topics", "apply")
    champion = penstock.deploy(synthetic.STREAM, synthetic.save(booster, penstock.folder / "model.ubj"))
    worker = penstock.worker("worker", cpus=cpus)
    worker.wait_until_ready()
    artifacts = BadArtifacts(cluster, penstock, arguments.seed)
    refused = artifacts.refusals()
    print(f"refused: {json.dumps(refused, indent=2)}\nwriting {arguments.events:,} events", flush=True)
    values = synthetic.draw(arguments.events, arguments.seed)
    stream = SpoiltStream(cluster.bootstrap, _FEATURES, arguments.seed)
    memory = MemoryWatch(worker, arguments.events)
    stream.write(values, memory.look)
    _drain(cluster, worker, memory, arguments.events)
    if exit_code := worker.end():
        raise RuntimeError(f"the worker ended with {exit_code} when told to drain:\n{worker.log_end()}")
    print("counting", flush=True)
    found = bad_input_checker.judge(
        stream.written,
        _read(cluster, "predictions", bad_input_checker.Prediction),
        _read(cluster, "features.dead", bad_input_checker.DeadLetter),
        synthetic.expected_scores(booster, values),
        champion,
    )
    return {
        **found,
        "rss_mb": memory.summary(),
        "refused": refused,
        "champion_stayed": artifacts.champions() == [champion],
    }


class MemoryWatch:
    """How much memory a worker has by the time it has done so many events."""

    def __init__(self, worker: Worker, events: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self._worker = worker
        self._events = events
        self._clock = clock
        self._due = clock()
        self._samples: list[tuple[int, float]] = []

    def look(self) -> None:
        """Take a sample when the last one is old enough. Raises when the worker has ended."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + _SAMPLE_S
        self._worker.check()
        self.done = int(self._worker.metric("ml_predictions_total") + self._worker.metric("ml_dead_letters_total"))
        if memory_bytes := self._worker.metric("process_resident_memory_bytes"):
            self._samples.append((self.done, memory_bytes / _MEGABYTE))

    def summary(self) -> dict[str, float]:
        """Return megabytes after a fifth of the events and after all, the growth in between, and the most."""
        fifth_mb = next(mb for done, mb in self._samples if done >= 0.2 * self._events)
        last_mb = self._samples[-1][1]
        return {
            "at_20_percent": round(fifth_mb, 1),
            "at_100_percent": round(last_mb, 1),
            "growth_percent": round(100 * (last_mb / fifth_mb - 1), 1),
            "most": round(max(mb for _, mb in self._samples), 1),
        }


def _drain(cluster: Kafka, worker: Worker, memory: MemoryWatch, events: int) -> None:
    """Wait until everything is committed, but not for ever: what is missing then counts as lost."""
    ends = cluster.ends(_FEATURES)

    def drained() -> bool:
        memory.look()
        return memory.done >= events and cluster.committed(_GROUP, _FEATURES) == ends

    try:
        until(drained, "the worker to drain the stream", 60 + events / _SLOWEST_EPS, _SAMPLE_S)
    except TimeoutError as late:
        print(late, flush=True)


def _read(cluster: Kafka, topic: str, kind: Any) -> list[Any]:
    decode = msgspec.json.Decoder(kind).decode
    return [decode(row.value or b"") for row in cluster.read(f"{synthetic.STREAM}.{topic}")]
