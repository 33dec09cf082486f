"""Which window a sample belongs to, and when a window is closed and mature: by count of samples, or by event time.

Both kinds are fed stretches of samples that end where something happens to a window (`stop`), so that a report holds
exactly the samples up to that place in the log, however the log was cut into batches.
"""

from bisect import bisect
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

import msgspec
import numpy as np

from ml.evaluation.columns import Columns
from ml.evaluation.histogram import Ints
from ml.evaluation.tally import Scoring, growth_bytes
from ml.evaluation.window import MAX_EVENTS, Window

MAX_WAITING: Final = 1024
MAX_WAITING_BYTES: Final = 2_000_000

LATE, NO_ROOM, UNKNOWN_EVENT = "late", "no_room", "unknown_event"
"""Why no window counts a sample: the window is mature, or had no room to wait; or a revision's event is unknown."""


@dataclass(frozen=True, slots=True)
class WindowRules:
    """A window is `samples` samples, or `span_ms` of event time when that is not 0.

    It is mature when the newest label time is `ripens_ms` past its last event time: the time that labels
    may take, and that they may come out of order.
    """

    samples: int
    span_ms: int
    ripens_ms: int


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest event and label time, and how many scores came, up to and with each sample, shape (n,)."""

    event_ms: Ints
    label_ms: Ints
    scores: Ints


@dataclass(frozen=True, slots=True)
class Look:
    """A window of which the figures are to be reported."""

    window: Window
    mature: bool


class WindowsState(msgspec.Struct, frozen=True, array_like=True):
    """Windows at rest. `places` are the kind's own numbers; `given_up` are ranges of windows, ascending."""

    places: tuple[int, ...]
    windows: list[bytes]
    given_up: list[tuple[int, int]] = []


class Windows(Protocol):
    """The windows that are not mature yet.

    At most MAX_WAITING closed ones, of MAX_WAITING_BYTES together, wait for their labels. The newest of more than
    that stay at their first look: they are never mature, and are judged by no gate. So the state is
    bounded, and at any rate of samples some windows are followed to the end.
    """

    def stop(self, samples: Columns, heads: Heads, start: int) -> int:
        """Return the end of the stretch from `start`: behind the first sample that closes or ripens a window."""

    def place(self, samples: Columns) -> Counter[str]:
        """Count a stretch of samples into their windows. Returns how many were not, by reason."""

    def turn(self, event_head_ms: int, label_head_ms: int) -> list[Look]:
        """Return what is to be reported at the end of a stretch, in the order of windows."""

    def dump(self) -> WindowsState:
        """Return the state."""

    def load(self, state: WindowsState) -> None:
        """Take over a state."""


def windows_of(rules: WindowRules, scoring: Scoring) -> Windows:
    """Return windows by time or by count."""
    return TimeWindows(rules, scoring) if rules.span_ms else CountWindows(rules, scoring)


