"""How many events per second does one core score, by the number of features and the kind of model?

One Apache Kafka, and for each shape of model a stream of its own of 4 partitions. Its events are written, then one
worker (`--role score`, exactly once, counting for drift) scores them on its core, the broker being on the others. Every
prediction is compared with a direct one, and what was counted must cover every event once: else the exit code is 1.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xgboost
from numpy.typing import NDArray

from benchmarks import machine, synthetic
from benchmarks.comparison import OutputsDiffer, differences
from benchmarks.histogram_checker import cover_differences
from benchmarks.plain import Kafka, until
from benchmarks.stream_fleet import Candidate, declare, deploy, penstock_of
from benchmarks.usage import Usage, broker_pid, footprint
from benchmarks.worker_turns import BROKER, turn_of
from benchmarks.workers import Penstock
from ml.models.registry import model_type
from schemas.drift import PartialHistogram
from schemas.wire import decode
from tests.kafka.server import kafka as any_kafka
from tests.kafka.server import on_cpus
from topics.specs import StreamTopics

_PARTITIONS: Final = 4
_BASELINE_ROWS: Final = 20_000
_SLOWEST_EPS: Final = 500


class Shape(NamedTuple):
    """A model: `trees` of depth 6 on so many features; 0 trees: a logistic regression."""

    features: int
    trees: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read `10x100`, or `10xlogistic`."""
        features, _, trees = text.partition("x")
        return cls(int(features), 0 if trees == "logistic" else int(trees))

    def __str__(self) -> str:
        return f"{self.features}x{self.trees or 'logistic'}"

    @property
    def names(self) -> list[str]:
        """The names of the features."""
        return [f"f{i}" for i in range(self.features)]


_WARM_UP: Final = Shape(10, 100)  # uncounted: a young broker compiles itself
SHAPES: Final = "10xlogistic 10x30 10x100 10x300 10x1000 50xlogistic 50x100 50x300 200x300"


