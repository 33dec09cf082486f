"""How fast the demo's producer sends, and how it knows how far the readers are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

_BURST_S: Final = 0.15  # after a pause at most this much is caught up at once: bursts would be latency


class Pace:
    """How many features may leave now: `rate` per second, in small steps, never more than `_BURST_S` at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._last_s = clock()
        self._allowed = 0.0

    def due(self) -> int:
        """Return how many features are due, and count them as sent."""
        now_s = self._clock()
        self._allowed = min(self._allowed + (now_s - self._last_s) * self._rate, max(1.0, _BURST_S * self._rate))
        self._last_s = now_s
        due = int(self._allowed)
        self._allowed -= due
        return due


@dataclass(slots=True)
class Readers:
    """How many of the producer's records have come out, and whether whoever tells so has gone."""

    records: int = 0
    gone: bool = False

    def follow(self, source: TextIO) -> None:
        """Take the number in each line of `source`, until it ends; meant for a thread of its own."""
        for line in source:
            self.records = int(line)
        self.gone = True
