"""Which window a partial belongs to, and when a window is judged: by count of events or by event time, or sliding.

A window is of one baseline. It takes partials whole and in the order of the log, so that what is judged when follows
from the log alone. To rebuild the windows that are not judged yet, the partials are put in again from where each
baseline's windows begin in the log; nothing is judged meanwhile, because that has been done.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

import msgspec

from agents.judge.clock import Clock, ClockState
from agents.judge.partials import Partial, add_partial
from agents.judge.references import Reference
from ml.drift.counting import Counts

MAX_BASELINES: Final = 4
MAX_IDLE_OFFSETS: Final = 4_096
MAX_OPEN: Final = 128
PIECES: Final = 64  # of a sliding window: it moves on by so much of its length

LATE, FUTURE, MISFIT = "late", "future", "misfit"
"""Why no window counts a partial: its window is judged, its times lie ahead of Kafka's, or its cells are others."""


class Window:
    """Partials of one baseline, added up. Without a baseline there is only `n`.

    `n` counts the events of all its partials and says when the window is full; `counts` are of those that fit the
    baseline. Times are the events' own, both inclusive; `model_id` is the newest model's, and `models` are
    the ids of all.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.counts = None if reference.baseline is None else Counts.empty(reference.baseline)
        self.n = 0
        self.model_id = ""
        self.models: set[str] = set()
        self.first_offset, self.last_offset = 2**62, -1
        self.from_ms, self.to_ms, self.head_ms = 2**62, -1, -1

    def add(self, partial: Partial) -> bool:
        """Count a partial; return False when its cells do not fit. 1 to 2 µs per column."""
        event = partial.event
        self._extend(
            event.n, (partial.offset,), (event.from_time_ms, event.to_time_ms, partial.head_ms), event.model_id
        )
        self.models.add(event.model_id)
        baseline = self.reference.baseline
        if self.counts is None or baseline is None:
            return True
        return add_partial(self.counts, partial, baseline.layout.starts)

    def absorb(self, other: "Window") -> None:
        """Add up two windows of one baseline. If either is without counts, so is the sum."""
        offsets = (other.first_offset, other.last_offset)
        self._extend(other.n, offsets, (other.from_ms, other.to_ms, other.head_ms), other.model_id)
        self.models |= other.models
        if other.counts is None:
            self.counts, self.reference = None, other.reference
        elif self.counts is not None:
            self.counts += other.counts

    def _extend(self, n: int, offsets: tuple[int, ...], times_ms: tuple[int, int, int], model_id: str) -> None:
        self.n += n
        if offsets[-1] > self.last_offset:
            self.model_id = model_id
        self.first_offset = min(self.first_offset, offsets[0])
        self.last_offset = max(self.last_offset, offsets[-1])
        self.from_ms = min(self.from_ms, times_ms[0])
        self.to_ms = max(self.to_ms, times_ms[1])
        self.head_ms = max(self.head_ms, times_ms[2])


class Turned(NamedTuple):
    """A window to judge; or, when it is not `complete`, one that is given up."""

    window: Window
    complete: bool = True


class WindowsState(msgspec.Struct, frozen=True):
    """Windows at rest: from which offset on the partials of each baseline belong to windows that are not judged yet.

    Spans of event time before number `closed` are judged; `clock` tells what time it is. Each baseline's sliding window
    is judged again at `due_ms`.
    """

    begins: dict[str, int] = {}
    clock: ClockState = ClockState()
    closed: int = 0
    due_ms: dict[str, int] = {}


class Windows(Protocol):
    """The windows that are not judged yet."""

    def put(self, partial: Partial, reference: Reference) -> str:
        """Count a partial into its window; return why none counts it, or nothing."""

    def turn(self, offset: int) -> list[Turned]:
        """Return what is to be judged or given up, once the partial at `offset` was put in."""

    def dump(self) -> WindowsState:
        """Return the state."""

    def load(self, state: WindowsState) -> None:
        """Take over a state, before its partials are put in again."""


def windows_of(events: int, span_ms: int, lateness_ms: int, check_ms: int | None, partitions: int) -> Windows:
    """Return windows of a span of event time if that is not 0, else of a count; sliding ones with `check_ms`.

    `partitions` are those of the stream's features.
    """
    if check_ms is not None:
        return SlidingWindows(events, span_ms, check_ms)
    return TimeWindows(span_ms, lateness_ms, partitions) if span_ms else CountWindows(events)


class CountWindows:
    """Partials in a row until they hold `events` events.

    A partial has at most so many, so a window has fewer than twice as many. Each baseline has one open window. It is
    given up when the log has gone on for MAX_IDLE_OFFSETS without that baseline, or MAX_BASELINES others are newer.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self._open: dict[str, Window] = {}

    def put(self, partial: Partial, reference: Reference) -> str:
        if reference.sha256 not in self._open:
            self._open[reference.sha256] = Window(reference)
        return "" if self._open[reference.sha256].add(partial) else MISFIT

    def turn(self, offset: int) -> list[Turned]:
        full = [window for window in self._open.values() if window.n >= self._events]
        for window in full:
            del self._open[window.reference.sha256]
        given_up = out_of_use(self._open.values(), offset)
        for window in given_up:
            del self._open[window.reference.sha256]
        return [*(Turned(window) for window in full), *(Turned(window, complete=False) for window in given_up)]

    def dump(self) -> WindowsState:
        return WindowsState(begins={sha256: window.first_offset for sha256, window in self._open.items()})

    def load(self, state: WindowsState) -> None:
        self._open = {}


