"""What goes through a stream, from looks at the ends of its logs: rates, what waits, and the time to a score."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.page.document import Flow

HISTORY_POINTS: Final = 300
HISTORY_MS: Final = 300_000
_AVERAGED_MS: Final = 5_000
_SETTLED_MS: Final = 5_000

Point = tuple[int, float, float, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The ends of a stream's logs at one moment, by partition of `<s>.features`.

    `ends` is the offset behind the last event, and `answered` the one behind the last that has a prediction or a dead
    letter. `latencies_ms` are those of the newest predictions that were not seen before.
    """

    time_ms: int
    ends: Mapping[int, int]
    answered: Mapping[int, int]
    latencies_ms: Sequence[float] = ()


@dataclass(slots=True)
class FlowMeter:
    """The fold of looks. Five minutes of them are kept, one point each: about 30 KB."""

    _looks: deque[Look] = field(default_factory=deque)
    _history: deque[Point] = field(default_factory=lambda: deque(maxlen=HISTORY_POINTS))
    _moved_ms: dict[int, int] = field(default_factory=dict)
    _answered_ms: int = 0

    def take(self, look: Look) -> None:
        """Go on with a later look."""
        before = self._looks[-1] if self._looks else None
        for partition, end in look.ends.items():
            if before is None or before.ends.get(partition) != end:
                self._moved_ms[partition] = look.time_ms
        if before is not None and look.time_ms > before.time_ms:
            rates = _rate(before, look, before.ends, look.ends), _rate(before, look, before.answered, look.answered)
            self._history.append((look.time_ms, *rates, percentile(look.latencies_ms, 0.99)))
        while self._history and self._history[0][0] < look.time_ms - HISTORY_MS:
            self._history.popleft()
        self._looks.append(look)
        if before is None or before.answered != look.answered or not self._lag(look):
            self._answered_ms = look.time_ms
        while self._looks[0].time_ms < look.time_ms - _AVERAGED_MS:
            self._looks.popleft()

    def flow(self) -> Flow:
        """Return rates over the last five seconds, what waits now, and the latencies of these seconds."""
        if not self._looks:
            return Flow()
        first, last = self._looks[0], self._looks[-1]
        latencies = [latency for look in self._looks for latency in look.latencies_ms]
        known = last.time_ms > first.time_ms
        return Flow(
            in_eps=_rate(first, last, first.ends, last.ends) if known else None,
            out_eps=_rate(first, last, first.answered, last.answered) if known else None,
            lag=self._lag(last),
            latency_p50_ms=percentile(latencies, 0.5),
            latency_p99_ms=percentile(latencies, 0.99),
            history=tuple(self._history),
        )

    @property
    def stalled_ms(self) -> int:
        """For how long events have waited without any being answered."""
        return self._looks[-1].time_ms - self._answered_ms if self._looks else 0

    def _lag(self, look: Look) -> int:
        return sum(self._waiting(look, partition) for partition in look.ends)

    def _waiting(self, look: Look, partition: int) -> int:
        """Return how many events of a partition have no answer yet.

        A last offset without one, behind which nothing has come for seconds, is the end of its producer's transaction.
        """
        waiting = max(look.ends[partition] - look.answered.get(partition, 0), 0)
        settled = look.time_ms - self._moved_ms[partition] >= _SETTLED_MS
        return 0 if settled and waiting == 1 else waiting


def _rate(first: Look, last: Look, before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """Return offsets per second between two looks."""
    passed = sum(max(end - before.get(partition, end), 0) for partition, end in after.items())
    return round(1000 * passed / (last.time_ms - first.time_ms), 2)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest of `values` that at least this share of them does not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
