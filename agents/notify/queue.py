"""What waits for sinks, as it is written down, and which of it is next. No clock, no I/O.

An alert that waits is the offset of its record in the log of alerts, which has the rest: so the state stays small,
although it is written whole with every change.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.event import SEVERITY_RANKS, Severity

FIRST_PAUSE_MS: Final = 1_000  # after the first attempt that failed; it doubles
LONGEST_PAUSE_MS: Final = 300_000


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """An alert that waits for one sink, written at `time_ms` by Kafka's clock.

    `attempts` counts those that began; no other begins before `not_before_ms`.
    """

    offset: int
    time_ms: int
    severity: Severity
    attempts: int = 0
    not_before_ms: int = 0


class NotifyState(msgspec.Struct, frozen=True):
    """The checkpoint: what waits, by sink, and the ids that came last with the times of their records."""

    lanes: dict[str, tuple[Waiting, ...]] = {}
    seen: dict[str, int] = {}


def next_of(lane: Iterable[Waiting], now_ms: int) -> Waiting | None:
    """Return what is to be delivered next: of what is due the most severe, and the oldest of those.

    If nothing is due, that which is due soonest; None of an empty lane.
    """
    return min(
        lane,
        key=lambda waiting: (due_ms(waiting, now_ms), -SEVERITY_RANKS[waiting.severity], waiting.offset),
        default=None,
    )


def due_ms(waiting: Waiting, now_ms: int) -> int:
    """Return when its next attempt may begin, at `now_ms` at the earliest.

    A time that lies further ahead than any pause is of a clock that has been set back, and is not waited for.
    """
    return max(waiting.not_before_ms, now_ms) if waiting.not_before_ms <= now_ms + LONGEST_PAUSE_MS else now_ms


def tried(waiting: Waiting) -> Waiting:
    """Return what waits with one more attempt begun."""
    return msgspec.structs.replace(waiting, attempts=waiting.attempts + 1)


def postponed(waiting: Waiting, now_ms: int) -> Waiting:
    """Return what waits after an attempt that failed: the next one is 1 s, 2 s, 4 s, … and at most 5 min later."""
    return msgspec.structs.replace(waiting, not_before_ms=now_ms + pause_ms(waiting.attempts))


def pause_ms(attempts: int) -> int:
    """Return how long to wait after so many attempts, at least one of them."""
    return int(min(FIRST_PAUSE_MS * 2 ** min(attempts - 1, 20), LONGEST_PAUSE_MS))
