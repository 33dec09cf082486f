"""The contestants: how each is started, when it has scored everything, how it is ended, what it must have counted."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from benchmarks import environments
from benchmarks.peers import histograms
from benchmarks.peers.course import Course
from benchmarks.peers.outputs import Events, Outputs
from benchmarks.plain import Row
from tests.kafka.server import on_cpus

_HERE: Final = Path(__file__).parent
_END_S: Final = 10.0
_LOG_END: Final = 4000
_PENSTOCKS: Final = {"penstock": "exactly_once", "penstock_at_least_once": "at_least_once"}
_PEERS: Final = (
    "aiokafka_loop",
    "confluent_loop",
    "faust_event",
    "faust_take",
    "quix",
    "bytewax",
    "pathway",
)

PythonOf = Callable[[Path], Path]
"""Gives the Python with which the contestant in a folder runs."""


class Running(Protocol):
    """A contestant at work."""

    @property
    def pid(self) -> int: ...

    def check(self) -> None:
        """Raise RuntimeError with the end of its log when it has ended."""

    def end(self) -> int:
        """Ask it to end and wait; return its exit code, which is 0 when it ended as it should."""

    def kill(self) -> None:
        """End it at once, if it has not ended."""


class Contestant(Protocol):
    """Somebody who scores."""

    @property
    def name(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...

    def start(self, course: Course, turn: str, folder: Path, cpus: frozenset[int]) -> Running:
        """Start it on `cpus`, in an empty `folder`; nobody else has had the name `turn`."""

    def finished(self, course: Course, turn: str, events: int) -> bool:
        """Return whether there is a prediction of each of the events."""

    def histogram_differences(
        self, course: Course, events: Events, outputs: Outputs, rows: Iterable[Row], *, partial: bool
    ) -> list[str]:
        """Return a sentence for each way in which `rows` are not the histograms of these outputs."""


class PenstockContestant(NamedTuple):
    """Penstock: one worker with the role score."""

    name: str
    delivery: str

    @property
    def versions(self) -> Mapping[str, str]:
        """What it consists of where it matters here."""
        packages = ("penstock", "faust-streaming", "aiokafka", "confluent-kafka", "msgspec", "numpy", "xgboost-cpu")
        return {package: version(package) for package in packages}

    def start(self, course: Course, turn: str, folder: Path, cpus: frozenset[int]) -> Running:
        """Start a worker of the course's deployment."""
        return course.penstock.worker(turn, "score", cpus=cpus, kafka_group_prefix=turn, delivery=self.delivery)

    def finished(self, course: Course, turn: str, events: int) -> bool:
        """Everything is committed: of its predictions' offsets some are markers of transactions, and do not tell."""
        source = course.topics.features
        return course.cluster.committed(f"{turn}-score", source) == course.cluster.ends(source)

    def histogram_differences(
        self, course: Course, events: Events, outputs: Outputs, rows: Iterable[Row], *, partial: bool
    ) -> list[str]:
        """Its partials are of exactly the events whose predictions are committed, and add up to the last value."""
        return histograms.penstock_differences(course.scales, rows, events, outputs)


class Peer(NamedTuple):
    """A contestant out of a folder: `python main.py JOB`."""

    folder: Path
    python: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def versions(self) -> Mapping[str, str]:
        """What its requirements pin."""
        return environments.pins(self.folder)

    def start(self, course: Course, turn: str, folder: Path, cpus: frozenset[int]) -> Running:
        """Write its job and start it."""
        job = folder / "job.json"
        job.write_bytes(msgspec.json.encode(course.job(turn)))
        return PeerProcess([str(self.python), str(self.folder / "main.py"), str(job)], folder, cpus)

    def finished(self, course: Course, turn: str, events: int) -> bool:
        """It uses no transactions: every offset is a prediction."""
        return sum(course.cluster.ends(course.topics.predictions).values()) >= events

    def histogram_differences(
        self, course: Course, events: Events, outputs: Outputs, rows: Iterable[Row], *, partial: bool
    ) -> list[str]:
        """Its histograms are those of `common/work.py`."""
        return histograms.peer_differences(course.scales, rows, events, outputs, partial=partial)


class PeerProcess:
    """A process group of its own, which is gone at the end of the block or after `end`."""

    def __init__(self, command: Sequence[str], folder: Path, cpus: frozenset[int]) -> None:
        self._log = folder / "log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ML_")}
        environ |= {"PYTHONPATH": str(_HERE / "common"), "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
        with self._log.open("ab") as output, on_cpus(cpus):
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The number of its first process."""
        return self._process.pid

    def check(self) -> None:
        """Raise RuntimeError with the end of its log when it has ended: nothing ends it but us."""
        if self._process.poll() is not None:
            log = self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_END:]
            raise RuntimeError(f"ended with {self._process.returncode}:\n{log}")

    def end(self) -> int:
        """Ask it to end, and kill what is left after ten seconds. How it ends is not judged: what it wrote is."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.kill()
        return 0

    def kill(self) -> None:
        """End the whole group without a chance to say anything."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def find(peers: Path, only: Collection[str] | None, python_of: PythonOf) -> list[Contestant]:
    """Return the contestants, or those of the names `only`; `peers` has the folders. Installs what they want.

    Raises KeyError with a name that nobody has.
    """
    folders = {main.parent.name: main.parent for main in sorted(peers.glob("*/main.py"))}
    names = [*_PENSTOCKS, *(name for name in _PEERS if name in folders), *(folders.keys() - set(_PEERS))]
    for name in only or ():
        if name not in names:
            raise KeyError(name)
    chosen = [name for name in names if only is None or name in only]
    return [
        PenstockContestant(name, _PENSTOCKS[name])
        if name in _PENSTOCKS
        else Peer(folders[name], python_of(folders[name]))
        for name in chosen
    ]
