"""What a contestant uses: processor time and memory of its process and all that come of it."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
import psutil

_EVERY_S: Final = 0.1
_CHILDREN_EVERY: Final = 10  # samples: to look for new ones means to read the whole of /proc


class Usage:
    """Samples of one run: `cpu_s` is the processor time used until then, of all processes together."""

    def __init__(self, times_ms: Sequence[float], cpu_s: Sequence[float], peak_bytes: int) -> None:
        self._times_ms = times_ms
        self._cpu_s = cpu_s
        self.peak_bytes = peak_bytes

    def cpu_between(self, from_ms: float, to_ms: float) -> float:
        """Return the processor seconds used between two times of the wall clock, interpolated between samples.

        Raises ValueError when they lie outside of what was sampled by more than one sample.
        """
        slack_ms = 2000 * _EVERY_S
        if not self._times_ms or from_ms < self._times_ms[0] - slack_ms or to_ms > self._times_ms[-1] + slack_ms:
            raise ValueError("no samples of the processor time were taken then")
        at_start, at_end = np.interp([from_ms, to_ms], self._times_ms, self._cpu_s)
        return float(at_end - at_start)


class Sampler(threading.Thread):
    """Samples a process tree ten times a second while its block runs; `usage()` has what it found.

    It costs about 1% of a core. The memory of pages that processes share counts for each of them.
    """

    def __init__(self, pid: int, spawned_ms: float) -> None:
        """`spawned_ms` is when the process was spawned, by the wall clock: it had used nothing then."""
        super().__init__(name="sampler", daemon=True)
        self._root = psutil.Process(pid)
        self._known = {pid: self._root}
        self._spent_s: dict[int, float] = {}  # by process, also of those that have ended
        self._times_ms = [spawned_ms]
        self._cpu_s = [0.0]
        self._peak_bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until the block ends."""
        count = 0
        while not self._done.wait(_EVERY_S):
            if count % _CHILDREN_EVERY == 0:
                self._look_for_children()
            count += 1
            self._sample()

    def usage(self) -> Usage:
        """Return what was sampled so far."""
        return Usage(self._times_ms, self._cpu_s, self._peak_bytes)

    def _look_for_children(self) -> None:
        try:
            self._known |= {child.pid: child for child in self._root.children(recursive=True)}
        except psutil.NoSuchProcess:
            return

    def _sample(self) -> None:
        resident = 0
        for pid, process in list(self._known.items()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident += process.memory_info().rss
                self._spent_s[pid] = times.user + times.system
            except psutil.NoSuchProcess:
                del self._known[pid]
        self._times_ms.append(time.time() * 1000)
        self._cpu_s.append(sum(self._spent_s.values()))
        self._peak_bytes = max(self._peak_bytes, resident)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self.join()
