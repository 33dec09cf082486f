"""The desk: what waits for the sinks of one stream, what of that is durable, and the dead letters to be written."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from agents.notify.originals import History, Originals
from agents.notify.queue import NotifyState, Waiting
from schemas.errors import InvalidEvent
from stream import metrics as m
from stream.batches import Outgoing, Record, TopicPartition
from stream.deadletters import dead_letter
from stream.metric_values import Metrics
from topics.specs import StreamTopics

STAGE: Final = "notify"
WAITING: Final = 1_000
"""Alerts that may wait for one sink."""
ALL_WAITING: Final = 10_000
"""Alerts that may wait for all sinks of a stream, each with the same part: the checkpoint is one message."""
SEEN: Final = 1_000
FORGOTTEN_MS: Final = 24 * 3_600_000

log = logging.getLogger("penstock.notify")


class End(NamedTuple):
    """The end of a sink's wait for the alert at `offset`: it has it, or there is a dead letter instead."""

    sink: str
    offset: int
    letter: Outgoing | None


class Desk:
    """One opening of the stage. Each lane changes what is its own; every change costs the same, however much waits.

    `ends` are those that an earlier opening by this worker came to, and could not write down.
    """

    def __init__(
        self,
        stream: str,
        state: NotifyState,
        history: History,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        wake: Callable[[], None],
        ends: Iterable[End] = (),
    ) -> None:
        """`wake` is called when there is something to write."""
        self._stream = stream
        self._source = TopicPartition(StreamTopics(stream).alerts, 0)
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._wake = wake
        self._lanes = {sink: {waiting.offset: waiting for waiting in lane} for sink, lane in state.lanes.items()}
        self._seen = dict(state.seen)
        self._changes = self._saved = self._durable = 0  # how many changes there were, and are saved, and durable
        self._letters: list[Outgoing] = []
        self._buried: dict[tuple[str, str], tuple[int, str]] = {}
        self._moved = asyncio.Event()
        self._ends: list[tuple[int, End]] = []  # those not durable, each with its change
        self.originals = Originals(self._source, history, lambda: {at for lane in self._lanes.values() for at in lane})
        for end in ends:
            if self._end(end) and end.letter is not None:
                self._letters.append(end.letter)

    @property
    def has_news(self) -> bool:
        """Whether something is to be written, or is waited for to be durable."""
        return self._changes != self._durable or bool(self._letters)

    @property
    def state(self) -> NotifyState:
        """What is to be written down."""
        return NotifyState({sink: tuple(lane.values()) for sink, lane in self._lanes.items() if lane}, dict(self._seen))

    @property
    def ends_unwritten(self) -> list[End]:
        """The ends that no durable checkpoint knows of."""
        return [end for _, end in self._ends]

    @property
    def lanes(self) -> Mapping[str, Mapping[int, Waiting]]:
        """What waits, by sink and offset."""
        return self._lanes

    def knows(self, alert_id: str, time_ms: int) -> bool:
        """Whether the alert came in the day before `time_ms`; after that it is news again."""
        return alert_id in self._seen and time_ms - self._seen[alert_id] < FORGOTTEN_MS

    def note(self, alert_id: str, time_ms: int) -> None:
        """Know the alert from now on."""
        self._seen.pop(alert_id, None)
        self._seen[alert_id] = time_ms
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        self._change()

    def take(self, sink: str, waiting: Waiting, record: Record) -> None:
        """Let an alert wait for the sink."""
        self.originals.keep(record)
        self.put(sink, waiting)

    def put(self, sink: str, waiting: Waiting) -> None:
        """Write down that an alert waits, and how."""
        self._lanes.setdefault(sink, {})[waiting.offset] = waiting
        self._change(sink)

    def delivered(self, sink: str, waiting: Waiting) -> None:
        """Write down that the sink has the alert."""
        self.count(sink, "delivered")
        delay_ms = max(0, self._clock_ms() - waiting.time_ms)
        self._metrics.observe(m.NOTIFICATION_DELAY, delay_ms / 1000, self._stream, sink)
        self._end(End(sink, waiting.offset, None))

    def given_up(self, sink: str, record: Record, reason: str, why: str) -> None:
        """Write down that the alert does not reach the sink."""
        self.count(sink, "undeliverable")
        self._end(End(sink, record.offset, self.bury(record, InvalidEvent(reason, f"sink {sink}: {why}"), sink)))

    def bury(self, record: Record, error: InvalidEvent, sink: str = "") -> Outgoing:
        """Return a dead letter of a record, for one sink or for all; it is written next."""
        self._metrics.count(m.DEAD_LETTERS, 1, self._stream, STAGE, error.reason)
        letter = dead_letter(record, self._source, STAGE, error, self._clock_ms())
        self._letters.append(letter)
        times, _ = self._buried.get((sink, error.reason), (0, ""))
        self._buried[sink, error.reason] = times + 1, str(error)
        self._wake()
        return letter

    def count(self, sink: str, outcome: str) -> None:
        """Count what became of an alert."""
        self._metrics.count(m.NOTIFICATIONS, 1, self._stream, sink, outcome)

    def write_anew(self) -> None:
        """Let the state be written, although nothing in it has changed."""
        self._change()

    async def news(self) -> None:
        """Wait until something changes, or becomes durable."""
        self._moved.clear()
        await self._moved.wait()

    async def is_durable(self) -> None:
        """Wait until what is written down now is durable."""
        changes = self._changes
        while self._durable < changes:
            await self.news()

    def write(self) -> tuple[list[Outgoing], NotifyState | None]:
        """Return the dead letters and the state to be committed next. The commit before this one is done."""
        self._durable = self._saved
        self._ends = [(change, end) for change, end in self._ends if change > self._durable]
        letters, self._letters = self._letters, []
        for times, why in self._buried.values():
            log.warning("stream %s: new dead letters of alerts: %d, the last because: %s", self._stream, times, why)
        self._buried.clear()
        state = self.state if self._changes != self._saved else None
        self._saved = self._changes
        self._moved.set()
        return letters, state

    def show(self, sinks: Iterable[str]) -> None:
        """Set the metric of what waits."""
        for sink in sinks:
            self._metrics.set(m.NOTIFICATIONS_WAITING, len(self._lanes.get(sink, ())), self._stream, sink)

    def _end(self, end: End) -> bool:
        """Write an end down; return whether the sink still waited."""
        if self._lanes.get(end.sink, {}).pop(end.offset, None) is None:
            return False
        if not any(end.offset in lane for lane in self._lanes.values()):
            self.originals.forget(end.offset)
        self._change(end.sink)
        self._ends.append((self._changes, end))
        return True

    def _change(self, *sinks: str) -> None:
        self._changes += 1
        self.show(sinks)
        self._moved.set()
        self._wake()
