"""What tests of the score stage share: the stage on one partition with models, and records for it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from agents.arms import Arm
from agents.baselines import Yardstick
from agents.counting import Counting
from agents.score import Score
from agents.serving import Served
from agents.shadows import Shadow
from ml.drift.baseline import make_baseline
from ml.drift.counting import Counter
from ml.experiments.assignment import Runs, bucket_counts, buckets_of, expanded, initial_table
from ml.models.protocol import Matrix, Scores
from schemas.drift import PartialHistogram
from schemas.events import DeadLetter, Prediction
from schemas.experiments import Experiment, ExperimentPlan, Variant, VariantCounts
from schemas.features import FeatureReader
from schemas.streams import DriftSpec, StreamSpec
from schemas.wire import decode
from stream.batches import Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.intake import FeatureIntake
from stream.metric_values import Metrics
from stream.partitioner import partitions_of
from stream.placement import Placement
from tests.support import Entry, Model, batch, deployment_of, version_of

BINARY = StreamSpec(name="flights", features=("a", "b"), threshold=0.7)
CLASSES = StreamSpec(name="birds", features=("a", "b"), task="multiclass", classes=("owl", "tit", "jay"))
NOW_MS = 1_000_000
HOME = int(partitions_of([b"N1"], 4)[0])


class Answers(Model):
    """Gives the scores it was made with."""

    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = np.array(scores, dtype=np.float32)

    def predict(self, matrix: Matrix) -> Scores:
        assert len(matrix) == len(self.scores)
        return self.scores


class Bench:
    """The stage for one partition, with a model."""

    def __init__(self, spec: StreamSpec, model: Model, gate: DeadLetterGate | None = None, **shadows: Model) -> None:
        self.spec = spec
        self.metrics = Metrics()
        self.ticks = 0
        beside = tuple(Shadow(shadow, version_of(spec, name)) for name, shadow in shadows.items())
        self.served = Served(model, version_of(spec, "m1"), deployment_of(spec, "m1", 3), beside)
        placement = Placement(f"{spec.name}.features", HOME, 4)
        self.score = Score(
            self,  # type: ignore[arg-type]  # as much of a Serving as is used
            FeatureIntake(FeatureReader(spec), placement, 1000),
            Counting(spec, DriftSpec(window_events=100), HOME, self.metrics),
            gate or DeadLetterGate(1.0, 10),
            self.metrics,
            lambda: NOW_MS,
            self.tick,
        )

    def tick(self) -> int:
        """Return a time in nanoseconds, half a millisecond after the last."""
        self.ticks += 1
        return self.ticks * 500_000

    async def ready(self) -> Served:
        return self.served

    async def take(self, *records: Entry) -> tuple[list[Prediction], list[DeadLetter]]:
        outbox = Outbox()
        await self.score.process(batch(TopicPartition(f"{self.spec.name}.features", HOME), records), outbox)
        found = {"predictions": [], "features.dead": []}  # type: dict[str, list[bytes]]
        for target, written in outbox.targets.items():
            assert target.partition == HOME
            found[target.topic.removeprefix(f"{self.spec.name}.")] += [value for _, value in written]
        return (
            [decode(Prediction, value) for value in found["predictions"]],
            [decode(DeadLetter, value) for value in found["features.dead"]],
        )

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"stream": self.spec.name, **labels}) or 0.0


def record_of(
    offset: int, a: float | None = 0.0, b: float | None = 0.0, timestamp: int = NOW_MS, entity: str = "N1"
) -> Entry:
    """Return the record of an event."""
    document = {"event_id": f"e{offset}", "entity_id": entity, "event_time_ms": 5, "features": {"a": a, "b": b}}
    return Entry(offset, json.dumps(document).encode(), entity.encode(), timestamp)


class Raises(Model):
    """Is no good."""

    def predict(self, matrix: Matrix) -> Scores:
        raise ZeroDivisionError("oops")


class Constant(Model):
    """Gives every row the same score, or the same scores of all classes, in the precision that is asked for."""

    def __init__(self, score: Any, dtype: type[np.floating[Any]] = np.float32) -> None:
        super().__init__()
        self.score = np.array(score, dtype=dtype)
        self.classes = len(score) if self.score.ndim else 1

    def predict(self, matrix: Matrix) -> Scores:
        self.seen.append(matrix)
        return np.stack([self.score] * len(matrix))


def entities(n: int) -> list[str]:
    """Return the ids of entities whose events are on the bench's partition."""
    names = [f"E{i}" for i in range(8 * n + 40)]
    places = partitions_of([name.encode() for name in names], 4)
    return [names[i] for i in np.flatnonzero(places == HOME)[:n].tolist()]


def experiment_of(table: Runs, *models: str) -> Experiment:
    """Return an experiment on champion m1 with a variant of the same name for each model."""
    counts = np.bincount(expanded(table), minlength=len(models) + 1).tolist()
    return Experiment(
        experiment_id="x",
        kind="experiment",
        plan=ExperimentPlan(metric="accuracy"),
        salt="flights/x",
        variants=tuple(
            Variant(name=name, model_id=model_id, buckets=buckets)
            for name, model_id, buckets in zip(("champion", *models), ("m1", *models), counts, strict=True)
        ),
        table=table,
    )


def compare(bench: Bench, table: Runs | None = None, /, **models: Model | None) -> None:
    """Let variants serve beside the champion from now on: all in equal shares, if the table does not say otherwise."""
    served, n = bench.served, len(models) + 1
    experiment = experiment_of(table or initial_table(bucket_counts([1 / n] * n)), *models)
    arms = [Arm("champion", "m1", served.model, served.version)]
    arms += [Arm(name, name, model, version_of(bench.spec, name)) for name, model in models.items()]
    deployment = msgspec.structs.replace(
        served.deployment, revision=served.deployment.revision + 1, experiment=experiment
    )
    bench.served = replace(served, deployment=deployment, arms=tuple(arms), table=expanded(experiment.table))


def places_of(bench: Bench, names: Sequence[str]) -> list[int]:
    """Return the position of the variant that each entity is assigned to."""
    experiment, table = bench.served.experiment, bench.served.table
    assert experiment is not None
    assert table is not None
    buckets = buckets_of([name.encode() for name in names], experiment.salt)
    return [int(place) for place in table[buckets]]


def measured(bench: Bench) -> Bench:
    """Give the champion a baseline."""
    values = np.linspace(0, 1, 200, dtype=np.float32)
    baseline = make_baseline(np.stack([values, values], axis=1), ("a", "b"), {"score": values})
    bench.served = replace(bench.served, yardstick=Yardstick("0" * 64, baseline, Counter(baseline)))
    return bench


async def saved(bench: Bench) -> list[PartialHistogram]:
    """Return the partial histograms of a commit."""
    return [decode(PartialHistogram, value) for value in await _saved(bench, "histograms")]


async def tallied(bench: Bench) -> list[VariantCounts]:
    """Return what a commit says of variants and shadows."""
    return [decode(VariantCounts, value) for value in await _saved(bench, "variants")]


async def _saved(bench: Bench, topic: str) -> list[bytes]:
    outbox, stream = Outbox(), bench.spec.name
    await bench.score.save(outbox)
    records = outbox.targets.get(TopicPartition(f"{stream}.{topic}", 0), [])
    assert {key for key, _ in records} <= {stream.encode()}
    return [value for _, value in records]
