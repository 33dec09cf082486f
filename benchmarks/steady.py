"""Does a worker's memory stay where it is? Its resident size after 1 million events, and after 10 million.

One worker (`--role score`, exactly once) on its core, one Apache Kafka and the producer on the others. The events come
in portions; each is written, and then its predictions are read. Every prediction is compared with a direct one: a
portion that was not answered exactly, each event once, ends the benchmark with exit code 1. The size of a portion is
the median of the samples that were taken while the worker scored it. Growth by more than 5% does not
fail the benchmark: `within` tells. Kafka keeps everything: that is 0.7 GB for each million events.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import machine, synthetic
from benchmarks.comparison import OutputsDiffer
from benchmarks.plain import Follower, Kafka, Row
from benchmarks.usage import Sample, Usage
from benchmarks.workers import Penstock
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus
from topics.specs import StreamTopics

GOAL: Final = 0.05
_FIRST: Final = 1_000_000
_TOPICS: Final = StreamTopics(synthetic.STREAM)
_BASELINE_ROWS: Final = 20_000
_WORKER: Final = "worker"
_SLOWEST_EPS: Final = 1_000
_SHOWN: Final = 3


class _Output(msgspec.Struct):
    event_id: str
    score: float


class Checker:
    """Compares predictions with the `scores` (portion,), which are the same for each portion's rows."""

    def __init__(self, scores: NDArray[np.float32]) -> None:
        self._scores = scores.tolist()
        self._seen = bytearray(len(scores))
        self._decode = msgspec.json.Decoder(_Output).decode
        self.first = 0
        self.answered = 0

    def take(self, rows: Sequence[Row]) -> None:
        """Check more predictions of the portion. Raises OutputsDiffer at the first that is wrong."""
        for row in rows:
            output = self._decode(row.value or b"")
            number = int(output.event_id[1:]) - self.first
            if not 0 <= number < len(self._scores) or self._seen[number]:
                raise OutputsDiffer(
                    f"{output.event_id} was scored twice, or is none of the events from {self.first} on"
                )
            if output.score != self._scores[number]:
                raise OutputsDiffer(f"{output.event_id} got {output.score!r}, expected {self._scores[number]!r}")
            self._seen[number] = 1
            self.answered += 1

    @property
    def complete(self) -> bool:
        """Whether every event of the portion has its prediction."""
        return self.answered == len(self._scores)

    def next_portion(self) -> None:
        """Expect the next portion's predictions from now on."""
        self.first += len(self._scores)
        self.answered = 0
        self._seen = bytearray(len(self._scores))


def add_command(commands: Any) -> None:
    """Add `steady` to the benchmarks that can be asked for."""
    parser = commands.add_parser("steady", help="memory of a worker after 1 million events, and after 10 million")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--portion", type=int, default=500_000, help="events that are written at a time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    cores = machine.split_cores() or machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, synthetic.CONFIG))
        try:
            samples, marks = score_all(penstock, cores.contestant, arguments)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = judged(samples, marks, arguments.portion) | {"machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def score_all(
    penstock: Penstock, cpus: frozenset[int], arguments: argparse.Namespace
) -> tuple[list[Sample], list[float]]:
    """Let a worker score all portions. Return its samples, and when each portion's last prediction had been read."""
    cluster, portion = Kafka(penstock.bootstrap), arguments.portion
    values, booster = synthetic.draw(portion, arguments.seed), synthetic.train(arguments.seed)
    rows = synthetic.save_rows(values[:_BASELINE_ROWS], penstock.folder / "rows.csv")
    penstock.run("topics", "apply")
    penstock.deploy(synthetic.STREAM, synthetic.save(booster, penstock.folder / "model.ubj"), rows)
    checker = Checker(booster.inplace_predict(values.astype(np.float32), validate_features=False))
    worker = penstock.worker(_WORKER, "score", cpus=cpus)
    worker.wait_until_ready()
    marks = [time.time()]
    reader = Follower(penstock.bootstrap, _TOPICS.predictions)
    with contextlib.closing(reader), Usage({_WORKER: worker.pid}, every_s=0.2) as usage:
        for number in range(-(-arguments.events // portion)):
            cluster.fill(_TOPICS.features, synthetic.documents(values, first=number * portion))
            deadline = time.monotonic() + 60 + portion / _SLOWEST_EPS
            while not checker.complete:
                worker.check()
                checker.take(reader.poll(0.5))
                if time.monotonic() > deadline:
                    raise OutputsDiffer(f"{portion - checker.answered} events of portion {number + 1} are not scored")
            checker.next_portion()
            marks.append(time.time())
            resident_mb = usage.samples[_WORKER][-1].rss_bytes / 1e6
            print(f"{(number + 1) * portion:>12,} events: {resident_mb:,.1f} MB", flush=True)
        checker.take(reader.poll(2.0))  # what would come now would be too many
    if cluster.ends(_TOPICS.features_dead):
        raise OutputsDiffer("there are dead letters")
    if exit_code := worker.end():
        raise RuntimeError(f"the worker ended with {exit_code} when told to drain; see {worker.log}")
    return usage.samples[_WORKER], marks


def judged(samples: Sequence[Sample], marks: Sequence[float], portion: int) -> dict[str, Any]:
    """Return the resident MB of each portion, the growth from the millionth event to the last, and if it is within 5%.

    `marks` are the times between which the portions were scored.
    """
    sizes_mb = [
        round(statistics.median(sample.rss_bytes for sample in samples if begun <= sample.time_s <= ended) / 1e6, 1)
        for begun, ended in pairwise(marks)
    ]
    at_first = max(0, min(_FIRST // portion, len(sizes_mb)) - 1)
    growth = round(sizes_mb[-1] / sizes_mb[at_first] - 1, 4)
    return {
        "events": portion * len(sizes_mb),
        "mb_after_first": sizes_mb[at_first],
        "mb_after_all": sizes_mb[-1],
        "peak_mb": round(max(sample.rss_bytes for sample in samples) / 1e6, 1),
        "growth": growth,
        "within": growth <= GOAL,
        "mb_by_portion": sizes_mb,
    }
