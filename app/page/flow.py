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
STALLED_MS: Final = 10_000
SILENT_MS: Final = 15_000
_SILENT_GAPS: Final = 10

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Partitions in which events wait and none has been answered for `longest_ms`; `whole` when none goes on."""

    partitions: tuple[int, ...]
    waiting: int
    longest_ms: int
    whole: bool


@dataclass(slots=True)
class _Arrivals:
    """When events came: at how many looks, the first and the last of them."""

    looks: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def take(self, time_ms: int) -> None:
        self.first_ms, self.last_ms = self.first_ms if self.looks else time_ms, time_ms
        self.looks += 1

    def has_stopped(self, now_ms: int) -> bool:
        """Whether none has come for long, by how often they came before: 15 s, and ten times the usual gap."""
        if self.looks < 2:
            return False
        gap_ms = (self.last_ms - self.first_ms) / (self.looks - 1)
        return now_ms - self.last_ms >= max(SILENT_MS, _SILENT_GAPS * gap_ms)


@dataclass(slots=True)
class FlowMeter:
    """The fold of looks. Five minutes of them are kept, one point each: about 30 KB."""

    _looks: deque[Look] = field(default_factory=deque)
    _history: deque[Point] = field(default_factory=lambda: deque(maxlen=HISTORY_POINTS))
    _moved_ms: dict[int, int] = field(default_factory=dict)
    _answered_ms: dict[int, int] = field(default_factory=dict)
    _progressed_ms: int | None = None
    _arrivals: _Arrivals = field(default_factory=_Arrivals)

    def take(self, look: Look) -> None:
        """Go on with a later look."""
        before = self._looks[-1] if self._looks else None
        for partition, end in look.ends.items():
            if before is None or before.ends.get(partition) != end:
                self._moved_ms[partition] = look.time_ms
        if before is not None and any(end > before.ends.get(place, end) for place, end in look.ends.items()):
            self._arrivals.take(look.time_ms)
        if before is not None and look.time_ms > before.time_ms:
            rates = _rate(before, look, before.ends, look.ends), _rate(before, look, before.answered, look.answered)
            self._history.append((look.time_ms, *rates, percentile(look.latencies_ms, 0.99)))
        while self._history and self._history[0][0] < look.time_ms - HISTORY_MS:
            self._history.popleft()
        self._looks.append(look)
        for partition, answered in look.answered.items():
            progressed = before is not None and before.answered.get(partition) != answered
            if progressed:
                self._progressed_ms = look.time_ms
            if before is None or progressed or not self._waiting(look, partition):
                self._answered_ms[partition] = look.time_ms
        while self._looks[0].time_ms < look.time_ms - _AVERAGED_MS:
            self._looks.popleft()

    def flow(self, *, history: bool = True) -> Flow:
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
            history=tuple(self._history) if history else (),
        )

    @property
    def stall(self) -> Stall | None:
        """The partitions that have stood still for ten seconds."""
        if not self._looks:
            return None
        last = self._looks[-1]
        still = [place for place in sorted(last.ends) if last.time_ms - self._answered_ms[place] >= STALLED_MS]
        if not still:
            return None
        return Stall(
            partitions=tuple(still),
            waiting=sum(self._waiting(last, place) for place in still),
            longest_ms=max(last.time_ms - self._answered_ms[place] for place in still),
            whole=self._progressed_ms is None or last.time_ms - self._progressed_ms >= STALLED_MS,
        )

    @property
    def silent_ms(self) -> int | None:
        """For how long no event has come; None when none came since somebody looks."""
        return self._looks[-1].time_ms - self._arrivals.last_ms if self._arrivals.looks else None

    @property
    def has_stopped(self) -> bool:
        """Whether events came and come no more."""
        return bool(self._looks) and self._arrivals.has_stopped(self._looks[-1].time_ms)

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
