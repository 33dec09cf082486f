"""Is Penstock faster than its peers, on the same events?

Everything runs on one Apache Kafka and one topic of JSON events. The contestants take turns, each alone on one core
with the broker and the instruments on the others, each with a new consumer group and empty output topics. Kafka stamps
the outputs, so that one clock times them all. Everything that a contestant writes, in every turn, is compared with what
it must be; a difference ends the benchmark with exit code 1, and no result is written.
"""

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import xgboost

from benchmarks import environments, machine, synthetic
from benchmarks.comparison import OutputsDiffer
from benchmarks.peers import latency, report, throughput
from benchmarks.peers.contestants import Contestant, PythonOf, find
from benchmarks.peers.course import Course, config_of
from benchmarks.peers.figures import Taken, summary
from benchmarks.peers.latency import Pace
from benchmarks.peers.outputs import Events
from benchmarks.peers.turns import ContestantFailed, Turn
from benchmarks.plain import Kafka
from benchmarks.workers import Penstock
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus

_HERE: Final = Path(__file__).parent
_BASELINE_ROWS: Final = 20_000
_WARMERS: Final = ("penstock", "aiokafka_loop")
_HEAP_MB: Final = 1536
_COLLECTOR: Final = "Shenandoah"  # a broker that stands still for 100 ms now and then would be all that p99 shows


def add_command(commands: Any) -> None:
    """Add `peers` to the benchmarks that can be asked for."""
    parser = commands.add_parser("peers", help="score events: Penstock beside other stream processors")
    parser.add_argument("--events", type=int, default=1_000_000, help="in the topic that everybody scores")
    parser.add_argument("--runs", type=int, default=3, help="turns of each contestant; the median counts")
    parser.add_argument("--turn-seconds", type=float, default=60.0, help="after so long a slow contestant is stopped")
    parser.add_argument("--latency-runs", type=int, default=3, help="turns of each at each rate; the median counts")
    parser.add_argument("--latency-seconds", type=float, default=20.0, help="that count of such a turn")
    parser.add_argument("--warm-up-seconds", type=float, default=120.0, help="of small requests to the broker before")
    parser.add_argument("--rates", type=int, nargs="*", default=[1_000, 10_000], help="events per second")
    parser.add_argument("--only", metavar="A,B", help="these contestants only")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="write a table here, between its markers")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write a picture here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, peers: Path = _HERE, python_of: PythonOf = environments.python_of) -> int:
    """Run the benchmark; print and write the result. `peers` has a folder for each peer.

    Returns 1 when outputs differ or a contestant fails, 2 when one is asked for that there is not.
    """
    try:
        contestants = find(peers, arguments.only.split(",") if arguments.only else None, python_of)
    except KeyError as unknown:
        print(f"There is no contestant {unknown}.", file=sys.stderr)
        return 2
    try:
        turns = _measure(arguments, contestants)
    except (OutputsDiffer, ContestantFailed) as problem:
        what = "Outputs differ" if isinstance(problem, OutputsDiffer) else "A contestant failed"
        print(f"{what}. {problem}", file=sys.stderr)
        return 1
    result = summary(turns, {each.name: each.versions for each in contestants})
    result |= {"events": arguments.events, "seed": arguments.seed, "machine": machine.describe()}
    _write(result, arguments)
    return 0


def _write(result: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    print(report.table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if arguments.table:
        report.write_table(result, arguments.table)
    if arguments.plot:
        arguments.plot.write_bytes(report.plot(result))


def _measure(arguments: argparse.Namespace, contestants: Sequence[Contestant]) -> dict[str, Taken]:
    """Prepare, and let everybody have all turns."""
    cores = machine.split_cores()
    if cores is None:
        print("Only one core can be used here: the broker and the contestants share it.")
        cores = machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cores.others, _HEAP_MB, _COLLECTOR))
        stack.enter_context(on_cpus(cores.others))
        bench = Bench(Kafka(server.bootstrap), folder, cores.contestant, contestants, arguments.seed)
        if arguments.runs:
            course = stack.enter_context(bench.course("full"))
            bench.measure_throughput(course, arguments.events, arguments.runs, arguments.turn_seconds)
        if arguments.rates and arguments.latency_runs:
            course = stack.enter_context(bench.course("paced"))
            bench.warm_up(course, arguments.rates[0], arguments.warm_up_seconds)
            bench.measure_latency(course, arguments.rates, arguments.latency_runs, arguments.latency_seconds)
        return bench.taken


