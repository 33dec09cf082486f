"""The chaos run of the stage score: exactly one prediction or one dead letter for each event."""

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import chaos_producer, synthetic
from benchmarks.checker import Place, Scored, Sent, Tally, tally
from benchmarks.faults import SESSION_TIMEOUT_S, Duty, Scene
from benchmarks.plain import Kafka, Row, until
from benchmarks.recovery import watch
from benchmarks.workers import Penstock
from tests.kafka.server import KafkaServer

_FEATURES: Final = f"{synthetic.STREAM}.features"
_DEAD: Final = f"{synthetic.STREAM}.features.dead"
_PREDICTIONS: Final = f"{synthetic.STREAM}.predictions"
_GROUP: Final = "penstock-score"
_BAD_SHARE: Final = 0.01
DRAIN_S: Final = 120.0
_SCORE: Final = Duty(
    "score", lambda _: True, lambda worker: worker.metric("ml_commit_seconds_count", stage="score") > 0
)


class _Outcome(msgspec.Struct):
    partition: int
    offset: int
    event_id: str = ""


class _Prediction(msgspec.Struct):
    scored_time_ms: int


_read_prediction: Final = msgspec.json.Decoder(_Prediction)


def play(arguments: argparse.Namespace, tell: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """Strike two workers that score; return whether every event has exactly its one outcome, and the figures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell("Apache Kafka runs; deploying a model")
        penstock = stack.enter_context(deployed(folder, server, synthetic.CONFIG, arguments.seed))
        with watch(server.bootstrap, {_PREDICTIONS: shown}, synthetic.PARTITIONS) as recoveries:
            rng = random.Random(arguments.seed)
            scene = Scene(server, penstock, recoveries, rng, tell, [_SCORE], roles=["score", "learn"])
            scene.start()
            tell("two workers are ready")
            words = [_FEATURES, str(folder / "journal"), str(arguments.rate), str(_BAD_SHARE), str(arguments.seed)]
            with producing("benchmarks.chaos_producer", cluster.bootstrap, *words):
                others = [] if arguments.only_kills else [scene.freeze, scene.end, scene.restart_broker]
                scene.play(arguments.kills, others)
            _drain(cluster, tell)
            scene.stop()
        tell("drained; counting")
        sent = list(_sent(folder / "journal"))
        if arguments.plant:
            sent += _plant(arguments.plant, cluster)
        found, replayed = _count(cluster, sent)
    return found.right, {
        "kills": arguments.kills,
        **found.as_dict(),
        "replayed_events": replayed,
        **recoveries.as_dict(),
    }


@contextlib.contextmanager
def deployed(
    folder: Path,
    server: KafkaServer,
    config: str,
    seed: int,
    baseline_data: Path | None = None,
    trees: int = 100,
    **settings: object,
) -> Iterator[Penstock]:
    """Give a deployment of the synthetic stream, with a champion, which has a baseline if there is data for one."""
    settings = {"kafka_session_timeout_ms": int(SESSION_TIMEOUT_S * 1000)} | settings
    with Penstock(folder, server.bootstrap, config, **settings) as penstock:
        penstock.run("topics", "apply")
        penstock.deploy(
            synthetic.STREAM, synthetic.save(synthetic.train(seed, trees), folder / "model.ubj"), baseline_data
        )
        yield penstock


@contextlib.contextmanager
def producing(module: str, *words: str) -> Iterator[None]:
    """Run a producer while the block runs; after it every record is acknowledged and in the journal."""
    process = subprocess.Popen([sys.executable, "-m", module, *words])
    try:
        yield
        process.terminate()
        if process.wait(chaos_producer.LAST_ACK_S + 10):
            raise RuntimeError("the producer failed: not every record was acknowledged")
    finally:
        process.kill()
        process.wait()


def shown(row: Row) -> tuple[int, int]:
    """Read off a prediction which partition it is of, and when it was made."""
    return row.partition, _read_prediction.decode(row.value or b"").scored_time_ms


def _drain(cluster: Kafka, tell: Callable[[str], None]) -> None:
    """Wait until everything is committed, but not for ever: what is missing then counts as lost."""
    ends = cluster.ends(_FEATURES)
    try:
        until(lambda: cluster.committed(_GROUP, _FEATURES) == ends, "the workers to drain the stream", DRAIN_S, 0.5)
    except TimeoutError as late:
        tell(str(late))


def _sent(journal: Path) -> Iterator[Sent]:
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            event_id, partition, offset, kind = line.split()
            yield Sent(event_id, Place(int(partition), int(offset)), kind == chaos_producer.GOOD)


def _plant(fault: str, cluster: Kafka) -> list[Sent]:
    """Make a fault. A skipped event is one that should be in the topic, at a place where Kafka never put it."""
    if fault == "skip":
        return [Sent("planted", Place(0, -1), good=True)]
    row = next(cluster.read(_PREDICTIONS))
    cluster.fill(_PREDICTIONS, [(row.key or b"", row.value or b"")])
    return []


def _count(cluster: Kafka, sent: Sequence[Sent]) -> tuple[Tally, int]:
    """Return the tally of what is committed, and how many outcomes were written but never committed."""
    decode = msgspec.json.Decoder(_Outcome).decode
    predictions, dead = ([decode(row.value or b"") for row in cluster.read(topic)] for topic in (_PREDICTIONS, _DEAD))
    written = sum(1 for topic in (_PREDICTIONS, _DEAD) for _ in cluster.read(topic, committed=False))
    found = tally(
        sent,
        [Scored(p.event_id, Place(p.partition, p.offset)) for p in predictions],
        [Place(d.partition, d.offset) for d in dead],
    )
    return found, written - len(predictions) - len(dead)
