"""How long a stream stands still after a blow, as a reader of its committed predictions sees it."""

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import numpy as np

from benchmarks.plain import Follower


class _Blow(NamedTuple):
    kind: str
    time_ms: int


class _Prediction(msgspec.Struct):
    scored_time_ms: int


class RecoveryWatch:
    """Follows the predictions in a thread of its own while its block runs.

    A blow is over when every partition has shown a committed prediction that was scored after it. Blows may overlap.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._follower = Follower(bootstrap, topic)
        self._newest_ms = dict.fromkeys(range(partitions), 0)
        self._blows: list[_Blow] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.recoveries_s: dict[str, list[float]] = {}

    def blow(self, kind: str) -> None:
        """Start to measure: a blow of this kind fell just now."""
        with self._lock:
            self._blows.append(_Blow(kind, _now_ms()))

    def recovered(self) -> bool:
        """Whether every blow is over."""
        return not self._blows

    def percentiles_s(self, kind: str) -> dict[str, float | None]:
        """Return the median and the 95th percentile of the recoveries from one kind of blow, in seconds."""
        if not self.recoveries_s.get(kind):
            return {"p50": None, "p95": None}
        return {f"p{p}": round(float(np.percentile(self.recoveries_s[kind], p)), 2) for p in (50, 95)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._follower.close()

    def _follow(self) -> None:
        decode = msgspec.json.Decoder(_Prediction).decode
        while not self._stop.is_set():
            for row in self._follower.poll(0.1):
                newest_ms = decode(row.value or b"").scored_time_ms
                self._newest_ms[row.partition] = max(newest_ms, self._newest_ms[row.partition])
            self._settle(min(self._newest_ms.values()))

    def _settle(self, all_scored_after_ms: int) -> None:
        with self._lock:
            over = [blow for blow in self._blows if blow.time_ms < all_scored_after_ms]
            self._blows = [blow for blow in self._blows if blow.time_ms >= all_scored_after_ms]
        for blow in over:
            self.recoveries_s.setdefault(blow.kind, []).append((_now_ms() - blow.time_ms) / 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
