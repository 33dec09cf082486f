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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import synthetic
from benchmarks.chaos_producer import home_of
from benchmarks.chaos_score import DRAIN_S, deployed, producing
from benchmarks.faults import Duty, Scene
from benchmarks.label_script import LATENESS_MS, WINDOW_MS
from benchmarks.learn_outcome import Outcome
from benchmarks.plain import Kafka, Row, until
from benchmarks.recovery import watch
from benchmarks.workers import Worker
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_CHECKPOINT_INTERVAL_MS: Final = 2_000
_LONGEST_PAUSE_S: Final = 3.0
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
                scene.play(arguments.kills, others, _LONGEST_PAUSE_S)
            _drain(cluster, tell)
            scorer.check()
            scorer.send(signal.SIGTERM)
            scene.stop()
        tell("drained; counting")
        checked = Outcome(cluster, folder, arguments.plant)
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
    joins = Duty("join", owns("penstock-join"), _joins)
    learners = [
        Duty(f"learn-{lineage}", owns(f"penstock-learn-{lineage}"), _learns(lineage)) for lineage in ("online", "mini")
    ]
    return [duty for learner in learners for duty in (joins, learner)]


def owns(group: str) -> Callable[[Worker], bool]:
    """Return what tells whether a worker runs a task of `group`."""
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
        until_committed(cluster, "penstock-score", _TOPICS.features)
        for group, topics in _GROUPS.items():
            for topic in topics:
                until_committed(cluster, group, topic)
    except TimeoutError as late:
        tell(str(late))


def until_committed(cluster: Kafka, group: str, topic: str) -> None:
    """Wait until a group has read what is in a topic now; raise TimeoutError when that takes too long."""
    last = cluster.last_offsets(topic)
    until(lambda: cluster.committed(group, topic).items() >= last.items(), f"{group} to read {topic}", DRAIN_S, 0.5)