def out_of_use(windows: Iterable[Window], offset: int) -> list[Window]:
    """Return those, one per baseline, of which the baseline has not been seen for long, or too many newer ones have."""
    newest = sorted(windows, key=lambda window: -window.last_offset)
    return [
        window
        for rank, window in enumerate(newest)
        if rank >= MAX_BASELINES or offset - window.last_offset > MAX_IDLE_OFFSETS
    ]


class TimeWindows:
    """Spans of event time, aligned to the epoch. A partial belongs where its newest event time lies.

    A span is judged when the stream's clock has passed its end by the lateness; a partial that comes later for it is
    missed. Spans without events are none. More than MAX_OPEN at once are too many: the oldest is judged before its
    time.
    """

    def __init__(self, span_ms: int, lateness_ms: int, partitions: int) -> None:
        self._span_ms = span_ms
        self._lateness_ms = lateness_ms
        self._clock = Clock(partitions)
        self._closed = 0  # spans before this number are judged
        self._open: dict[tuple[int, str], Window] = {}

    def put(self, partial: Partial, reference: Reference) -> str:
        number = partial.head_ms // self._span_ms
        if partial.from_the_future:
            return FUTURE
        self._clock.advance(partial)
        if number < self._closed:
            return LATE
        place = (number, reference.sha256)
        if place not in self._open:
            self._open[place] = Window(reference)
        return "" if self._open[place].add(partial) else MISFIT

    def turn(self, offset: int) -> list[Turned]:
        self._closed = max(self._closed, (self._clock.time_ms - self._lateness_ms) // self._span_ms)
        if len(self._open) > MAX_OPEN:
            self._closed = max(self._closed, min(number for number, _ in self._open) + 1)
        due = [place for place in self._open if place[0] < self._closed]
        due.sort(key=lambda place: (place[0], self._open[place].first_offset))
        return [Turned(self._open.pop(place)) for place in due]

    def dump(self) -> WindowsState:
        begins: dict[str, int] = {}
        for (_, sha256), window in self._open.items():
            begins[sha256] = min(window.first_offset, begins.get(sha256, window.first_offset))
        return WindowsState(begins=begins, clock=self._clock.dump(), closed=self._closed)

    def load(self, state: WindowsState) -> None:
        self._open, self._closed = {}, state.closed
        self._clock.load(state.clock)


class SlidingWindows:
    """For each baseline its newest events: `events` of them, or those of the last `span_ms` when that is not 0.

    It is judged when it is full for the first time (a span is, so long after the baseline's first event), and again
    whenever `check_ms` of event time have passed. It moves on by pieces, which are a 64th of its length: by so much,
    and a partial, it may be longer than the count, and by so much shorter than the span. Baselines are given up as
    CountWindows does.
    """

    def __init__(self, events: int, span_ms: int, check_ms: int) -> None:
        self._events = events
        self._span_ms = span_ms
        self._check_ms = check_ms
        self._due_ms: dict[str, int] = {}
        self._pieces: dict[str, dict[int, Window]] = {}

    def put(self, partial: Partial, reference: Reference) -> str:
        if self._span_ms and partial.from_the_future:
            return FUTURE
        pieces = self._pieces.setdefault(reference.sha256, {})
        self._due_ms.setdefault(reference.sha256, partial.head_ms + self._span_ms if self._span_ms else -1)
        number = self._number(partial, pieces)
        if self._span_ms and pieces and number <= max(pieces) - PIECES:
            return LATE
        if number not in pieces:
            pieces[number] = Window(reference)
        fits = pieces[number].add(partial)
        self._trim(pieces)
        return "" if fits else MISFIT

    def _number(self, partial: Partial, pieces: dict[int, Window]) -> int:
        """Return the number of the piece that the partial belongs to."""
        if self._span_ms:
            return partial.head_ms * PIECES // self._span_ms
        newest = max(pieces, default=0)
        return newest + (newest in pieces and pieces[newest].n * PIECES >= self._events)

    def _trim(self, pieces: dict[int, Window]) -> None:
        """Drop the pieces that the window has left behind."""
        if self._span_ms:
            line = max(pieces) - PIECES
            for number in [number for number in pieces if number <= line]:
                del pieces[number]
            return
        spare = sum(piece.n for piece in pieces.values()) - self._events
        for number in sorted(pieces):
            spare -= pieces[number].n
            if spare < 0:
                return
            del pieces[number]

    def turn(self, offset: int) -> list[Turned]:
        turned = []
        newest = {sha256: max(pieces.values(), key=_place) for sha256, pieces in self._pieces.items()}
        for sha256, pieces in self._pieces.items():
            head_ms = max(piece.head_ms for piece in pieces.values())
            if newest[sha256].last_offset == offset and self._is_due(sha256, head_ms):
                self._due_ms[sha256] = head_ms + self._check_ms
                turned.append(Turned(_sum(pieces)))
        for window in out_of_use(newest.values(), offset):
            sha256 = window.reference.sha256
            turned.append(Turned(_sum(self._pieces.pop(sha256)), complete=False))
            del self._due_ms[sha256]
        return turned

    def _is_due(self, sha256: str, head_ms: int) -> bool:
        due_ms = self._due_ms[sha256]
        if self._span_ms:
            return head_ms >= due_ms
        full = sum(piece.n for piece in self._pieces[sha256].values()) >= self._events
        # Where older events are sent once more, the time goes back with them.
        return full and (head_ms >= due_ms or head_ms <= due_ms - 2 * self._check_ms)

    def dump(self) -> WindowsState:
        begins = {
            sha256: min(piece.first_offset for piece in pieces.values()) for sha256, pieces in self._pieces.items()
        }
        return WindowsState(begins=begins, due_ms=dict(self._due_ms))

    def load(self, state: WindowsState) -> None:
        self._pieces, self._due_ms = {}, dict(state.due_ms)


def _place(piece: Window) -> int:
    return piece.last_offset


def _sum(pieces: dict[int, Window]) -> Window:
    total = Window(next(iter(pieces.values())).reference)
    for _, piece in sorted(pieces.items()):
        total.absorb(piece)
    return total