class CountWindows:
    """Windows of a number of samples; revisions do not count as samples, but correct the window of their event.

    An event's window is known while that is not mature, for the first 65,536 events of a window and
    as many in all closed windows together (the oldest are forgotten first).
    """

    def __init__(self, rules: WindowRules, scoring: Scoring) -> None:
        self._rules = rules
        self._scoring = scoring
        self._open = Window(0, scoring)
        self._waiting: dict[int, Window] = {}

    def stop(self, samples: Columns, heads: Heads, start: int) -> int:
        first = np.flatnonzero(samples.revisions[start:] == 0)
        room = self._rules.samples - self._open.n
        closing = start + int(first[room - 1]) + 1 if len(first) >= room else len(samples)
        if not self._waiting:
            return closing
        due_ms = min(window.to_ms for window in self._waiting.values()) - 1 + self._rules.ripens_ms
        return min(closing, max(start, int(np.searchsorted(heads.label_ms, due_ms))) + 1)

    def place(self, samples: Columns) -> Counter[str]:
        fresh = samples.take(np.flatnonzero(samples.revisions == 0))
        if len(fresh):
            self._open.add(fresh)
        revised = samples.take(np.flatnonzero(samples.revisions > 0))
        return Counter({UNKNOWN_EVENT: self._correct(revised)}) if len(revised) else Counter()

    def _correct(self, samples: Columns) -> int:
        """Replace labels in the windows of these events; return how many events are in none."""
        found = np.zeros(len(samples), dtype=np.bool_)
        first_ms, last_ms = samples.event_times_ms.min(), samples.event_times_ms.max()
        for window in (*self._waiting.values(), self._open):
            if window.from_ms <= last_ms and first_ms < window.to_ms:
                here = window.has(samples.events) & ~found & (samples.replaced >= 0)
                found |= here
                if here.any():
                    window.correct(samples.take(np.flatnonzero(here)))
        return int((~found).sum())

    def turn(self, event_head_ms: int, label_head_ms: int) -> list[Look]:
        if self._open.n >= self._rules.samples:
            self._waiting[self._open.number] = self._open
            self._open = Window(self._open.number + 1, self._scoring)
            self._forget_oldest()
        line_ms = label_head_ms - self._rules.ripens_ms
        looks = []
        for window in list(self._waiting.values()):
            if window.to_ms - 1 <= line_ms:
                looks.append(Look(self._waiting.pop(window.number), mature=True))
            elif not window.looked_at:
                looks.append(Look(window, mature=False))
                window.looked()
                if not self._have_room():
                    del self._waiting[window.number]
        return looks

    def _have_room(self) -> bool:
        weight_bytes = sum(window.weight_bytes for window in self._waiting.values())
        return len(self._waiting) <= MAX_WAITING and weight_bytes <= MAX_WAITING_BYTES

    def _forget_oldest(self) -> None:
        known = sum(window.known_events for window in self._waiting.values())
        for window in self._waiting.values():
            if known <= MAX_EVENTS:
                return
            known -= window.known_events
            window.forget_events()

    def dump(self) -> WindowsState:
        windows = [window.dump() for window in (*self._waiting.values(), self._open)]
        return WindowsState((self._open.number, self._open.n), windows)

    def load(self, state: WindowsState) -> None:
        *waiting, self._open = (Window.restored(self._scoring, dumped, grows=True) for dumped in state.windows)
        self._waiting = {window.number: window for window in waiting}