def add_command(commands: Any) -> None:
    """Add `capacity` to the benchmarks that can be asked for."""
    parser = commands.add_parser("capacity", help="events/s of one core by features and trees")
    parser.add_argument("--events", type=int, default=300_000, help="of each shape")
    parser.add_argument("--shapes", nargs="+", type=Shape.parse, default=[Shape.parse(text) for text in SHAPES.split()])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when outputs differ."""
    cores = machine.split_cores() or machine.Cores(frozenset(), frozenset())
    found: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(any_kafka(os.environ, cpus=cores.others))
        stack.enter_context(on_cpus(cores.others))
        penstock = stack.enter_context(penstock_of(folder, server.bootstrap))
        try:
            measure(penstock, "warm-up", _WARM_UP, cores.contestant, arguments.events, arguments.seed)
            for shape in dict.fromkeys(arguments.shapes):
                name = f"shape-{shape}"
                found.append(measure(penstock, name, shape, cores.contestant, arguments.events, arguments.seed))
                print(json.dumps(found[-1]), flush=True)
        except OutputsDiffer as difference:
            print(f"Outputs differ. {difference}", file=sys.stderr)
            return 1
    result = {"events": arguments.events, "shapes": found, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(
    penstock: Penstock, stream: str, shape: Shape, cpus: frozenset[int], events: int, seed: int
) -> dict[str, Any]:
    """Score events of a new stream with a model of this shape. Raises OutputsDiffer when predictions are not right."""
    cluster, topics = Kafka(penstock.bootstrap), StreamTopics(stream)
    values = draw(events, shape.features, seed)
    candidate = train(shape, values[:_BASELINE_ROWS], seed)
    declare(penstock, {stream: shape.names}, _PARTITIONS)
    deploy(penstock, {stream: candidate})
    cluster.stamp_by_broker(topics.predictions)
    broker = {BROKER: pid} if (pid := broker_pid()) else {}
    with Usage(broker) as whole:
        cluster.fill(topics.features, documents(values, shape.names))
        ends = cluster.ends(topics.features)
        worker = penstock.worker(stream, "score", cpus=cpus)
        with Usage({stream: worker.pid} | broker) as usage:

            def all_committed() -> bool:
                worker.check()
                return cluster.committed("penstock-score", topics.features) == ends

            until(all_committed, f"{shape} to be scored", 60 + events / _SLOWEST_EPS, 0.5)
        held = footprint(worker.pid)
        if exit_code := worker.end():
            raise RuntimeError(f"{worker.name} ended with {exit_code} when told to drain; see {worker.log}")
        rows = list(cluster.read(topics.predictions))
    problems = differences(expected_scores(candidate, values), rows)
    partials = (decode(PartialHistogram, row.value) for row in cluster.read(topics.histograms))
    if cluster.ends(topics.features_dead):
        problems.append("there are dead letters")
    if problems := problems + cover_differences(partials, ends):
        raise OutputsDiffer(f"{shape}: {'; '.join(problems)}")
    turn = turn_of(rows, usage, "pinned", [1.0])
    return {
        "features": shape.features,
        "trees": shape.trees,
        "eps": turn.eps,
        "cpu_us": turn.cpu_us,
        "broker_cpu_us": turn.broker_cpu_us,
        "broker_all_us": round(1e6 * whole.total_cpu_s(BROKER) / events, 2) if broker else None,
        "peak_mb": turn.peak_mb[0],
        "rss_mb": held["rss_mb"],
        "model_mb": round(len(candidate.payload) / 1e6, 2),
        "model_memory_mb": round(model_type(candidate.algorithm).load(candidate.payload).memory_bytes / 1e6, 2),
        "event_bytes": round(_mean_bytes(documents(values[:1000], shape.names))),
        "prediction_bytes": round(_mean_bytes((row.key or b"", row.value or b"") for row in rows[:1000])),
    }


def draw(events: int, features: int, seed: int) -> NDArray[np.float64]:
    """Return feature values, shape (events, features): normal, four decimals, none missing."""
    return np.random.default_rng(seed).normal(size=(events, features)).round(4)


def train(shape: Shape, rows: NDArray[np.float64], seed: int) -> Candidate:
    """Return a model of this shape, trained on `rows` (n, features) with a known rule and some noise."""
    random = np.random.default_rng(seed)
    labels = rows[:, 0] + rows[:, 1] * rows[:, 2] - np.abs(rows[:, 3]) + random.normal(size=len(rows)) > 0
    matrix = rows.astype(np.float32)
    if not shape.trees:
        return Candidate(_logistic(matrix, labels), "sklearn", matrix)
    parameters = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "seed": seed}
    booster = xgboost.train(parameters, xgboost.DMatrix(matrix, label=labels), num_boost_round=shape.trees)
    return Candidate(bytes(booster.save_raw("ubj")), "xgboost", matrix)


def documents(values: NDArray[np.float64], names: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and JSON value of each row's feature event."""
    encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
    for number, row in enumerate(values.tolist()):
        entity = synthetic.entity_id(number)
        event = {
            "event_id": synthetic.event_id(number),
            "entity_id": entity,
            "event_time_ms": 1_700_000_000_000 + number,
        }
        yield entity.encode(), encode(event | {"features": dict(zip(names, row, strict=True))})


def expected_scores(candidate: Candidate, values: NDArray[np.float64]) -> dict[str, float]:
    """Return the score of every event by its id, from one direct prediction."""
    matrix = values.astype(np.float32)
    if candidate.algorithm == "xgboost":
        scores = xgboost.Booster(model_file=bytearray(candidate.payload)).inplace_predict(matrix)
    else:
        scores = np.asarray(model_type(candidate.algorithm).load(candidate.payload).predict(matrix))
    return {synthetic.event_id(number): score for number, score in enumerate(scores.tolist())}


def _logistic(matrix: NDArray[np.float32], labels: NDArray[np.bool_]) -> bytes:
    from ml.training.protocol import Unwatched
    from ml.training.sklearn_trainer import SklearnTrainer
    from ml.training.table import Table

    order = np.arange(len(matrix))
    table = Table(matrix, labels.astype(np.int64), np.ones(len(matrix)), order, order, np.zeros(len(matrix)))
    names = tuple(f"f{i}" for i in range(matrix.shape[1]))
    trainer = SklearnTrainer(names, 1, threads=1, estimator="sklearn.linear_model.LogisticRegression")
    return trainer.fit(table, table, Unwatched()).payload


def _mean_bytes(records: Iterator[tuple[bytes, bytes]]) -> float:
    return float(np.mean([len(key) + len(value) for key, value in records]))
