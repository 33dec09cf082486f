"""What waits to be delivered: the state of the stage, and every step that changes it. No clock, no I/O.

An alert is kept once, under its id, for as long as some sink waits for it. Each sink has a lane: the ids in the order
in which the alerts came, with the attempts that were made and the time before which there is no other.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

FIRST_PAUSE_MS: Final = 1_000  # after the first attempt that failed; it doubles
LONGEST_PAUSE_MS: Final = 300_000
SEEN: Final = 1_000
KEPT_BYTES: Final = 1024 * 1024
"""Of alerts that wait: the state is written whole with every change."""


class Held(msgspec.Struct, frozen=True):
    """An alert that waits: its record in the log of alerts. `value` is the record's, to the byte."""

    offset: int
    time_ms: int
    value: msgspec.Raw


class Waiting(msgspec.Struct, frozen=True):
    """An alert in a lane. `attempts` counts those that began; no other begins before `not_before_ms`."""

    id: str
    attempts: int = 0
    not_before_ms: int = 0


class NotifyState(msgspec.Struct, frozen=True):
    """The checkpoint: alerts by id, lanes by sink, and the ids that came last, the newest at the end."""

    held: dict[str, Held] = {}
    lanes: dict[str, tuple[Waiting, ...]] = {}
    seen: tuple[str, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """The size of all alerts that wait."""
        return sum(len(memoryview(held.value)) for held in self.held.values())


def noted(state: NotifyState, alert_id: str) -> NotifyState:
    """Return the state that knows the alert, so that it is not taken again."""
    return msgspec.structs.replace(state, seen=(*state.seen, alert_id)[-SEEN:])


def taken(state: NotifyState, alert_id: str, held: Held, sinks: Collection[str]) -> NotifyState:
    """Return the state in which `sinks`, at least one, wait for the alert."""
    lanes = state.lanes | {sink: (*state.lanes.get(sink, ()), Waiting(alert_id)) for sink in sinks}
    return msgspec.structs.replace(noted(state, alert_id), held=state.held | {alert_id: held}, lanes=lanes)


def next_of(lane: Sequence[Waiting], now_ms: int) -> Waiting | None:
    """Return the first alert in the lane that is due, else the one that is due next; None of an empty lane."""
    return min(lane, key=lambda waiting: max(waiting.not_before_ms, now_ms), default=None)


def tried(state: NotifyState, sink: str, alert_id: str) -> NotifyState:
    """Return the state in which one more attempt has begun."""
    return _changed(state, sink, alert_id, lambda w: msgspec.structs.replace(w, attempts=w.attempts + 1))


def excused(state: NotifyState, sink: str, alert_id: str) -> NotifyState:
    """Return the state in which the newest attempt does not count: it never began."""
    return _changed(state, sink, alert_id, lambda w: msgspec.structs.replace(w, attempts=w.attempts - 1))


def postponed(state: NotifyState, sink: str, alert_id: str, now_ms: int) -> NotifyState:
    """Return the state after an attempt that failed: the next one waits for 1 s, 2 s, 4 s, … and at most 5 min."""
    return _changed(
        state,
        sink,
        alert_id,
        lambda w: msgspec.structs.replace(w, not_before_ms=now_ms + pause_ms(w.attempts)),
    )


def pause_ms(attempts: int) -> int:
    """Return how long to wait after so many attempts, at least one of them."""
    return int(min(FIRST_PAUSE_MS * 2 ** min(attempts - 1, 20), LONGEST_PAUSE_MS))


def done(state: NotifyState, sink: str, alert_id: str) -> NotifyState:
    """Return the state in which the sink does not wait for the alert any more: it has it, or never will."""
    lane = tuple(waiting for waiting in state.lanes.get(sink, ()) if waiting.id != alert_id)
    return _only_wanted(state, state.lanes | {sink: lane})


def without(state: NotifyState, sinks: Collection[str]) -> NotifyState:
    """Return the state without the lanes of `sinks`."""
    return _only_wanted(state, {sink: lane for sink, lane in state.lanes.items() if sink not in sinks})


def _changed(state: NotifyState, sink: str, alert_id: str, change: Callable[[Waiting], Waiting]) -> NotifyState:
    lane = tuple(change(waiting) if waiting.id == alert_id else waiting for waiting in state.lanes[sink])
    return msgspec.structs.replace(state, lanes=state.lanes | {sink: lane})


def _only_wanted(state: NotifyState, lanes: Mapping[str, tuple[Waiting, ...]]) -> NotifyState:
    """Return the state with these lanes, those that are empty left out, and of the alerts only what waits in one."""
    lanes = {sink: lane for sink, lane in lanes.items() if lane}
    wanted = {waiting.id for lane in lanes.values() for waiting in lane}
    held = {alert_id: held for alert_id, held in state.held.items() if alert_id in wanted}
    return msgspec.structs.replace(state, held=held, lanes=lanes)
