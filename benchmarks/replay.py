"""How fast is history replayed, beside the score stage that made it?

On one Apache Kafka a worker scores all events, another joins each prediction with a label, and then `penstock replay`
runs that history again. The score stage has one core, as in the benchmark `score`; the replay has first that core, too,
and then all of them, the broker's as well, which has little else to do. What the worker did is timed by the broker, and
the replay by itself, from its first block of history to the last. Every score must come out as it was logged, to the
bit, and two replays must be the same bytes; otherwise the benchmark ends with exit code 1.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import machine, synthetic
from benchmarks.comparison import OutputsDiffer
from benchmarks.joining import Joining
from benchmarks.plain import Kafka, until
from benchmarks.workers import Penstock
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus

_PATIENCE_S: Final = 600.0
_RATE: Final = re.compile(r"([\d,]+) events/s")


def add_command(commands: Any) -> None:
    """Add `replay` to the benchmarks that can be asked for."""
    parser = commands.add_parser("replay", help="replay history, beside the score stage that made it")
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when a replay is not what was served."""
    cores = machine.split_cores()
    if cores is None:
        print("Only one core can be used here: the broker and the contestants share it.")
        cores = machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, synthetic.CONFIG))
        try:
            joining = Joining(Kafka(server.bootstrap), penstock, cores.contestant, arguments.events, arguments.seed)
            rates = joining.measure(arguments.runs)
            rates |= _replays(penstock, cores, arguments.events, arguments.runs)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    medians = {f"{name}_eps": round(median(found)) for name, found in rates.items()}
    result = medians | {
        "replay_of_score": round(medians["replay_eps"] / medians["score_eps"], 2),
        "runs": rates,
        "events": arguments.events,
        "machine": machine.describe(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _replays(penstock: Penstock, cores: machine.Cores, events: int, runs: int) -> dict[str, list[float]]:
    """Return the rates of all replays: on the score stage's core, and on all."""
    rates: dict[str, list[float]] = {"replay_on_one_core": [], "replay": []}
    documents = set()
    for number in range(runs):
        for name, cpus in (("replay_on_one_core", cores.contestant), ("replay", cores.contestant | cores.others)):
            document, rate = _replay(penstock, f"{name}-{number}", cpus)
            rates[name].append(rate)
            documents.add(document)
            print(f"round {number + 1}: {name:24}{rate:>10,.0f} events/s", flush=True)
    if len(documents) > 1:
        raise OutputsDiffer("two replays of one history are not the same")
    _check(json.loads(documents.pop()), events)
    return rates


def _replay(penstock: Penstock, name: str, cpus: Collection[int]) -> tuple[bytes, float]:
    """Return the report of a replay as it was written, and its rate."""
    report = penstock.folder / f"{name}.json"
    program = Path(sys.executable).with_name("penstock")
    command = ["sh", "-c", 'exec "$0" replay --json > "$1"', str(program), str(report)]
    process = penstock.start(name, command, cpus)
    until(lambda: process.exit_code is not None, f"{name} to end", _PATIENCE_S)
    rate = _RATE.search(process.log_end())
    if process.exit_code or rate is None:
        raise OutputsDiffer(f"{name} ended with {process.exit_code}:\n{process.log_end()}")
    return report.read_bytes(), float(rate[1].replace(",", ""))


def _check(document: dict[str, Any], events: int) -> None:
    """Raise OutputsDiffer unless all events, and their samples, were replayed to the bit."""
    scores = document["scores"]
    counts = [(one["events"], one["identical"]) for one in scores]
    if counts != [(events, events)] or document["samples"] != events:
        raise OutputsDiffer(f"of {events} events and samples {document['samples']} samples were replayed, and {scores}")
    if document["decisions"]["changed"]:
        raise OutputsDiffer(f"{document['decisions']['changed']} decisions came out as others")
