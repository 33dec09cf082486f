"""The chaos run of training: each request ends in exactly one candidate or one recorded failure, wherever it is struck.

The samples log does not change, and a run is frozen when it begins. So all runs, struck or not, must come to the very
same model: not only one for each, but the right one.
"""

import argparse
import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import psutil

from benchmarks import synthetic
from benchmarks.chaos_learn import owns, until_committed
from benchmarks.chaos_score import deployed
from benchmarks.faults import Duty, Scene
from benchmarks.plain import Follower, Kafka, Row, until
from benchmarks.recovery import now_ms, watch
from benchmarks.train_outcome import Outcome, outcome_of
from benchmarks.train_samples import DECLARATION, sample_records
from benchmarks.workers import Worker
from schemas.events import RetrainRequest
from schemas.runs import Phase, TrainingEvent
from schemas.wire import encode
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

PHASES: Final[tuple[Phase, ...]] = tuple(phase for phase in get_args(Phase) if phase not in ("waiting", "ended"))
_TOPICS: Final = StreamTopics(synthetic.STREAM)
_SAMPLES: Final = 12_000
_RUN_S: Final = 180.0
_LONGEST_PAUSE_S: Final = 0.6
_POLL_S: Final = 0.05
_CONFIG: Final = f"""\
{DECLARATION}
approve = "auto"
attempts = 20
cooldown_minutes = 0

[streams.{synthetic.STREAM}.archive]
samples = 5000

[streams.{synthetic.STREAM}.training.parameters]
rounds = 60

[streams.{synthetic.STREAM}.training.search]
method = "grid"

[streams.{synthetic.STREAM}.training.search.space]
max_depth = {{ choices = [2, 4] }}
learning_rate = {{ choices = [0.1, 0.3] }}
"""


