"""What does it do to a worker under load that a 50 MB model is loaded and takes over?

One worker, alone on a core, scores a steady load on Apache Kafka. Meanwhile two large XGBoost models and the small
first one are promoted in turn. The worker may keep only one large model in memory, so each time it is read, checked
and loaded anew. How late the worker's event loop is comes from its own histogram; the rest is counted from the topics
by a plain `read_committed` reader: every event has exactly one prediction, each score is to the bit what exactly the
model named in it gives, and along each partition the deployments follow each other without a step back.

Where other programs use the worker's core as well (`core_used_by_others` says how much), it is late because of them.
"""

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import xgboost

from benchmarks import loop_lag, machine, swap_checker, synthetic
from benchmarks.loop_lag import LoopLag
from benchmarks.plain import Kafka, until
from benchmarks.workers import Penstock, Worker
from tests.kafka.server import KafkaServer, on_cpus

_FEATURES: Final = f"{synthetic.STREAM}.features"
_GROUP: Final = "penstock-score"
_DRAIN_S: Final = 120.0
_MEMORY_PER_FILE_BYTE: Final = 2.1  # of a loaded booster, as the registry estimates it


def add_command(commands: Any) -> None:
    """Add `swap` to the benchmarks that can be asked for."""
    parser = commands.add_parser("swap", help="load and swap large models under load")
    parser.add_argument("--rate", type=int, default=3_000, help="events per second")
    parser.add_argument("--swaps", type=int, default=9)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between a promotion and the next")
    parser.add_argument("--model-mb", type=float, default=50.0, help="least size of the large models")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; print and write the result. Returns 1 when an outcome is wrong or the event loop is too late."""
    cores = machine.split_cores() or machine.Cores(frozenset(), frozenset())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-swap-")))
        stack.enter_context(on_cpus(cores.others))
        _tell(f"training two models of {arguments.model_mb:.0f} MB")
        boosters = [synthetic.train(arguments.seed)]
        boosters += [train_large(arguments.seed + n, int(arguments.model_mb * 1e6)) for n in range(2)]
        server = stack.enter_context(KafkaServer(cpus=cores.others))
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, synthetic.CONFIG))
        bench = _Bench(Kafka(server.bootstrap), penstock, boosters)
        lags = bench.play(cores.contestant, arguments)
        result = bench.counts() | lags
    result |= {"machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if is_right(result) else 1


def is_right(result: Mapping[str, Any]) -> bool:
    """Whether every event has its one right prediction, and the event loop was late as seldom as it should."""
    flaws = ("lost", "duplicated", "misjudged", "dead_letters", "wrong_scores", "wrong_switches")
    return not any(result[flaw] for flaw in flaws) and result["loop_lag_ms"]["p99_9"] < 1000 * loop_lag.LIMIT_S


def train_large(seed: int, size_bytes: int) -> xgboost.Booster:
    """Return a classifier whose UBJ file has at least `size_bytes`; 50 MB take 360 trees and about 10 s.

    Its labels are drawn by lot, so that the trees have to learn the rows by heart.
    """
    random = np.random.default_rng(seed)
    values = synthetic.draw(24_000, seed).astype(np.float32)
    matrix = xgboost.DMatrix(values, label=random.integers(0, 2, size=len(values)))
    parameters = {
        "objective": "binary:logistic",
        "max_depth": 13,
        "max_bin": 32,
        "min_child_weight": 0,
        "lambda": 0,
        "eta": 0.05,
        "nthread": 1,
    }
    booster = xgboost.Booster(parameters, [matrix])
    rounds = itertools.count()
    while len(booster.save_raw("ubj")) < size_bytes:
        for number in itertools.islice(rounds, 20):
            booster.update(matrix, number)
    return booster


class _Bench:
    """The stream, its models, and what is done with them."""

    def __init__(self, cluster: Kafka, penstock: Penstock, boosters: Sequence[xgboost.Booster]) -> None:
        self._cluster = cluster
        self._penstock = penstock
        self._boosters = boosters
        self._files = [synthetic.save(b, penstock.folder / f"model-{n}.ubj") for n, b in enumerate(boosters)]
        self._ids: list[str] = []

    def play(self, cpus: frozenset[int], arguments: argparse.Namespace) -> dict[str, Any]:
        """Put the worker under load and promote models; return how late its event loop was."""
        self._penstock.run("topics", "apply")
        self._ids = [self._penstock.deploy(synthetic.STREAM, self._files[0])]
        # Room for one large model, and for half of another.
        budget = int(1.5 * _MEMORY_PER_FILE_BYTE * self._files[1].stat().st_size)
        worker = self._penstock.worker("worker", cpus=cpus, model_memory_bytes=budget)
        worker.wait_until_ready()
        with self._load(arguments):
            until(lambda: worker.metric("ml_predictions_total") > arguments.rate, "the first second's events")
            began, core = worker.buckets(loop_lag.METRIC), CoreUse(worker, cpus)
            self._ids += [self._register(file) for file in self._files[1:]]
            swaps = LoopLag.total(list(self._swap(worker, arguments.swaps, arguments.pause)))
        self._drain(worker)
        overall, others = LoopLag.between(began, worker.buckets(loop_lag.METRIC)), core.share_of_others()
        if exit_code := worker.end():
            raise RuntimeError(f"the worker ended with {exit_code} when told to drain:\n{worker.log_end()}")
        return {
            "loop_lag_ms": overall.as_dict(),
            "loop_lag_during_swaps_ms": swaps.as_dict(),
            "core_used_by_others": others,
        }

    def _swap(self, worker: Worker, swaps: int, pause_s: float) -> Iterator[LoopLag]:
        """Promote the models in turn; yield the lag from each command until `pause_s` after its answer."""
        turns = itertools.islice(itertools.cycle([*self._ids[1:], self._ids[0]]), swaps)
        for number, model_id in enumerate(turns, start=1):
            # Its turn may come again after two others had theirs, and then it is archived.
            self._penstock.run("models", "move", model_id, "staging", "--stream", synthetic.STREAM)
            before = worker.buckets(loop_lag.METRIC)
            self._penstock.run("models", "promote", model_id, "--stream", synthetic.STREAM)
            time.sleep(pause_s)
            worker.check()
            lag = LoopLag.between(before, worker.buckets(loop_lag.METRIC))
            _tell(f"swap {number} of {swaps}, {model_id}: {lag.as_dict()}")
            yield lag

    def _register(self, file: Path) -> str:
        model_id: str = self._penstock.run("models", "register", "--stream", synthetic.STREAM, "--file", str(file))[
            "model_id"
        ]
        return model_id

    @contextlib.contextmanager
    def _load(self, arguments: argparse.Namespace) -> Iterator[None]:
        """Produce good events while the block runs; after it every event is acknowledged."""
        words = [self._cluster.bootstrap, _FEATURES, str(self._penstock.folder / "journal"), str(arguments.rate)]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos_producer", *words, "0", str(arguments.seed)]
        )
        try:
            yield
            process.terminate()
            if process.wait(_DRAIN_S):
                raise RuntimeError("the producer failed: not every event was acknowledged")
        finally:
            process.kill()
            process.wait()

    def _drain(self, worker: Worker) -> None:
        """Wait until everything is committed, but not for ever: what is missing then counts as lost."""
        ends = self._cluster.ends(_FEATURES)

        def drained() -> bool:
            worker.check()
            return self._cluster.committed(_GROUP, _FEATURES) == ends

        try:
            until(drained, "the worker to drain the stream", _DRAIN_S, 0.5)
        except TimeoutError as late:
            _tell(str(late))

    def counts(self) -> dict[str, Any]:
        """Count what is in the topics."""
        models = dict(zip(self._ids, self._boosters, strict=True))
        smallest = min(file.stat().st_size for file in self._files[1:])
        return swap_checker.check(self._cluster, synthetic.STREAM, models) | {"model_mb": round(smallest / 1e6, 1)}


class CoreUse:
    """Who uses the worker's cores from now on."""

    def __init__(self, worker: Worker, cpus: frozenset[int], clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._cpus = cpus
        self._clock = clock
        self._began_s = clock()
        self._others_began_s = self._others_s()

    def share_of_others(self) -> float | None:
        """Return the share of the cores' time that went to other programs; None when the worker has no cores."""
        if not self._cpus:
            return None
        passed_s = (self._clock() - self._began_s) * len(self._cpus)
        return round((self._others_s() - self._others_began_s) / passed_s, 3)

    def _others_s(self) -> float:
        times = psutil.cpu_times(percpu=True)
        busy_s = sum(sum(times[cpu]) - times[cpu].idle - times[cpu].iowait for cpu in self._cpus)
        return float(busy_s) - self._worker.metric("process_cpu_seconds_total")


def _tell(what: str) -> None:
    print(what, flush=True)
