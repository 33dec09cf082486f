"""The chaos run of join and learn: one outcome for each label, and models that are a fold of the samples log.

One worker scores and is left alone. Two workers join labels, evaluate, and learn: one learner sample by sample, whose
snapshots score beside the champion, and one in batches, which has a buffer to lose.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.blobs import Blobs
from agents.learn import LearnState
from app.settings import load_settings
from benchmarks import synthetic
from benchmarks.chaos_producer import home_of
from benchmarks.chaos_score import DRAIN_S, deployed, producing
from benchmarks.faults import Duty, Scene
from benchmarks.fold_checker import Fold, LogRecord, Published, Told, evaluation, learner_differences
from benchmarks.label_checker import LabelTally, Predicted, Refused, Sampled, Truth, tally
from benchmarks.label_producer import Journaled
from benchmarks.label_script import DRAWN, LATENESS_MS, WINDOW_MS
from benchmarks.plain import Kafka, Row, until
from benchmarks.recovery import watch
from benchmarks.workers import Worker
from ml.learning.online import OnlineLearner
from ml.models.registry import learner_type
from schemas.events import Checkpoint, ModelVersion
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactStore
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_CHECKPOINT_INTERVAL_MS: Final = 2_000
_CONFIG: Final = f"""\
{synthetic.CONFIG}
[streams.{synthetic.STREAM}.join]
window_minutes = {WINDOW_MS // 60_000}
lateness_minutes = {LATENESS_MS // 60_000}
assume_negative = true

[streams.{synthetic.STREAM}.learners.online]
algorithm = "river-logistic"
strategy = "incremental"
shadow = true
publish_every = 2000
keep_snapshots = 1000000

[streams.{synthetic.STREAM}.learners.mini]
algorithm = "river-logistic"
strategy = "mini_batch"
batch_size = 150
publish_every = 2000
"""
_GROUPS: Final = {
    "penstock-join": (_TOPICS.predictions, _TOPICS.labels),
    "penstock-evaluate": (_TOPICS.samples,),
    "penstock-learn-online": (_TOPICS.samples,),
    "penstock-learn-mini": (_TOPICS.samples,),
}


def play(arguments: argparse.Namespace, tell: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """Strike owners of join and learn; return whether labels, models and figures are right, and the figures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell("Apache Kafka runs; deploying a model")
        penstock = stack.enter_context(
            deployed(folder, server, _CONFIG, arguments.seed, checkpoint_interval_ms=_CHECKPOINT_INTERVAL_MS)
        )
        scorer = penstock.worker("scorer", "score")
        shown = {_TOPICS.samples: _joined, _TOPICS.updates: _learnt}
        with watch(server.bootstrap, shown, synthetic.PARTITIONS + 1) as recoveries:
            rng = random.Random(arguments.seed)
            scene = Scene(server, penstock, recoveries, rng, tell, _duties(), roles=["join", "learn"])
            scene.start()
            scorer.wait_until_ready()
            tell("a worker that scores and two that join and learn are ready")
            words = [str(folder / "journal"), str(arguments.rate), str(arguments.seed)]
            with producing("benchmarks.label_producer", cluster.bootstrap, *words):
                others = [] if arguments.only_kills else [scene.freeze, scene.end, scene.restart_broker]
                scene.play(arguments.kills, others)
            _drain(cluster, tell)
            scorer.check()
            scorer.send(signal.SIGTERM)
            scene.stop()
        tell("drained; counting")
        checked = _Check(cluster, folder, arguments.plant)
        labels = checked.labels(arguments.seed)
        tell("folding the samples log anew")
        differences = checked.learners()
        evaluated = asyncio.run(checked.evaluation())
    right = labels.right and not differences and not evaluated
    return right, {
        "kills": arguments.kills,
        "kills_by_duty": dict(scene.struck),
        **labels.as_dict(),
        "state_matches": not differences,
        "snapshots_compared": checked.snapshots_compared,
        "performance_matches": not evaluated,
        "performance_records": checked.performance_records,
        **({"differences": differences + evaluated} if differences or evaluated else {}),
        **recoveries.as_dict(),
    }


def _duties() -> list[Duty]:
    """Return what is struck in turn: the join each second time, and between these what reads the samples."""
    joins = Duty("join", _owns("penstock-join"), _joins)
    learners = [
        Duty(f"learn-{lineage}", _owns(f"penstock-learn-{lineage}"), _learns(lineage)) for lineage in ("online", "mini")
    ]
    return [duty for learner in learners for duty in (joins, learner)]


def _owns(group: str) -> Callable[[Worker], bool]:
    return lambda worker: any(task.startswith(f"{group}.") for task in worker.tasks())


def _joins(worker: Worker) -> bool:
    return worker.metric("ml_samples_total") > 0


def _learns(lineage: str) -> Callable[[Worker], bool]:
    return lambda worker: worker.metric("ml_learner_samples_total", lineage=lineage) > 0


def _joined(row: Row) -> tuple[int, int]:
    """Read off a sample which partition's join made it, and when."""
    return home_of(_read_entity.decode(row.value or b"").entity_id.encode()), row.time_ms


def _learnt(row: Row) -> tuple[int, int]:
    """Read off an update that a learner made it, as the part of the stream after the partitions, and when."""
    return synthetic.PARTITIONS, row.time_ms


class _Entity(msgspec.Struct):
    entity_id: str


_read_entity: Final = msgspec.json.Decoder(_Entity)


def _drain(cluster: Kafka, tell: Callable[[str], None]) -> None:
    """Wait until everything is committed, stage by stage, but not for ever: what is missing then counts as lost."""
    try:
        _until_committed(cluster, "penstock-score", _TOPICS.features)
        for group, topics in _GROUPS.items():
            for topic in topics:
                _until_committed(cluster, group, topic)
    except TimeoutError as late:
        tell(str(late))


def _until_committed(cluster: Kafka, group: str, topic: str) -> None:
    """Wait until `group` has committed the last record of each partition; behind it there are commit markers only."""
    last = {row.partition: row.offset + 1 for row in cluster.read(topic)}
    until(lambda: cluster.committed(group, topic).items() >= last.items(), f"{group} to read {topic}", DRAIN_S, 0.5)


class _Check:
    """What is committed, beside what should be. A fault that is planted is in the samples log as it was read."""

    def __init__(self, cluster: Kafka, folder: Path, plant: str | None) -> None:
        self._cluster = cluster
        self._folder = folder
        self._settings = load_settings({}, folder / "penstock.toml")
        self._spec: StreamSpec = self._settings.streams[0]
        self._store = ArtifactStore(str(folder / "artifacts"))
        self._log = [LogRecord(row.offset, row.time_ms, row.key, row.value) for row in cluster.read(_TOPICS.samples)]
        middle = len(self._log) // 2
        if plant is not None:
            self._log[middle : middle + 1] = [] if plant == "skip" else [self._log[middle]] * 2
        self.snapshots_compared = 0
        self.performance_records = 0

    def labels(self, seed: int) -> LabelTally:
        """Count the outcomes of all labels."""
        values = synthetic.draw(DRAWN, seed)
        scores = list(synthetic.expected_scores(synthetic.train(seed), values).values())
        rows = [tuple(None if value != value else value for value in row) for row in values.tolist()]
        journal = (self._folder / "journal").read_bytes().splitlines()
        predictions = {p.event_id: p for p in self._read(_TOPICS.predictions, Predicted)}
        sampled = msgspec.json.Decoder(Sampled).decode
        return tally(
            map(msgspec.json.Decoder(Journaled).decode, journal),
            predictions,
            [sampled(record.value or b"") for record in self._log],
            self._read(_TOPICS.labels_dead, Refused),
            Truth(lambda number: rows[number % DRAWN], lambda number: scores[number % DRAWN]),
        )

    def learners(self) -> list[str]:
        """Compare every snapshot and the newest checkpoint of each learner with a fold over the log."""
        checkpoints = {row.key: row for row in self._cluster.read(_TOPICS.checkpoints)}
        found = []
        for lineage, chosen in self._spec.learners.items():
            learner = msgspec.structs.replace(
                chosen,
                batch_size=chosen.batch_size or self._settings.online_batch_size,
                max_buffer=chosen.max_buffer or self._settings.online_max_buffer,
            )
            checkpoint = checkpoints.get(f"learn-{lineage}.0".encode())
            if checkpoint is None:
                found.append(f"learner {lineage} has no checkpoint")
                continue
            told = self._told(lineage, chosen.algorithm, msgspec.json.decode(checkpoint.value or b"", type=Checkpoint))
            self.snapshots_compared += sum(snapshot.model is not None for snapshot in told.snapshots)
            differences = learner_differences(Fold(self._spec, lineage, learner), self._log, told)
            found += [f"learner {lineage}: {difference}" for difference in differences]
        return found

    def _told(self, lineage: str, algorithm: str, checkpoint: Checkpoint) -> Told:
        versions = [v for v in self._read(_TOPICS.models, ModelVersion) if v.lineage == lineage]
        pruned = {version.model_id for version in versions if version.status == "pruned"}
        kind = learner_type(algorithm)
        snapshots = [
            Published(
                v.samples_offset or 0,
                None if v.model_id in pruned else kind.load(self._store.get(v.sha256, v.size_bytes)).canonical(),
            )
            for v in versions
            if v.status == "registered"
        ]
        dumped = asyncio.run(Blobs(self._store).unpack(checkpoint))
        return Told(
            snapshots=snapshots,
            offset=checkpoint.offsets[_TOPICS.samples],
            taken=msgspec.json.decode(checkpoint.state, type=LearnState).taken,
            state=OnlineLearner.load(algorithm, len(self._spec.features), 1, dumped).canonical(),
        )

    async def evaluation(self) -> list[str]:
        """Compare all that was said of the models' performance with what a fresh evaluator says."""
        expected = await evaluation(self._spec, self._log)
        said: Mapping[str, list[bytes]] = {
            topic: [row.value or b"" for row in self._cluster.read(topic)]
            for topic in (_TOPICS.performance, _TOPICS.alerts, _TOPICS.retrain)
        }
        self.performance_records = len(said[_TOPICS.performance])
        return [
            f"{topic} has {len(values)} records that are not those {len(expected.get(topic, []))} of a fresh evaluator"
            for topic, values in said.items()
            if values != expected.get(topic, []) or (topic == _TOPICS.performance and not values)
        ]

    def _read(self, topic: str, kind: type[Any]) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(row.value or b"") for row in self._cluster.read(topic)]
