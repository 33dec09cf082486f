"""How fast do labels come back: the join beside the score stage, and the learner beside a bare river loop?

Everything runs on one Apache Kafka; the contestants take turns, each alone on one core, with the broker on the
others. First, in each round, a worker scores all events and another one joins the predictions with a label for each
event, which lie in the log just behind their predictions. Then, in each round and for each kind of model, a bare river
loop and a learner learn all the samples that were joined.

What a stage does is timed by the broker, which stamps what it writes: the samples of the join, and the records that
tell of a learner's snapshots, one after every 1,000 samples. So publishing and checkpoints are in the learner's time,
as are reading, decoding and committing; the bare loop has its samples decoded in memory before its clock starts.
The learner is a worker with nothing but that learner's consumer group; `role_eps` is the same with the whole
role as `penstock worker --role learn` runs it, where the evaluator reads the same samples on the same core.

Every sample is compared with what was sent, and every number of the models with the bare loop's; a difference ends the
benchmark with exit code 1.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks import learner_worker, machine, synthetic
from benchmarks.bare_learner import PROBES, Learnt
from benchmarks.comparison import OutputsDiffer
from benchmarks.joining import Joining, run_to_the_end, tell
from benchmarks.learn_checker import learning_rate, model_differences
from benchmarks.plain import Kafka
from benchmarks.workers import Penstock, Worker
from ml.models.registry import model_type
from schemas.events import ModelVersion
from stores.artifacts import ArtifactStore
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_ALGORITHMS: Final = {"logistic": "river-logistic", "tree": "river-hoeffding-tree"}
_PATIENCE_S: Final = 120.0


def add_command(commands: Any) -> None:
    """Add `learn` to the benchmarks that can be asked for."""
    parser = commands.add_parser("learn", help="join labels and learn: Penstock beside a bare river loop")
    parser.add_argument("--events", type=int, default=300_000, help="rounded down to thousands")
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
    events = arguments.events // 1000 * 1000
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        cluster = Kafka(server.bootstrap)
        deployments = {name: stack.enter_context(_deployment(folder / name, cluster, name)) for name in _CONFIGS}
        try:
            rates = Joining(cluster, deployments["plain"], cores.contestant, events, arguments.seed).measure(
                arguments.runs
            )
            rates |= _Learning(cluster, deployments, cores.contestant).measure(arguments.runs)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = _summary(rates) | {"events": events, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _config(name: str) -> str:
    """Return penstock.toml with the learner of this name: as shipped, but trees as deep as river's own may grow."""
    if name not in _ALGORITHMS:
        return synthetic.CONFIG
    deep = "parameters = { max_depth = 60 }\n" if name == "tree" else ""
    return (
        f"{synthetic.CONFIG}\n[streams.{synthetic.STREAM}.learners.{name}]\n"
        f'algorithm = "{_ALGORITHMS[name]}"\nstrategy = "incremental"\n{deep}'
    )


_CONFIGS: Final = {name: _config(name) for name in ("plain", *_ALGORITHMS)}


@contextlib.contextmanager
def _deployment(folder: Path, cluster: Kafka, name: str) -> Iterator[Penstock]:
    folder.mkdir()
    with Penstock(folder, cluster.bootstrap, _CONFIGS[name]) as penstock:
        yield penstock


def _summary(rates: Mapping[str, Sequence[float]]) -> dict[str, object]:
    """Return the median rates in events or samples per second, the shares that are asked for, and every turn."""
    eps = {name: median(taken) for name, taken in rates.items()}
    return {
        "ratio": round(eps["logistic"] / eps["bare_logistic"], 3),
        "ratio_tree": round(eps["tree"] / eps["bare_tree"], 3),
        "ratio_role": round(eps["role"] / eps["bare_logistic"], 3),
        "join_ratio": round(eps["join"] / eps["score"], 3),
        **{f"{name}_eps": round(rate) for name, rate in eps.items()},
        "runs": {name: [round(rate) for rate in taken] for name, taken in rates.items()},
    }


class _Features(msgspec.Struct):
    features: tuple[float | None, ...]


_read_features: Final = msgspec.json.Decoder(_Features)


class _Learning:
    """The samples that the last join left are learnt again and again."""

    def __init__(self, cluster: Kafka, deployments: Mapping[str, Penstock], cpus: frozenset[int]) -> None:
        self._cluster = cluster
        self._deployments = deployments
        self._cpus = cpus
        self._samples = list(cluster.read(_TOPICS.samples))
        rows = [_read_features.decode(row.value or b"").features for row in self._samples[-PROBES:]]
        self._probes = np.array(rows, dtype=np.float32)
        self._learnt: dict[str, Learnt] = {}

    def measure(self, runs: int) -> dict[str, list[float]]:
        """Return the rates of all turns; who begins changes from round to round, but a bare loop is before its peer."""
        rates: dict[str, list[float]] = defaultdict(list)
        for number in range(runs):
            for kind in islice(cycle(_ALGORITHMS), number, number + len(_ALGORITHMS)):
                rates[f"bare_{kind}"].append(self._bare(kind))
                tell(number, f"bare_{kind}", rates[f"bare_{kind}"][-1])
                rates[kind].append(self._learn(f"{kind}-{number}", kind, whole_role=False))
                tell(number, kind, rates[kind][-1])
            rates["role"].append(self._learn(f"role-{number}", "logistic", whole_role=True))
            tell(number, "role", rates["role"][-1])
        return dict(rates)

    def _bare(self, kind: str) -> float:
        command = [sys.executable, "-m", "benchmarks.bare_learner", self._cluster.bootstrap, _TOPICS.samples, kind]
        with on_cpus(self._cpus):
            done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_PATIENCE_S, check=True)
        self._learnt[kind] = msgspec.json.decode(done.stdout, type=Learnt)
        return self._learnt[kind].steady_eps

    def _learn(self, name: str, kind: str, *, whole_role: bool) -> float:
        penstock = self._deployments[kind]
        self._cluster.delete_topics(_TOPICS.models, _TOPICS.updates, _TOPICS.checkpoints, _TOPICS.performance)
        penstock.run("topics", "apply")
        self._cluster.stamp_by_broker(_TOPICS.updates)

        def start() -> Worker:
            if whole_role:
                return penstock.worker(name, "learn", cpus=self._cpus, kafka_group_prefix=name)
            command = [sys.executable, learner_worker.__file__, f"learn-{kind}"]
            return penstock.start(name, command, self._cpus, kafka_group_prefix=name)

        run_to_the_end(start, self._cluster, f"{name}-learn-{kind}", [_TOPICS.samples])
        if found := self._differences(penstock, kind):
            raise OutputsDiffer(f"{name}: {'; '.join(found)}")
        return learning_rate(self._cluster.read(_TOPICS.updates))

    def _differences(self, penstock: Penstock, kind: str) -> list[str]:
        """Compare the last snapshot, which has learnt everything, with what the bare loop learnt."""
        rows = self._cluster.read(_TOPICS.models)
        versions = [msgspec.json.decode(row.value or b"", type=ModelVersion) for row in rows]
        last = max(versions, key=lambda version: version.samples_offset or 0)
        if last.samples_offset != self._samples[-1].offset + 1:
            return [f"the last snapshot, {last.model_id}, has not learnt all samples"]
        payload = ArtifactStore(str(penstock.folder / "artifacts")).get(last.sha256, last.size_bytes)
        return model_differences(model_type(last.algorithm).load(payload), self._learnt[kind], self._probes)
