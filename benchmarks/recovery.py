"""How long a stream stands still after a blow, as a reader of its committed outputs sees it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from benchmarks.plain import Follower, Row


def now_ms() -> int:
    """Return the wall clock, in milliseconds since the epoch, as workers stamp predictions."""
    return time.time_ns() // 1_000_000


class _Blow(NamedTuple):
    kind: str
    time_ms: int


Shown = Callable[[Row], tuple[int, int]]
"""Tells of a record which part of the stream made it, counted from 0, and when, by this machine's clock."""


class Recoveries:
    """What has fallen on a stream, and what of it is over.

    A blow is over when every part of the stream, usually a partition, has shown an output that was made after it.
    Blows may overlap. One thread may tell of blows while another shows outputs.
    """

    def __init__(self, parts: int, clock_ms: Callable[[], int] = now_ms) -> None:
        self._newest_ms = dict.fromkeys(range(parts), 0)
        self._blows: list[_Blow] = []
        self._lock = threading.Lock()
        self._clock_ms = clock_ms
        self.taken_s: dict[str, list[float]] = {}

    def blow(self, kind: str) -> None:
        """Start to measure: a blow of this kind fell just now."""
        with self._lock:
            self._blows.append(_Blow(kind, self._clock_ms()))

    def show(self, newest_ms: Mapping[int, int]) -> None:
        """Note, by part, when the newest output that can be seen was made."""
        for part, made_ms in newest_ms.items():
            self._newest_ms[part] = max(made_ms, self._newest_ms[part])
        all_made_after_ms = min(self._newest_ms.values())
        with self._lock:
            over = [blow for blow in self._blows if blow.time_ms < all_made_after_ms]
            self._blows = [blow for blow in self._blows if blow.time_ms >= all_made_after_ms]
        for blow in over:
            self.taken_s.setdefault(blow.kind, []).append((self._clock_ms() - blow.time_ms) / 1000)

    def over(self) -> bool:
        """Whether every blow is over, and every part of the stream has shown something at all."""
        return not self._blows and min(self._newest_ms.values()) > 0

    def as_dict(self) -> dict[str, object]:
        """Return how long recoveries took: percentiles of those from kills, and each one by kind of blow."""
        every = {kind: [round(s, 1) for s in taken] for kind, taken in self.taken_s.items()}
        return {"recovery_s": self.percentiles_s("kill"), "recoveries_s": every}

    def percentiles_s(self, kind: str) -> dict[str, float | None]:
        """Return the median and the 95th percentile of the recoveries from one kind of blow, in seconds."""
        taken_s = self.taken_s.get(kind)
        return {f"p{p}": round(float(np.percentile(taken_s, p)), 2) if taken_s else None for p in (50, 95)}


@contextmanager
def watch(bootstrap: str, shown: Mapping[str, Shown], parts: int) -> Iterator[Recoveries]:
    """Follow the committed records of the topics in `shown` in a thread while the block runs."""
    recoveries = Recoveries(parts)
    stop = threading.Event()
    followers = [(Follower(bootstrap, topic), read) for topic, read in shown.items()]
    thread = threading.Thread(target=_follow, args=(followers, recoveries, stop), daemon=True)
    thread.start()
    try:
        yield recoveries
    finally:
        stop.set()
        thread.join()


def _follow(followers: Sequence[tuple[Follower, Shown]], recoveries: Recoveries, stop: threading.Event) -> None:
    while not stop.is_set():
        newest_ms: dict[int, int] = {}
        for follower, read in followers:
            for row in follower.poll(0.1):
                part, made_ms = read(row)
                newest_ms[part] = max(made_ms, newest_ms.get(part, 0))
        recoveries.show(newest_ms)
    for follower, _ in followers:
        follower.close()
