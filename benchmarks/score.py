"""How fast does Penstock score, beside a bare aiokafka loop that does the same work?

Everything runs on one Apache Kafka and one topic of JSON events. The contestants take turns, each alone on one core
with the broker on the others, each with a new consumer group and empty output topics. Kafka itself stamps the outputs,
so that one clock times them all. Every output of every turn is compared with a direct prediction; a difference ends
the benchmark with exit code 1.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, synthetic
from benchmarks.comparison import OutputsDiffer, Turn, differences, summary, turn
from benchmarks.plain import Kafka, until
from benchmarks.workers import Penstock
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus

_FEATURES: Final = f"{synthetic.STREAM}.features"
_DEAD: Final = f"{synthetic.STREAM}.features.dead"
_PREDICTIONS: Final = f"{synthetic.STREAM}.predictions"
_SLOWEST_EPS: Final = 2_000

Alive = Callable[[], None]
Contestant = Callable[[str, Callable[[Alive], None]], float | None]
"""Scores everything under a name, calling the function it is given to wait for that; returns its mean commit in ms."""


def add_command(commands: Any) -> None:
    """Add `score` to the benchmarks that can be asked for."""
    parser = commands.add_parser("score", help="score events: Penstock beside a bare aiokafka loop")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="turns of each contestant; the median counts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    cores = machine.split_cores()
    if cores is None:
        print("Only one core can be used here: the broker and the contestants share it.")
        cores = machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, synthetic.CONFIG))
        bench = Bench(Kafka(server.bootstrap), penstock, cores.contestant)
        try:
            turns = bench.measure(arguments.events, arguments.runs, arguments.seed)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = summary(turns) | {"events": arguments.events, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


class Bench:
    """The contestants and what they all get."""

    def __init__(self, cluster: Kafka, penstock: Penstock, cpus: frozenset[int]) -> None:
        self._cluster = cluster
        self._penstock = penstock
        self._cpus = cpus
        self._model_file = penstock.folder / "model.ubj"

    def measure(self, events: int, runs: int, seed: int) -> dict[str, list[Turn]]:
        """Prepare, then let everybody have `runs` turns; the one who begins changes from round to round."""
        expected = self.prepare(events, seed)
        contestants: dict[str, Contestant] = {
            "bare_aiokafka": self._bare_loop,
            "penstock": lambda name, wait: self.worker(name, "exactly_once", wait),
            "penstock_at_least_once": lambda name, wait: self.worker(name, "at_least_once", wait),
        }
        names = list(contestants)
        turns: dict[str, list[Turn]] = {name: [] for name in names}
        for round_number in range(runs):
            first = round_number % len(names)
            for name in names[first:] + names[:first]:
                taken = self.take_turn(f"{name}-{round_number}", contestants[name], expected)
                turns[name].append(taken)
                print(f"round {round_number + 1}: {name:24}{taken.steady_eps:>10,.0f} events/s", flush=True)
        return turns

    def prepare(self, events: int, seed: int) -> dict[str, float]:
        """Write the events and deploy a model; return the score that each event must get."""
        print(f"training a model and writing {events:,} events", flush=True)
        values = synthetic.draw(events, seed)
        booster = synthetic.train(seed)
        synthetic.save(booster, self._model_file)
        self._penstock.run("topics", "apply")
        self._cluster.fill(_FEATURES, synthetic.documents(values))
        self._penstock.deploy(synthetic.STREAM, self._model_file)
        return synthetic.expected_scores(booster, values)

    def take_turn(self, name: str, contestant: Contestant, expected: Mapping[str, float]) -> Turn:
        """Let a contestant score everything. Raises OutputsDiffer when it did not score exactly what is expected."""
        self._cluster.delete_topics(_PREDICTIONS, _DEAD)
        self._penstock.run("topics", "apply")
        self._cluster.stamp_by_broker(_PREDICTIONS)
        ends = self._cluster.ends(_FEATURES)

        def all_committed(alive: Alive) -> bool:
            alive()
            return self._cluster.committed(_group(name), _FEATURES) == ends

        timeout_s = 60 + len(expected) / _SLOWEST_EPS
        commit_ms = contestant(
            name, lambda alive: until(lambda: all_committed(alive), f"{name} to commit everything", timeout_s, 0.5)
        )
        rows = list(self._cluster.read(_PREDICTIONS))
        found = differences(expected, rows)
        if dead := sum(1 for _ in self._cluster.read(_DEAD)):
            found.append(f"{dead} dead letters")
        if found:
            raise OutputsDiffer(f"{name}: {'; '.join(found)}")
        return turn(rows, commit_ms)

    def _bare_loop(self, name: str, wait: Callable[[Alive], None]) -> None:
        arguments = [self._cluster.bootstrap, _FEATURES, _PREDICTIONS, str(self._model_file), _group(name)]
        with on_cpus(self._cpus):
            process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_loop", *arguments])

        def alive() -> None:
            if process.poll():
                raise RuntimeError(f"{name} ended with {process.returncode}")

        try:
            wait(alive)
            process.wait(30)
        finally:
            process.kill()
            process.wait()

    def worker(self, name: str, delivery: str, wait: Callable[[Alive], None]) -> float:
        """Be a contestant: a worker that scores. Returns its mean commit in milliseconds."""
        worker = self._penstock.worker(name, "score", cpus=self._cpus, kafka_group_prefix=name, delivery=delivery)
        wait(worker.check)
        commits = worker.metric("ml_commit_seconds_count", stage="score")
        commit_s = worker.metric("ml_commit_seconds_sum", stage="score") / commits
        if exit_code := worker.end():
            raise RuntimeError(f"{name} ended with {exit_code} when told to drain; see {worker.log}")
        return 1000 * commit_s


def _group(name: str) -> str:
    """The consumer group of a contestant, spelled as Penstock makes it of `kafka_group_prefix` and a role."""
    return f"{name}-score"
