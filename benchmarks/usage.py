"""What processes use while a benchmark runs: processor time, memory, threads and sockets, sampled from outside."""

import bisect
import contextlib
import itertools
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

import psutil

_EVERY_S: Final = 0.1
_CHILDREN_EVERY: Final = 10  # samples: to look for new ones means to read the whole of /proc
_MB: Final = 1_000_000


class Sample(NamedTuple):
    """What a process and its children had used at a moment: `time_s` since the epoch, processor seconds, bytes.

    The memory of pages that processes share counts for each of them.
    """

    time_s: float
    cpu_s: float
    rss_bytes: int


class Usage:
    """Samples processes, by a name of each, in a thread while its block runs: ten times a second unless told.

    What they start counts as theirs, if it lives for a second. A sample costs some 50 µs. A process that ends has its
    samples up to then.
    """

    def __init__(self, pids: Mapping[str, int], every_s: float = _EVERY_S) -> None:
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}
        self._trees = {name: _Tree(pid) for name, pid in pids.items()}
        self._every_s = every_s
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def cpu_s(self, name: str, from_s: float, to_s: float) -> float:
        """Return the processor seconds that a process used between two times since the epoch, interpolated."""
        return cpu_at(self.samples[name], to_s) - cpu_at(self.samples[name], from_s)

    def total_cpu_s(self, name: str) -> float:
        """Return the processor seconds that a process used from the first sample to the last."""
        return self.samples[name][-1].cpu_s - self.samples[name][0].cpu_s

    def peak_mb(self, name: str) -> float:
        """Return the largest resident size that was seen, in MB (10⁶ bytes)."""
        return max(sample.rss_bytes for sample in self.samples[name]) / _MB

    def _run(self) -> None:
        for count in itertools.count():
            for name, tree in self._trees.items():
                if count % _CHILDREN_EVERY == 0:
                    tree.look_for_children()
                if (sample := tree.sample()) is not None:
                    self.samples[name].append(sample)
            if self._left.wait(self._every_s):
                return


class _Tree:
    """A process and all that come of it. What one has used by its end counts on."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._known = {pid: self._root}
        self._spent_s: dict[int, float] = {}

    def look_for_children(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known |= {child.pid: child for child in self._root.children(recursive=True)}

    def sample(self) -> Sample | None:
        """Return what they have used by now; None when all have ended."""
        resident = 0
        for pid, process in list(self._known.items()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident += process.memory_info().rss
                self._spent_s[pid] = times.user + times.system
            except psutil.NoSuchProcess:
                del self._known[pid]
        return Sample(time.time(), sum(self._spent_s.values()), resident) if self._known else None


def cpu_at(samples: list[Sample], time_s: float) -> float:
    """Return the processor seconds at a time, linear between the samples and constant outside them."""
    place = bisect.bisect_left(samples, time_s, key=lambda sample: sample.time_s)
    if place in (0, len(samples)):
        return samples[min(place, len(samples) - 1)].cpu_s
    before, after = samples[place - 1], samples[place]
    share = (time_s - before.time_s) / (after.time_s - before.time_s)
    return before.cpu_s + share * (after.cpu_s - before.cpu_s)


def footprint(pid: int) -> dict[str, float]:
    """Return what a process holds at the moment: resident MB (10⁶ bytes), threads and open sockets."""
    process = psutil.Process(pid)
    return {
        "rss_mb": round(process.memory_info().rss / _MB, 1),
        "threads": process.num_threads(),
        "sockets": len(process.net_connections(kind="inet")),
    }


def broker_pid() -> int | None:
    """Return the process of the Apache Kafka that this process has started; None when it is somebody else's."""
    for child in psutil.Process().children():
        if "kafka.Kafka" in child.cmdline():
            pid: int = child.pid
            return pid
    return None
