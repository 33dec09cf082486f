"""How long a stream stands still after a blow, as a reader of its committed predictions sees it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.plain import Follower


def now_ms() -> int:
    """Return the wall clock, in milliseconds since the epoch, as workers stamp predictions."""
    return time.time_ns() // 1_000_000


class _Blow(NamedTuple):
    kind: str
    time_ms: int


class _Prediction(msgspec.Struct):
    scored_time_ms: int


class Recoveries:
    """What has fallen on a stream, and what of it is over.

    A blow is over when every partition has shown a prediction that was scored after it. Blows may overlap.
    One thread may tell of blows while another shows predictions.
    """

    def __init__(self, partitions: int, clock_ms: Callable[[], int] = now_ms) -> None:
        self._newest_ms = dict.fromkeys(range(partitions), 0)
        self._blows: list[_Blow] = []
        self._lock = threading.Lock()
        self._clock_ms = clock_ms
        self.taken_s: dict[str, list[float]] = {}

    def blow(self, kind: str) -> None:
        """Start to measure: a blow of this kind fell just now."""
        with self._lock:
            self._blows.append(_Blow(kind, self._clock_ms()))

    def show(self, newest_ms: Mapping[int, int]) -> None:
        """Note, by partition, when the newest prediction that can be seen was scored."""
        for partition, scored_ms in newest_ms.items():
            self._newest_ms[partition] = max(scored_ms, self._newest_ms[partition])
        all_scored_after_ms = min(self._newest_ms.values())
        with self._lock:
            over = [blow for blow in self._blows if blow.time_ms < all_scored_after_ms]
            self._blows = [blow for blow in self._blows if blow.time_ms >= all_scored_after_ms]
        for blow in over:
            self.taken_s.setdefault(blow.kind, []).append((self._clock_ms() - blow.time_ms) / 1000)

    def over(self) -> bool:
        """Whether every blow is over."""
        return not self._blows

    def percentiles_s(self, kind: str) -> dict[str, float | None]:
        """Return the median and the 95th percentile of the recoveries from one kind of blow, in seconds."""
        taken_s = self.taken_s.get(kind)
        return {f"p{p}": round(float(np.percentile(taken_s, p)), 2) if taken_s else None for p in (50, 95)}


@contextmanager
def watch(bootstrap: str, topic: str, partitions: int) -> Iterator[Recoveries]:
    """Follow the committed predictions in a thread while the block runs."""
    recoveries = Recoveries(partitions)
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(Follower(bootstrap, topic), recoveries, stop), daemon=True)
    thread.start()
    try:
        yield recoveries
    finally:
        stop.set()
        thread.join()


def _follow(follower: Follower, recoveries: Recoveries, stop: threading.Event) -> None:
    decode = msgspec.json.Decoder(_Prediction).decode
    while not stop.is_set():
        newest_ms: dict[int, int] = {}
        for row in follower.poll(0.1):
            newest_ms[row.partition] = max(decode(row.value or b"").scored_time_ms, newest_ms.get(row.partition, 0))
        recoveries.show(newest_ms)
    follower.close()