class Bench:
    """The contestants, what they all get, and what they have done: `taken`."""

    def __init__(
        self, cluster: Kafka, folder: Path, cpus: frozenset[int], contestants: Sequence[Contestant], seed: int
    ) -> None:
        self._cluster = cluster
        self._folder = folder
        self._cpus = cpus
        self._contestants = contestants
        self._seed = seed
        self._token = secrets.token_hex(3)  # a Kafka that is not ours keeps what earlier runs have left
        self._booster: xgboost.Booster = synthetic.train(seed)
        self._model_file = synthetic.save(self._booster, folder / "model.ubj")
        self._rows = synthetic.save_rows(synthetic.draw(_BASELINE_ROWS, seed), folder / "rows.csv")
        self.taken = {contestant.name: Taken([], []) for contestant in contestants}

    @contextlib.contextmanager
    def course(self, name: str) -> Iterator[Course]:
        """Give a new course. Each has a deployment of Penstock for itself, so that none has an idle stream beside."""
        print(f"deploying the model on the course {name!r}", flush=True)
        folder = self._folder / name
        folder.mkdir()
        stream = f"peers-{name}-{self._token}"
        with Penstock(folder, self._cluster.bootstrap, config_of(stream)) as penstock:
            yield Course(self._cluster, penstock, stream, self._model_file, self._rows)

    def measure_throughput(self, course: Course, events: int, runs: int, turn_s: float) -> None:
        """Fill the source, and let everybody score it `runs` times."""
        print(f"writing {events:,} events", flush=True)
        values = synthetic.draw(events, self._seed)
        self._cluster.fill(course.topics.features, synthetic.documents(values))
        known = Events.read(self._cluster.read(course.topics.features), self._booster, values)
        for number in range(runs):
            for contestant in self._order(number):
                turn = self._turn(f"{contestant.name}-{number}", contestant, course)
                speed = throughput.take_turn(turn, known, turn_s)
                self.taken[contestant.name].speeds.append(speed)
                said = f"{speed.eps:>10,.0f} events/s {speed.cpu_us:>8.1f} µs {speed.peak_mb:>7.0f} MB"
                print(f"round {number + 1}: {contestant.name:24}{said}{' partial' * speed.partial}", flush=True)

    def warm_up(self, course: Course, rate: int, seconds: float) -> None:
        """Let Penstock and a bare loop answer events, uncounted: a young broker is busy with compiling itself.

        What it does in every transaction takes it five times the processor time at first, and a minute or two later
        what it takes it for ever. Who is not there is not waited for: the first contestant comes instead.
        """
        warmers = [each for each in self._contestants if each.name in _WARMERS] or [*self._contestants[:1]]
        for contestant in warmers if seconds > 0 else ():
            print(f"warming the broker up with {contestant.name}", flush=True)
            turn = self._turn(f"warm-up-{contestant.name}", contestant, course)
            latency.take_turn(turn, Pace(rate, seconds, self._seed, self._booster))

    def measure_latency(self, course: Course, rates: Sequence[int], runs: int, seconds: float) -> None:
        """Let everybody answer events as they come, `runs` times at each rate."""
        for number in range(runs):
            for rate in rates:
                pace = Pace(rate, seconds, self._seed + rate, self._booster)
                for contestant in self._order(number):
                    turn = self._turn(f"{contestant.name}-{rate}-{number}", contestant, course)
                    found = latency.take_turn(turn, pace)
                    self.taken[contestant.name].latencies.append(found)
                    said = "fell behind" if found.fell_behind else f"p50 {found.p50_ms} ms, p99 {found.p99_ms} ms"
                    print(f"round {number + 1}: {contestant.name:24}{rate:>7,} events/s: {said}", flush=True)

    def _order(self, number: int) -> list[Contestant]:
        """Return the contestants; who begins changes from round to round."""
        first = number % len(self._contestants)
        return [*self._contestants[first:], *self._contestants[:first]]

    def _turn(self, name: str, contestant: Contestant, course: Course) -> Turn:
        # A group's name is the turn's; a Kafka that is not ours may remember groups, too.
        return Turn(f"{name}-{self._token}", contestant, course, self._folder, self._cpus)