def play(arguments: argparse.Namespace, tell: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """Strike owners of the train stage and the runs' processes in every phase; return whether all is right."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell(f"Apache Kafka runs; deploying a model and writing {_SAMPLES:,} samples")
        penstock = stack.enter_context(deployed(folder, server, _CONFIG, arguments.seed, trees=1))
        cluster.fill(_TOPICS.samples, sample_records(_SAMPLES, arguments.seed + 1))
        keeper = penstock.worker("keeper", "learn")
        with watch(server.bootstrap, {_TOPICS.training: _shown}, 1) as recoveries:
            rng = random.Random(arguments.seed)
            duty = Duty("train", owns("penstock-train"), lambda _: True)
            scene = Scene(server, penstock, recoveries, rng, tell, [duty], roles=["train"])
            scene.start()
            keeper.wait_until_ready()
            until_committed(cluster, "penstock-archive", _TOPICS.samples)
            tell("two workers that train are ready, and the samples are archived")
            story = _Story(cluster, scene, rng, tell)
            try:
                story.play(arguments.kills, arguments.only_kills)
            except TimeoutError as late:
                tell(str(late))
            finally:
                story.close()
            for worker in scene.workers:
                worker.wait_until_ready()  # one that has just begun cannot end in good order
            keeper.check()
            keeper.send(signal.SIGTERM)
            scene.stop()
        tell("counting")
        found = _count(cluster, story.asked, arguments.plant)
    return found.right, {
        "kills": sum(story.struck.values()),
        "kills_by_phase": dict(story.struck),
        **found.as_dict(),
        **recoveries.as_dict(),
    }


class _Story:
    """One request after the other, each struck in its phase. `asked` are the requests' ids; `struck` counts blows."""

    def __init__(self, cluster: Kafka, scene: Scene, rng: random.Random, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._scene = scene
        self._random = rng
        self._tell = tell
        self._follower = Follower(cluster.bootstrap, _TOPICS.training)
        self._events: list[TrainingEvent] = []
        self.asked: list[str] = []
        self.struck: Counter[str] = Counter()

    def play(self, kills: int, only_kills: bool) -> None:
        """Kill `kills` times, phase by phase, now the worker and now the run's process only; then everything else."""
        self._finish(self._ask())
        for number, phase in zip(range(kills), cycle(PHASES), strict=False):
            request = self._ask()
            self._reach(request, phase)
            time.sleep(self._random.uniform(0, _LONGEST_PAUSE_S))
            alone = number // len(PHASES) % 2 == 1
            what = self._kill_run() if alone else self._scene.kill()
            self.struck[phase] += 1
            self._tell(f"kill {number + 1} of {kills} in the phase {phase}: {what}")
            self._finish(request)
        for other in [] if only_kills else [self._scene.freeze, self._scene.end, self._scene.restart_broker]:
            request = self._ask()
            self._reach(request, "fit")
            other()
            self._finish(request)

    def close(self) -> None:
        """End the reader."""
        self._follower.close()

    def _ask(self) -> str:
        """Send a request, and another one that comes while its run is at work; return the first one's id."""
        first, second = (f"{len(self.asked) + place:032x}" for place in range(2))
        for request_id in (first, second):
            request = RetrainRequest(
                id=request_id,
                stream=synthetic.STREAM,
                reason="manual",
                evidence={},
                requested_time_ms=now_ms(),
                requested_by="chaos",
            )
            self._cluster.fill(_TOPICS.retrain, [(synthetic.STREAM.encode(), encode(request))])
            self.asked.append(request_id)
        return first

    def _reach(self, request_id: str, phase: Phase) -> None:
        """Wait until the run of a request is in `phase`, or has ended already."""
        self._until(lambda event: request_id in event.request_ids and event.phase in (phase, "ended"), phase)

    def _finish(self, request_id: str) -> None:
        """Wait until the run of a request, and that of the one sent after it, have ended."""
        second = self.asked[self.asked.index(request_id) + 1]
        for each in (request_id, second):
            self._until(_ends(each), f"the end of request {each}")

    def _until(self, holds: Callable[[TrainingEvent], bool], what: str) -> None:
        def seen() -> bool:
            self._events += [_event_of(row) for row in self._follower.poll(0.02)]
            return any(map(holds, self._events))

        until(seen, what, _RUN_S, _POLL_S)

    def _kill_run(self) -> str:
        """Kill the process of the run that is at work, and nothing else."""
        for worker in self._scene.workers:
            if run := _run_of(worker):
                with contextlib.suppress(psutil.NoSuchProcess):
                    run.kill()
                return f"the run's process of {worker.name}"
        return "nobody: the run had ended"


def _ends(request_id: str) -> Callable[[TrainingEvent], bool]:
    return lambda event: request_id in event.request_ids and event.phase == "ended"


def _run_of(worker: Worker) -> psutil.Process | None:
    """Return the process of a worker's run: the child that leads a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(worker.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if _leads(child.pid):
                    return child
    return None


def _leads(pid: int) -> bool:
    """Whether a process leads its session; /proc says so in the sixth field, after a name in parentheses."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[3]) == pid


def _event_of(row: Row) -> TrainingEvent:
    return msgspec.json.decode(row.value or b"", type=TrainingEvent)


def _shown(row: Row) -> tuple[int, int]:
    return 0, row.time_ms


def _count(cluster: Kafka, asked: Sequence[str], plant: str | None) -> Outcome:
    """Read what is committed, with a fault planted if one is asked for."""
    events = [_event_of(row) for row in cluster.read(_TOPICS.training)]
    ended = [event for event in events if event.phase == "ended"]
    if plant == "double":
        ended.append(ended[0])
    elif plant == "skip":
        del ended[0]
    values = {
        topic: [row.value or b"" for row in cluster.read(topic)]
        for topic in (_TOPICS.models, _TOPICS.audit, _TOPICS.commands)
    }
    return outcome_of(asked, ended, values[_TOPICS.models], values[_TOPICS.audit], values[_TOPICS.commands])
