"""How far a stream's events have come: the clock that closes windows of event time."""

from typing import Final

import msgspec

from agents.judge.partials import Partial
from schemas.streams import MINUTE_MS

SILENT_MS: Final = 10 * MINUTE_MS
NEVER: Final = -1  # before every time


class Head(msgspec.Struct):
    """How far one partition has come: its newest event time, and Kafka's newest timestamp of one of its partials."""

    time_ms: int = NEVER
    written_ms: int = NEVER


class ClockState(msgspec.Struct, frozen=True):
    """The clock at rest: the head of each partition that has spoken, and the first timestamp of all."""

    heads: dict[int, Head] = {}
    first_ms: int = NEVER


class Clock:
    """The earliest of the partitions' heads, so that no partition that is behind in catching up loses its events.

    A partition that was silent for SILENT_MS is not waited for until it speaks again; nor is one that was never heard,
    so long after the first partial of all. Both go by the timestamps that Kafka gave the partials, and so do not depend
    on when they are read; and not by the number of partials, of which one commit may write thousands.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._heads: dict[int, Head] = {}
        self._first_ms = NEVER

    def advance(self, partial: Partial) -> None:
        """Take note of a partial. To do so twice, with an old one, changes nothing."""
        if self._first_ms == NEVER:
            self._first_ms = partial.written_ms
        head = self._heads.setdefault(partial.event.partition, Head())
        head.time_ms = max(head.time_ms, partial.head_ms)
        head.written_ms = max(head.written_ms, partial.written_ms)

    @property
    def time_ms(self) -> int:
        """The time, or NEVER. It may go back, when a partition speaks again."""
        newest_ms = max((head.written_ms for head in self._heads.values()), default=NEVER)
        if len(self._heads) < self._partitions and newest_ms - self._first_ms < SILENT_MS:
            return NEVER
        awake = [head.time_ms for head in self._heads.values() if newest_ms - head.written_ms < SILENT_MS]
        return min(awake, default=NEVER)

    def dump(self) -> ClockState:
        """Return the state."""
        return ClockState(dict(self._heads), self._first_ms)

    def load(self, state: ClockState) -> None:
        """Take over a state."""
        self._heads, self._first_ms = dict(state.heads), state.first_ms
