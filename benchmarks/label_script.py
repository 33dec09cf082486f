"""What a producer of events and labels sends, in which order, and what must become of each.

Event time passes so fast that the join's window and lateness are over many times in a run. Labels come some time after
their event, most of them later than their own time, out of order; some come before their event. A part is
repeated, corrected, late, contradictory, malformed, or about events that never were.
"""

import heapq
import random
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

import msgspec

from benchmarks import synthetic
from benchmarks.chaos_producer import home_of

WINDOW_MS: Final = 3_600_000
LATENESS_MS: Final = 600_000
STEP_MS: Final = 500
"""The event time between two events."""

DRAWN: Final = 10_000
"""Events with so many numbers between them have the same features."""

_FIRST_TIME_MS: Final = 1_700_000_000_000
_AHEAD_EVENTS: Final = 200
_LATEST_MS: Final = LATENESS_MS // 2  # of sending, after the label's own time; a second label of an event adds a third
_BAD_LABELS: Final = (2, 3, 4, 5)
_CUT_LABELS: Final = (4, 5)
"""Bad labels whose document lacks its end, too."""

_SHARES: Final = {
    "plain": 860,
    "ahead": 40,
    "silent": 30,
    "twice": 20,
    "revised": 15,
    "outside": 10,
    "edge": 8,
    "conflicting": 5,
    "superseded": 5,
    "ghost": 5,
    "malformed": 2,
}
"""What can be the matter with an event's labels, and how often in a thousand."""


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What must become of a record: a sample, nothing, or a dead letter for `reason` (empty: for any).

    `number` is that of the event. An `assumed` sample has no label: its fate is that of the event.
    """

    kind: str
    outcome: str
    number: int
    event_id: str
    entity_id: str
    event_time_ms: int
    label: int = 0
    label_time_ms: int = 0
    revision: int = 0
    assumed: bool = False
    reason: str = ""


class Message(NamedTuple):
    """A record of `<s>.features` or `<s>.labels` that is to be sent now. Events with labels need no fate."""

    topic: str
    key: bytes
    value: bytes
    fate: Fate | None


class Script:
    """The messages of one run, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._values = synthetic.draw(DRAWN, seed).tolist()
        self._truth = synthetic.labels(synthetic.draw(DRAWN, seed), seed)
        self._random = random.Random(seed)
        self._due: list[tuple[int, int, Message]] = []
        self._order = count()
        self._silent: dict[int, Fate] = {}
        self._next = 0
        for number in range(_AHEAD_EVENTS):
            self._plan(number)

    def step(self) -> Iterator[Message]:
        """Yield the next event, after the labels that are due by then."""
        number, self._next = self._next, self._next + 1
        self._plan(number + _AHEAD_EVENTS)
        yield from self._labels_before(_time_of(number))
        yield self._event(number, synthetic.entity_id(number), _time_of(number), self._silent.pop(number, None))

    def end(self) -> Iterator[Message]:
        """Yield the labels that are left, then so late an event and label on each partition that all waiting ends."""
        planned = self._next
        while planned < self._next + _AHEAD_EVENTS:  # their labels may have been sent ahead
            yield from self._labels_before(_time_of(planned))
            yield self._event(planned, synthetic.entity_id(planned), _time_of(planned), self._silent.pop(planned, None))
            planned += 1
        yield from self._labels_before(2**62)
        homes = {home_of(synthetic.entity_id(n).encode()): n for n in range(planned, planned + 1_000)}
        late_ms = _time_of(planned) + 3 * WINDOW_MS
        for number in homes.values():
            yield self._event(number, synthetic.entity_id(number), late_ms, None)
        for number in homes.values():
            fate = self._fate("last", "sample", number, event_time_ms=late_ms, label_time_ms=late_ms)
            yield _label_message(fate)

    def _labels_before(self, time_ms: int) -> Iterator[Message]:
        while self._due and self._due[0][0] < time_ms:
            yield heapq.heappop(self._due)[2]

    def _event(self, number: int, entity_id: str, time_ms: int, fate: Fate | None) -> Message:
        features = dict(zip(synthetic.FEATURES, self._values[number % DRAWN], strict=True))
        event_id = synthetic.event_id(number)
        document = {"event_id": event_id, "entity_id": entity_id, "event_time_ms": time_ms, "features": features}
        return Message(f"{synthetic.STREAM}.features", entity_id.encode(), msgspec.json.encode(document), fate)

    def _plan(self, number: int) -> None:
        """Decide what is the matter with an event's labels, and when which of them is sent."""
        (kind,) = self._random.choices(list(_SHARES), list(_SHARES.values()))
        if kind in ("silent", "outside"):
            times_ms = {"label_time_ms": _time_of(number) + WINDOW_MS}
            self._silent[number] = self._fate(kind, "sample", number, label=0, assumed=True, **times_ms)
        if kind == "silent":
            return
        second, first_ms = kind in ("revised", "superseded"), _time_of(number)
        first_ms += WINDOW_MS if kind == "edge" else self._random.randint(1, WINDOW_MS // 2 if second else WINDOW_MS)
        if kind == "ahead":
            first_ms = _time_of(number) + self._random.randint(0, STEP_MS)
        first = self._fate(kind, "sample", number, label_time_ms=first_ms)
        if kind == "outside":
            first_ms = _time_of(number) + WINDOW_MS + self._random.randint(1, LATENESS_MS // 4)
            first = self._fate(kind, "dead", number, label_time_ms=first_ms, reason="outside_window")
        sent_ms = first_ms + self._random.randint(0, _LATEST_MS)
        if kind == "ahead":
            sent_ms = _time_of(number) - self._random.randint(1, (_AHEAD_EVENTS - 1) * STEP_MS)
        self._send(sent_ms, first)
        for delay_ms, later in self._second(kind, first):
            self._send(max(sent_ms, later.label_time_ms) + delay_ms, later)

    def _second(self, kind: str, first: Fate) -> Iterator[tuple[int, Fate]]:
        """Yield what comes after an event's first label, with the delay, in milliseconds of event time."""
        draw, replace = self._random.randint, msgspec.structs.replace
        delay_ms = draw(1, LATENESS_MS // 3)
        if kind == "twice":
            yield delay_ms, replace(first, outcome="nothing")
        elif kind == "revised":
            later_ms = first.label_time_ms + draw(1, WINDOW_MS // 2)
            yield 0, replace(first, label=draw(0, 1), label_time_ms=later_ms, revision=1)
            yield delay_ms, replace(first, outcome="nothing")
        elif kind == "conflicting":
            yield delay_ms, replace(first, outcome="dead", label=1 - first.label, reason="conflicting")
        elif kind == "superseded":
            earlier_ms = draw(first.event_time_ms, first.label_time_ms - 1)  # earlier still, it might wait in vain
            yield delay_ms, replace(first, outcome="dead", label_time_ms=earlier_ms, reason="superseded")
        elif kind == "ghost":
            yield delay_ms, replace(first, outcome="dead", event_id=f"ghost-{first.number}", reason="no_prediction")
        elif kind == "malformed":
            yield delay_ms, replace(first, outcome="dead", label=self._random.choice(_BAD_LABELS))

    def _send(self, time_ms: int, fate: Fate) -> None:
        heapq.heappush(self._due, (time_ms, next(self._order), _label_message(fate)))

    def _fate(self, kind: str, outcome: str, number: int, **known: object) -> Fate:
        told = {
            "kind": kind,
            "outcome": outcome,
            "number": number,
            "event_id": synthetic.event_id(number),
            "entity_id": synthetic.entity_id(number),
            "event_time_ms": _time_of(number),
            "label": self._truth[number % DRAWN],
        }
        return msgspec.convert(told | known, Fate)


def _time_of(number: int) -> int:
    return _FIRST_TIME_MS + number * STEP_MS


def _label_message(fate: Fate) -> Message:
    document = {name: getattr(fate, name) for name in ("event_id", "entity_id", "label", "label_time_ms")}
    value = msgspec.json.encode(document)
    if fate.label in _CUT_LABELS:
        value = value[:-1]
    return Message(f"{synthetic.STREAM}.labels", fate.entity_id.encode(), value, fate)
