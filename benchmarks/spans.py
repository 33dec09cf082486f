"""How long a stream's events take, span by span: what a benchmark needs that changes something beside the stream.

The latency of an event is from its record's timestamp until a `read_committed` reader has its prediction in hand.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import msgspec
import numpy as np

from benchmarks.plain import Follower

_POLL_S: Final = 0.005
_ASK_S: Final = 0.2
_MOST_SPAN_S: Final = 600.0


class _Scored(msgspec.Struct):
    scored_time_ms: int
    latency_ms: int


_read: Final = msgspec.json.Decoder(_Scored)


@dataclass(frozen=True, slots=True)
class Span:
    """The latencies of the events of one span, in milliseconds."""

    seconds: float
    events: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: float, latencies_ms: Sequence[float]) -> Self:
        """Measure a span."""
        p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99)).tolist()
        return cls(round(seconds, 1), len(latencies_ms), round(p50_ms, 2), round(p99_ms, 2))


def read_for(reader: Follower, seconds: float) -> Span:
    """Read predictions for so long."""
    return read_until(reader, lambda elapsed_s: elapsed_s >= seconds)


def read_until(reader: Follower, done: Callable[[float], bool]) -> Span:
    """Read predictions until `done`, which is asked now and then with the seconds since the beginning.

    Raises TimeoutError after ten minutes.
    """
    began = asked = time.monotonic()
    latencies_ms: list[float] = []
    while asked - began < _MOST_SPAN_S:
        rows, seen_ms = reader.poll(_POLL_S), time.time() * 1000
        for row in rows:
            scored = _read.decode(row.value or b"")
            latencies_ms.append(seen_ms - (scored.scored_time_ms - scored.latency_ms))
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            if done(asked - began):
                return Span.of(asked - began, latencies_ms)
    raise TimeoutError(f"a span of the benchmark did not end within {_MOST_SPAN_S:g} s")


def summary(spans: Mapping[str, Sequence[Span]]) -> dict[str, Any]:
    """Return the spans, the medians of their percentiles, and the ratio of the second kind's p99 to the first's."""
    p99_ms = {kind: statistics.median(span.p99_ms for span in found) for kind, found in spans.items()}
    calm, busy = p99_ms.values()
    return {
        "p99_ms": p99_ms,
        "p50_ms": {kind: statistics.median(span.p50_ms for span in found) for kind, found in spans.items()},
        "p99_ratio": round(busy / calm, 3),
        "spans": {kind: [asdict(span) for span in found] for kind, found in spans.items()},
    }
