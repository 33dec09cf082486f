"""What does one worker pay for each stream: 1, 10, 50, 100 and 200 of them, of one partition each?

All are on one Apache Kafka, with the same features and the same model, each registered and made champion as an
operator would. For each number of streams a worker (`--role score`, and with `--whole` one with all roles) is started
on its core, the broker and the rest being on the others. It is left idle for a while, and then given the same total
rate, spread over its streams. Every score is checked, none may be missing or twice, and there must be no dead letters;
the exit code is 1 when that is not so. Latency is from the event's record timestamp to its prediction in a
`read_committed` reader's hands.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.comparison import OutputsDiffer
from benchmarks.plain import until
from benchmarks.spread_events import SpreadReader, sending
from benchmarks.stream_fleet import Fleet, penstock_of
from benchmarks.usage import Usage, broker_pid, footprint
from benchmarks.workers import Worker
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus

_BROKER: Final = "broker"
_WORKER: Final = "worker"
_SETTLE_S: Final = 5.0
_AFTER_SCRAPE_S: Final = 0.5  # what a scrape held up is read by then, and does not count
_DRAIN_S: Final = 30.0
_AFTER_END_S: Final = 1.0
_SLOWEST_START_S: Final = 300.0
ROLES: Final[Mapping[str, tuple[str, ...]]] = {"score": ("score",), "whole": ()}


class Load(NamedTuple):
    """What a span of steady load showed: latencies in ms, processor time in µs per event (None: not our broker).

    `commits_per_s` are those of all the worker's tasks, which took `commit_ms` on average.
    """

    events: int
    p50_ms: float
    p99_ms: float
    cpu_us: float
    broker_cpu_us: float | None
    commits_per_s: float
    commit_ms: float


def add_command(commands: Any) -> None:
    """Add `streams` to the benchmarks that can be asked for."""
    parser = commands.add_parser("streams", help="one worker with 1 to 200 streams: what each of them costs")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 10, 50, 100, 200], help="scored by one worker")
    parser.add_argument("--whole", type=int, nargs="*", default=[1, 10, 50], help="the same with all roles")
    parser.add_argument("--partitions", type=int, default=1, help="of each stream")
    parser.add_argument("--rate", type=int, default=2_000, help="events per second, over all streams")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the idle span, and of the one under load")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    cores = machine.split_cores() or machine.Cores(frozenset(), frozenset())
    steps: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(penstock_of(folder, server.bootstrap))
        bench = Bench(Fleet(penstock, arguments.partitions, arguments.seed), cores.contestant, arguments)
        try:
            bench.step("score", 1)  # uncounted: a young broker compiles itself
            for count in sorted({*arguments.streams, *arguments.whole}):
                for kind, asked in (("score", arguments.streams), ("whole", arguments.whole)):
                    if count in asked:
                        steps.append(bench.step(kind, count))
                        print(json.dumps(steps[-1]), flush=True)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = {
        "partitions": arguments.partitions,
        "rate": arguments.rate,
        "steps": steps,
        "per_stream": {kind: per_stream([step for step in steps if step["roles"] == kind]) for kind in ROLES},
        "machine": machine.describe(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


class Bench:
    """The fleet of streams, and what is measured of a worker on it."""

    def __init__(self, fleet: Fleet, cpus: frozenset[int], arguments: argparse.Namespace) -> None:
        self._fleet = fleet
        self._cpus = cpus
        self._rate: int = arguments.rate
        self._seconds: float = arguments.seconds
        self._seed: int = arguments.seed
        self._sent = 0

    def step(self, kind: str, count: int) -> dict[str, Any]:
        """Measure one worker on the first `count` streams. Raises OutputsDiffer when its predictions are wrong."""
        deploy_s = self._fleet.grow(count)
        first = self._sent
        with contextlib.ExitStack() as stack:
            figures, reader = self._figures(kind, count, stack)
            reader.read_for(_AFTER_END_S)  # what would come now would be too many
            self._check(f"{kind}-{count}", reader, first)
        return {"roles": kind, "streams": count, "deploy_s": round(deploy_s, 1), **figures}

    def _figures(self, kind: str, count: int, stack: contextlib.ExitStack) -> tuple[dict[str, Any], SpreadReader]:
        """Start a worker, measure it idle and under load, and end it. Returns the figures, and who has read all."""
        started = time.monotonic()
        worker = self._fleet.penstock.worker(f"{kind}-{count}", *ROLES[kind], cpus=self._cpus)
        try:
            until(
                lambda: worker.exit_code is not None or worker.ready(), f"{worker.name} to be ready", _SLOWEST_START_S
            )
            worker.check()
            startup_s = time.monotonic() - started
            idle = self._idle(worker)
            held = footprint(worker.pid)
            asked = time.monotonic()
            worker.metric("ml_ready")
            scrape_ms = round(1000 * (time.monotonic() - asked))  # nothing is scored meanwhile
            reader = self._reader(count, stack)
            load = self._load(worker, self._fleet.streams[:count], reader)
        finally:
            stopping = time.monotonic()
            code = worker.end()
        if code:
            raise RuntimeError(f"{worker.name} ended with {code} when told to drain:\n{worker.log_end()}")
        figures = {
            "startup_s": round(startup_s, 1),
            "stop_s": round(time.monotonic() - stopping, 1),
            **idle,
            **held,
            "scrape_ms": scrape_ms,
            **load._asdict(),
        }
        return figures, reader

    def _reader(self, count: int, stack: contextlib.ExitStack) -> SpreadReader:
        topics = [f"{stream}.predictions" for stream in self._fleet.streams[:count]]
        return stack.enter_context(contextlib.closing(SpreadReader(self._fleet.penstock.bootstrap, topics)))

    def _idle(self, worker: Worker) -> dict[str, float | None]:
        """Return the share of a core, in percent, that worker and broker use when nothing comes."""
        time.sleep(_SETTLE_S)
        with Usage(self._pids(worker)) as usage:
            time.sleep(self._seconds)
        spans = {name: samples[-1].time_s - samples[0].time_s for name, samples in usage.samples.items()}
        used = {name: round(100 * usage.total_cpu_s(name) / spans[name], 2) for name in usage.samples}
        return {"idle_cpu_percent": used[_WORKER], "idle_broker_cpu_percent": used.get(_BROKER)}

    def _load(self, worker: Worker, streams: Sequence[str], reader: SpreadReader) -> Load:
        """Send events at the fixed rate over the streams, and read what becomes of them."""
        first, events = self._sent, int(self._rate * (_SETTLE_S + _AFTER_SCRAPE_S + self._seconds))
        self._sent += events
        with sending(self._fleet.penstock.bootstrap, streams, self._rate, self._seed, first, events):
            reader.read_for(_SETTLE_S)
            commits = [_commits(worker)]
            reader.read_for(_AFTER_SCRAPE_S)
            counted = [len(reader.seen)]
            with Usage(self._pids(worker)) as usage:
                began = time.time()
                reader.read_for(self._seconds)
                ended = time.time()
            counted.append(len(reader.seen))
            commits.append(_commits(worker))
        deadline = time.monotonic() + _DRAIN_S
        while len(reader.seen) < events and time.monotonic() < deadline:  # what is missing then is told of at the end
            reader.read_for(0.2)
        latencies = reader.latencies_ms[slice(*counted)]
        p50_ms, p99_ms = np.percentile(latencies, (50, 99)).tolist()
        cpu_us = {name: 1e6 * usage.cpu_s(name, began, ended) / len(latencies) for name in usage.samples}
        broker_us = cpu_us.get(_BROKER)
        over_s, made, took_s = (after - before for before, after in zip(*commits, strict=True))
        return Load(
            len(latencies),
            round(p50_ms, 1),
            round(p99_ms, 1),
            round(cpu_us[_WORKER], 1),
            None if broker_us is None else round(broker_us, 1),
            round(made / over_s, 1),
            round(1000 * took_s / max(made, 1), 1),
        )

    def _check(self, name: str, reader: SpreadReader, first: int) -> None:
        found = wrong(self._fleet.expected(first, self._sent - first), reader.seen)
        found += self._fleet.dead_letters()
        if found:
            raise OutputsDiffer(f"{name}: {'; '.join(found)}")

    def _pids(self, worker: Worker) -> dict[str, int]:
        broker = broker_pid()
        return {_WORKER: worker.pid} | ({_BROKER: broker} if broker else {})


def _commits(worker: Worker) -> tuple[float, float, float]:
    """Return the time, how many commits the worker has made by then, and the seconds that these took."""
    return time.time(), worker.metric("ml_commit_seconds_count"), worker.metric("ml_commit_seconds_sum")


def wrong(expected: Mapping[str, float], seen: Sequence[tuple[str, float]]) -> list[str]:
    """Return a sentence for each way in which the ids and scores `seen` are not the expected ones, once each."""
    scores = dict(seen)
    missing, unknown = expected.keys() - scores.keys(), scores.keys() - expected.keys()
    changed = [event for event, score in scores.items() if event in expected and score != expected[event]]
    kinds = {"not scored": len(missing), "never sent": len(unknown), "scored differently": len(changed)}
    kinds["scored twice"] = len(seen) - len(scores)
    return [f"{count} {kind}" for kind, count in kinds.items() if count]


def per_stream(steps: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return, from each number of streams to the next, what one more stream costs: linear where these stay the same."""
    found = []
    ordered = sorted(steps, key=lambda step: int(step["streams"]))
    for fewer, more in pairwise(ordered):
        added = more["streams"] - fewer["streams"]
        keys = ("startup_s", "rss_mb", "threads", "sockets", "idle_cpu_percent", "idle_broker_cpu_percent", "cpu_us")
        costs = {
            key: round((more[key] - fewer[key]) / added, 3)
            for key in keys
            if more[key] is not None and fewer[key] is not None
        }
        found.append({"from": fewer["streams"], "to": more["streams"], **costs})
    return found
