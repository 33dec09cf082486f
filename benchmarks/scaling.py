"""How does scoring scale over worker processes?

One Apache Kafka, one stream of 8 partitions filled once. Groups of 1, 2 and 4 workers (`--role score`, exactly once)
take turns to score all of it. The workers of a group share the partitions out before there is a champion; then the
record that makes it one is written, so that they begin in the same moment. Every prediction of every turn is compared
with a direct one, and what was counted for drift must cover every event once; a difference ends the benchmark with
exit code 1.

`pinned` turns keep the workers off the broker's cores; in `unpinned` ones all share all cores. On two cores the pinned
turns show what more processes cost, as all of them share one core; the unpinned ones show how far two workers get
before workers and broker have used both cores up. Neither can show what four cores for four workers would give: the
processor time per event, of workers and broker, is what carries over to other machines.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, synthetic
from benchmarks.comparison import OutputsDiffer, differences
from benchmarks.histogram_checker import cover_differences
from benchmarks.plain import Kafka, Row, until
from benchmarks.usage import Usage, broker_pid
from benchmarks.worker_turns import BROKER, Turn, summary, turn_of
from benchmarks.workers import Penstock, Worker
from schemas.drift import PartialHistogram
from schemas.wire import decode
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus
from topics.specs import StreamTopics

PARTITIONS: Final = 8
_TOPICS: Final = StreamTopics(synthetic.STREAM)
_CONFIG: Final = f"""\
[streams.{synthetic.STREAM}]
features = {json.dumps(synthetic.FEATURES)}
partitions = {PARTITIONS}
"""
_BASELINE_ROWS: Final = 20_000
_SLOWEST_EPS: Final = 2_000
_MANY_CORES: Final = 4  # from so many on, a quarter of them is the broker's


def add_command(commands: Any) -> None:
    """Add `scaling` to the benchmarks that can be asked for."""
    parser = commands.add_parser("scaling", help="score with 1, 2 and 4 workers on 8 partitions")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--layouts", nargs="+", choices=["pinned", "unpinned"], default=["pinned", "unpinned"])
    parser.add_argument("--runs", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    cores = split_cores()
    turns: list[Turn] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, _CONFIG))
        bench = Bench(Kafka(server.bootstrap), penstock, arguments.seed)
        try:
            bench.prepare(arguments.events)
            for number in range(arguments.runs):
                for layout in arguments.layouts:
                    for count in arguments.workers:
                        name = f"{layout}-{count}-{number}"
                        with placed(cores, layout) as worker_cpus:
                            turns.append(bench.take_turn(name, count, layout, worker_cpus))
                        print(f"round {number + 1}: {turns[-1]}", flush=True)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = {
        "events": arguments.events,
        "partitions": PARTITIONS,
        "summary": summary(turns),
        "turns": [asdict(turn) for turn in turns],
        "machine": machine.describe(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def split_cores() -> machine.Cores | None:
    """Give the broker and the driver one core, or a quarter of them, and the workers the rest; None with one core."""
    usable = sorted(os.sched_getaffinity(0))
    brokers = max(1, len(usable) // _MANY_CORES)
    return machine.Cores(frozenset(usable[brokers:]), frozenset(usable[:brokers])) if len(usable) > 1 else None


@contextlib.contextmanager
def placed(cores: machine.Cores | None, layout: str) -> Any:
    """Move the broker and this process to their cores while the block runs; give those of the workers."""
    everywhere = os.sched_getaffinity(0)
    if cores is None or layout == "unpinned":
        yield everywhere
        return
    move_broker(cores.others)
    try:
        with on_cpus(cores.others):
            yield cores.contestant
    finally:
        move_broker(everywhere)


def move_broker(cpus: frozenset[int] | set[int]) -> None:
    """Let every thread of our own broker run on these cores only."""
    if (pid := broker_pid()) is not None:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cpus)


class Bench:
    """The stream, its model and the workers."""

    def __init__(self, cluster: Kafka, penstock: Penstock, seed: int) -> None:
        self._cluster = cluster
        self._penstock = penstock
        self._seed = seed
        self._expected: dict[str, float] = {}
        self._deployment: list[tuple[bytes, bytes]] = []

    def prepare(self, events: int) -> None:
        """Write the events, deploy a model with a baseline, and keep the record that made it the champion."""
        print(f"training a model and writing {events:,} events", flush=True)
        values, booster = synthetic.draw(events, self._seed), synthetic.train(self._seed)
        model_file = synthetic.save(booster, self._penstock.folder / "model.ubj")
        rows = synthetic.save_rows(synthetic.draw(_BASELINE_ROWS, self._seed), self._penstock.folder / "rows.csv")
        self._penstock.run("topics", "apply")
        self._cluster.fill(_TOPICS.features, synthetic.documents(values))
        self._penstock.deploy(synthetic.STREAM, model_file, rows)
        self._expected = synthetic.expected_scores(booster, values)
        self._deployment = [(row.key or b"", row.value or b"") for row in self._cluster.read(_TOPICS.deployments)]

    def take_turn(self, name: str, count: int, layout: str, cpus: frozenset[int] | set[int]) -> Turn:
        """Let `count` workers score everything. Raises OutputsDiffer when they did not write what is expected."""
        emptied = (_TOPICS.predictions, _TOPICS.features_dead, _TOPICS.histograms, _TOPICS.deployments)
        self._cluster.delete_topics(*emptied)
        self._penstock.run("topics", "apply")
        self._cluster.stamp_by_broker(_TOPICS.predictions)
        ends = self._cluster.ends(_TOPICS.features)
        workers = [
            self._penstock.worker(f"{name}-{i}", "score", cpus=cpus, kafka_group_prefix=name) for i in range(count)
        ]
        until(lambda: _shared_out(workers), f"the workers of {name} to share the partitions out", 90.0)
        pids = {worker.name: worker.pid for worker in workers}
        broker = broker_pid()
        with Usage(pids | ({BROKER: broker} if broker else {})) as usage:
            self._cluster.fill(_TOPICS.deployments, self._deployment)

            def all_committed() -> bool:
                for worker in workers:
                    worker.check()
                return self._cluster.committed(f"{name}-score", _TOPICS.features) == ends

            until(all_committed, f"{name} to commit everything", 60 + len(self._expected) / _SLOWEST_EPS, 0.5)
        done = [worker.metric("ml_predictions_total") for worker in workers]
        for worker in workers:
            if exit_code := worker.end():
                raise RuntimeError(f"{worker.name} ended with {exit_code} when told to drain; see {worker.log}")
        rows = list(self._cluster.read(_TOPICS.predictions))
        if found := self._wrong(rows, ends):
            raise OutputsDiffer(f"{name}: {'; '.join(found)}")
        return turn_of(rows, usage, layout, done)

    def _wrong(self, rows: Sequence[Row], ends: Mapping[int, int]) -> list[str]:
        found = differences(self._expected, rows)
        if dead := sum(1 for _ in self._cluster.read(_TOPICS.features_dead)):
            found.append(f"{dead} dead letters")
        partials = (decode(PartialHistogram, row.value) for row in self._cluster.read(_TOPICS.histograms))
        return found + cover_differences(partials, ends)


def _shared_out(workers: Sequence[Worker]) -> bool:
    """Whether the workers have all partitions between them, and none has one more than its share."""
    for worker in workers:
        worker.check()
    owned = [int(worker.metric("ml_partition_tasks", stage="score")) for worker in workers]
    return sum(owned) == PARTITIONS and max(owned) <= -(-PARTITIONS // len(workers))