class TimeWindows:
    """Windows of a span of event time, numbered from 1970. One is closed when a later window has begun.

    A revision is counted where its event time says: that its event was counted there is taken from the samples log.
    Closed windows grow while samples come late. So they are weighed whenever a window begins, and whenever so many
    scores have come that they might weigh too much: the places of both follow from the log alone.
    """

    def __init__(self, rules: WindowRules, scoring: Scoring) -> None:
        self._span_ms = rules.span_ms
        self._ripens_ms = rules.ripens_ms
        self._scoring = scoring
        self._growth_bytes = growth_bytes(scoring)
        self._newest = -1  # number of the newest window begun
        self._ripe = 0  # windows before this one are mature
        self._unweighed = 1  # how many scores may come until the next weighing
        self._windows: dict[int, Window] = {}
        self._given_up: list[tuple[int, int]] = []  # apart, and ascending: from, and up to but without

    def stop(self, samples: Columns, heads: Heads, start: int) -> int:
        begins = np.searchsorted(heads.event_ms, (self._newest + 1) * self._span_ms)
        ripe_ms = (self._ripe + 1) * self._span_ms
        closed = np.searchsorted(heads.event_ms, ripe_ms)
        ripens = max(closed, np.searchsorted(heads.label_ms, ripe_ms + self._ripens_ms))
        before = int(heads.scores[start - 1]) if start else 0
        weighed = np.searchsorted(heads.scores, before + self._unweighed)
        return min(max(start, int(min(begins, ripens, weighed))) + 1, len(samples))

    def place(self, samples: Columns) -> Counter[str]:
        self._unweighed -= sum(len(scored.rows) for scored in samples.variants.values())
        numbers = samples.event_times_ms // self._span_ms
        missed: Counter[str] = Counter()
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            if number < self._ripe:
                missed[LATE] += len(rows)
            elif self._is_given_up(number):
                missed[NO_ROOM] += len(rows)
            else:
                missed[UNKNOWN_EVENT] += self._put(number, samples.take(rows))
        return missed

    def _is_given_up(self, number: int) -> bool:
        place = bisect(self._given_up, number, key=lambda given_up: given_up[0])
        return place > 0 and number < self._given_up[place - 1][1]

    def _put(self, number: int, samples: Columns) -> int:
        """Count samples into the window of this number, which begins with the first event that is not a revision.

        Returns how many are revisions of events that are not in it.
        """
        fresh = np.flatnonzero(samples.revisions == 0)
        correctable = (samples.revisions > 0) & (samples.replaced >= 0)
        if number not in self._windows:
            correctable[: fresh[0] if len(fresh) else None] = False
        if len(fresh):
            span_ms = (number * self._span_ms, (number + 1) * self._span_ms)
            self._windows.setdefault(number, Window(number, self._scoring, span_ms)).add(samples.take(fresh))
        if correctable.any():
            self._windows[number].correct(samples.take(np.flatnonzero(correctable)))
        return len(samples) - len(fresh) - int(correctable.sum())

    def turn(self, event_head_ms: int, label_head_ms: int) -> list[Look]:
        begun = event_head_ms // self._span_ms > self._newest
        self._newest = max(self._newest, event_head_ms // self._span_ms)
        self._ripe = max(self._ripe, min((label_head_ms - self._ripens_ms) // self._span_ms, self._newest))
        self._given_up = [(start, stop) for start, stop in self._given_up if stop > self._ripe]
        looks = []
        for number in self._closed():
            window = self._windows[number]
            if number < self._ripe:
                looks.append(Look(self._windows.pop(number), mature=True))
            elif begun and not window.looked_at:
                looks.append(Look(window, mature=False))
                window.looked()
        return looks + self._weigh() if begun or self._unweighed <= 0 else looks

    def _closed(self) -> list[int]:
        return sorted(number for number in self._windows if number < self._newest)

    def _weigh(self) -> list[Look]:
        """Give up the newest closed windows until the others have room; return those that nobody has looked at yet.

        The newest, since the others are nearer to being mature. An eighth of the room is left, or this would have to
        be done again at once.
        """
        closed, looks = self._closed(), []
        weights_bytes = list(accumulate((self._windows[number].weight_bytes for number in closed), initial=0))
        kept = len(closed)
        if kept > MAX_WAITING or weights_bytes[kept] > MAX_WAITING_BYTES:
            kept = min(MAX_WAITING, bisect(weights_bytes, MAX_WAITING_BYTES * 7 // 8) - 1)
            looks = [Look(self._windows[number], mature=False) for number in closed[kept:]]
            for number in closed[kept:]:
                del self._windows[number]
            self._give_up(closed[kept], closed[kept - 1] if kept else -1)
        self._unweighed = max(1, (MAX_WAITING_BYTES - weights_bytes[kept]) // self._growth_bytes)
        return [look for look in looks if not look.window.looked_at]

    def _give_up(self, start: int, newest_kept: int) -> None:
        """Note that windows from `start` on are given up, and those before it that are newer than any that is kept.

        So there are never more ranges than windows that are kept, and one.
        """
        while self._given_up and self._given_up[-1][0] > newest_kept:
            start = min(start, self._given_up.pop()[0])
        self._given_up.append((start, self._newest))

    def dump(self) -> WindowsState:
        windows = [window.dump() for window in self._windows.values()]
        return WindowsState((self._newest, self._ripe, self._unweighed), windows, self._given_up)

    def load(self, state: WindowsState) -> None:
        self._newest, self._ripe, self._unweighed = state.places
        windows = (Window.restored(self._scoring, dumped, grows=False) for dumped in state.windows)
        self._windows = {window.number: window for window in windows}
        self._given_up = state.given_up
