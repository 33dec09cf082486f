"""Does every event get exactly one outcome, whatever happens to the workers and the broker?

Two workers score a stream with 1% bad events on Apache Kafka. Again and again one of them is killed (kill -9), but only
after it has produced since its last start, and is started again. In between, one worker is frozen for longer
than the session time-out, one is told to end, and the broker is restarted. Then the stream drains, and a plain
`read_committed` reader counts. The exit code is 1 unless every good event has exactly one prediction and every bad one
exactly one dead letter.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import chaos_producer, synthetic
from benchmarks.checker import Place, Scored, Sent, Tally, tally
from benchmarks.faults import SESSION_TIMEOUT_S, Scene
from benchmarks.plain import Kafka, until
from benchmarks.recovery import watch
from benchmarks.workers import Penstock
from tests.kafka.server import KafkaServer

_FEATURES: Final = f"{synthetic.STREAM}.features"
_DEAD: Final = f"{synthetic.STREAM}.features.dead"
_PREDICTIONS: Final = f"{synthetic.STREAM}.predictions"
_GROUP: Final = "penstock-score"
_BAD_SHARE: Final = 0.01
_DRAIN_S: Final = 120.0


class _Outcome(msgspec.Struct):
    partition: int
    offset: int
    event_id: str = ""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="how often a worker is killed (at least once)")
    parser.add_argument("--only-kills", action="store_true", help="freeze, end and restart nothing")
    parser.add_argument("--rate", type=int, default=3_000, help="events per second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--plant",
        choices=["skip", "double"],
        help="add a fault on purpose, to see it found: an event that is never written, or a prediction written twice",
    )
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> int:
    """Play it, count, print and write the result. Returns 1 when an event has not exactly its one outcome."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell("Apache Kafka runs; deploying a model")
        penstock = stack.enter_context(_deployed(folder, server, arguments.seed))
        with watch(server.bootstrap, _PREDICTIONS, synthetic.PARTITIONS) as recoveries:
            scene = Scene(server, penstock, recoveries, random.Random(arguments.seed), tell)
            scene.start()
            tell("two workers are ready")
            with _producer(cluster, folder / "journal", arguments):
                others = [] if arguments.only_kills else [scene.freeze, scene.end, scene.restart_broker]
                scene.play(arguments.kills, others)
            _drain(cluster, tell)
            scene.stop()
        tell("drained; counting")
        sent = list(_sent(folder / "journal"))
        if arguments.plant:
            sent += _plant(arguments.plant, cluster)
        found, replayed = _count(cluster, sent)
    result = {
        "kills": arguments.kills,
        **found.as_dict(),
        "replayed_events": replayed,
        "recovery_s": recoveries.percentiles_s("kill"),
        "recoveries_s": {kind: [round(s, 1) for s in taken] for kind, taken in recoveries.taken_s.items()},
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if found.right else 1


@contextlib.contextmanager
def _deployed(folder: Path, server: KafkaServer, seed: int) -> Iterator[Penstock]:
    session_ms = int(SESSION_TIMEOUT_S * 1000)
    with Penstock(folder, server.bootstrap, synthetic.CONFIG, kafka_session_timeout_ms=session_ms) as penstock:
        penstock.run("topics", "apply")
        penstock.deploy(synthetic.STREAM, synthetic.save(synthetic.train(seed), folder / "model.ubj"))
        yield penstock


@contextlib.contextmanager
def _producer(cluster: Kafka, journal: Path, arguments: argparse.Namespace) -> Iterator[None]:
    """Produce while the block runs; after it every event is acknowledged and in the journal."""
    words = [cluster.bootstrap, _FEATURES, str(journal), str(arguments.rate), str(_BAD_SHARE), str(arguments.seed)]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.chaos_producer", *words])
    try:
        yield
        process.terminate()
        if process.wait(chaos_producer.LAST_ACK_S + 10):
            raise RuntimeError("the producer failed: not every event was acknowledged")
    finally:
        process.kill()
        process.wait()


def _drain(cluster: Kafka, tell: Callable[[str], None]) -> None:
    """Wait until everything is committed, but not for ever: what is missing then counts as lost."""
    ends = cluster.ends(_FEATURES)
    try:
        until(lambda: cluster.committed(_GROUP, _FEATURES) == ends, "the workers to drain the stream", _DRAIN_S, 0.5)
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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes of ours end with us
    sys.exit(run(parse()))
