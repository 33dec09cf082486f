"""How late a worker's event loop was between two readings of its histogram `ml_event_loop_lag_seconds`."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Final, Self

METRIC: Final = "ml_event_loop_lag_seconds"
LIMIT_S: Final = 0.05


class LoopLag:
    """What was observed, as counts by upper bound in seconds (not cumulative; the last bound is infinity)."""

    def __init__(self, counts: Mapping[float, int]) -> None:
        self._counts = dict(sorted(counts.items()))

    @classmethod
    def between(cls, before: Mapping[float, int], after: Mapping[float, int]) -> Self:
        """Return what came between two readings, each cumulative by bound, as Prometheus writes them."""
        bounds = sorted(after)
        cumulative = [after[bound] - before.get(bound, 0) for bound in bounds]
        return cls({b: high - low for b, (low, high) in zip(bounds, itertools.pairwise([0, *cumulative]), strict=True)})

    @classmethod
    def total(cls, parts: Iterable["LoopLag"]) -> Self:
        """Return all that was observed in several spans."""
        sums: dict[float, int] = {}
        for bound, count in (item for part in parts for item in part._counts.items()):
            sums[bound] = sums.get(bound, 0) + count
        return cls(sums)

    @property
    def samples(self) -> int:
        """How many times the loop was timed."""
        return sum(self._counts.values())

    @property
    def above_limit(self) -> int:
        """How many of them were later than 50 ms."""
        return sum(count for bound, count in self._counts.items() if bound > LIMIT_S)

    def quantile_s(self, share: float) -> float:
        """Return the lag that `share` of the samples do not exceed, taken as spread evenly within a bucket.

        Raises ValueError when nothing was observed.
        """
        if not self.samples:
            raise ValueError("the event loop was never timed")
        wanted = share * self.samples
        below, low_s = 0, 0.0
        for high_s, count in self._counts.items():
            if count and below + count >= wanted:
                return low_s if high_s == float("inf") else low_s + (high_s - low_s) * (wanted - below) / count
            below, low_s = below + count, high_s
        return low_s

    def as_dict(self) -> dict[str, float]:
        """Return quantiles and the upper bound of the highest bucket in use, in ms, and the counts."""
        highest_s = max(min(bound, _BEYOND_S) for bound, count in self._counts.items() if count)
        return {
            "p50": round(1000 * self.quantile_s(0.5), 2),
            "p99": round(1000 * self.quantile_s(0.99), 2),
            "p99_9": round(1000 * self.quantile_s(0.999), 2),
            "max_bucket": 1000 * highest_s,
            "samples": self.samples,
            "above_50_ms": self.above_limit,
        }


_BEYOND_S: Final = 3600.0  # stands for infinity, which JSON cannot say
