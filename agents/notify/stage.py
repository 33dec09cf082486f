"""Notify: the stage on `<s>.alerts`. Alerts are delivered to sinks in the background, and nothing waits for that.

Its state is the checkpoint: what waits, and the ids that came last. It holds what no replay would give again, so it
counts by itself and not by offsets; an alert that comes twice is known by its id. After a crash between a delivery and
the commit that knows of it the alert is delivered once more, with the same `Idempotency-Key`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from agents.notify.lane import Lane, Outlet
from agents.notify.queue import KEPT_BYTES, Held, NotifyState, Waiting, taken, without
from schemas.errors import InvalidEvent
from schemas.events import Alert, Checkpoint
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import decode, encode
from stream import metrics as m
from stream.batches import Batch, Outbox, Outgoing, Record, TopicPartition
from stream.deadletters import dead_letter
from stream.memory import Memory
from stream.metrics import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE: Final = "notify"
FORMAT: Final = 1
ALERT_BYTES: Final = 64 * 1024
FINISH_S: Final = 12.0  # a delivery that is under way may take so long

log = logging.getLogger("penstock.notify")


class Original(NamedTuple):
    """The record of an alert, once more."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Notify(Stage):
    """Takes alerts in at once, and delivers them in lanes, one for each outlet."""

    def __init__(
        self,
        spec: StreamSpec,
        outlets: Sequence[Outlet],
        memory: Memory,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._outlets = outlets
        self._memory = memory
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._clock = clock
        topics = StreamTopics(spec.name)
        self._source = TopicPartition(topics.alerts, 0)
        self._dead = topics.alerts_dead
        self._forget(NotifyState())

    def _forget(self, state: NotifyState) -> None:
        """Begin with `state`, which is durable."""
        self.state = state
        self._changes = self._saved = self._durable = 0  # how many changes there were, and are saved, and durable
        self._letters: list[Outgoing] = []
        self._moved = asyncio.Event()
        self._lanes: dict[asyncio.Task[None], Lane] = {}

    @property
    def has_news(self) -> bool:
        """Whether something is to be written, or is waited for to be durable, or a lane has failed."""
        return self._changes != self._durable or bool(self._letters) or any(task.done() for task in self._lanes)

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Restore what waits, and go on with it."""
        checkpoint = await self._memory.newest(committed)
        self._forget(_restored(checkpoint))
        self._drop_undeclared()
        for outlet in self._outlets:
            lane = Lane(outlet, self, self._clock_ms, self._clock)
            task = asyncio.create_task(lane.work(), name=f"sink {outlet.spec.name} of {self._spec.name}")
            task.add_done_callback(lambda _: self.wake())
            self._lanes[task] = lane
        self._show_waiting()

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take the alerts in. Delivers nothing."""
        state, late, now_ms = self.state, 0, self._clock_ms()
        for record in batch.records:
            try:
                state, was_late = self._received(state, record, now_ms)
                late += was_late
            except InvalidEvent as error:
                self._bury(record, error)
        if late:
            log.info("stream %s: %d alerts were too old for a sink and are passed over", self._spec.name, late)
        if state is not self.state:
            self.change(state)

    async def save(self, outbox: Outbox) -> None:
        """Write what could not be delivered, and the newest state."""
        for task in self._lanes:
            if task.done() and not task.cancelled():
                task.result()  # a lane never ends by itself but by an error
        self._durable = self._saved  # the commit before this one is done
        if self._letters:
            outbox.extend(self._dead, 0, self._letters)
            self._letters = []
        if self._changes != self._saved:
            state = msgspec.Raw(encode(self.state))
            self._memory.save(Checkpoint(stage=STAGE, partition=0, format=FORMAT, offsets={}, state=state), outbox)
            self._saved = self._changes
        self._moved.set()

    async def finish(self) -> None:
        """Let deliveries that are under way end; the others are left to whoever opens next."""
        for task, lane in self._lanes.items():
            lane.stop(task)
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=FINISH_S)
        await self._stop_lanes()

    async def close(self) -> None:
        """Break off what is under way: its attempt counts."""
        await self._stop_lanes()
        self._forget(NotifyState())
        self._metrics.forget(m.NOTIFICATIONS_WAITING, self._spec.name)

    async def _stop_lanes(self) -> None:
        tasks, self._lanes = list(self._lanes), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.debug("stream %s: %s had failed: %s", self._spec.name, task.get_name(), error)

    def _received(self, state: NotifyState, record: Record, now_ms: int) -> tuple[NotifyState, bool]:
        """Return the state with an alert, and whether it was too old for a sink. Raises InvalidEvent."""
        alert = decode(Alert, record.value)
        if alert.stream != self._spec.name:
            raise InvalidEvent("wrong_stream", f"this is an alert of the stream {alert.stream!r}")
        wanting = [outlet.spec for outlet in self._outlets if outlet.spec.wants(alert.stream, alert.severity)]
        if not wanting or alert.id in state.seen:
            return state, False
        age_ms = now_ms - record.timestamp
        sinks = [sink.name for sink in wanting if age_ms <= sink.max_age_minutes * MINUTE_MS]
        for sink in wanting:
            if sink.name not in sinks:
                self._count(sink.name, "too_old")
        if not sinks:
            return state, True
        value = record.value or b""
        if len(value) > ALERT_BYTES:
            raise InvalidEvent("too_large", f"the alert has {len(value):,} bytes, and at most {ALERT_BYTES:,} are sent")
        if state.kept_bytes + len(value) > KEPT_BYTES:
            raise InvalidEvent("overflow", f"{KEPT_BYTES:,} bytes of alerts wait already for {', '.join(sinks)}")
        held = Held(offset=record.offset, time_ms=record.timestamp, value=msgspec.Raw(value))
        return taken(state, alert.id, held, sinks), len(sinks) < len(wanting)

    def _drop_undeclared(self) -> None:
        """Give up what waits for sinks that are no longer declared for this stream."""
        gone = self.state.lanes.keys() - {outlet.spec.name for outlet in self._outlets}
        for sink in sorted(gone):
            for waiting in self.state.lanes[sink]:
                self.given_up(sink, waiting, InvalidEvent("no_sink", f"sink {sink}: it is no longer declared"))
        if gone:
            self.change(without(self.state, gone))

    # What the lanes use

    def change(self, state: NotifyState) -> None:
        """Move to another state; the task is told that there is something to save."""
        self.state = state
        self._changes += 1
        self._show_waiting()
        self._moved.set()
        self.wake()

    async def news(self) -> None:
        """Wait until the state changes, or becomes durable."""
        self._moved.clear()
        await self._moved.wait()

    async def is_durable(self) -> None:
        """Wait until the state as it is now is durable."""
        changes = self._changes
        while self._durable < changes:
            await self.news()

    def delivered(self, sink: str, waiting: Waiting) -> None:
        """Count a delivery, and how long it took."""
        self._count(sink, "delivered")
        delay_ms = max(0, self._clock_ms() - self.state.held[waiting.id].time_ms)
        self._metrics.observe(m.NOTIFICATION_DELAY, delay_ms / 1000, self._spec.name, sink)

    def retried(self, sink: str, waiting: Waiting, why: str) -> None:
        """Tell of an attempt that failed."""
        self._count(sink, "failed")
        log.warning("stream %s: sink %s: alert %s waits: %s", self._spec.name, sink, waiting.id, why)

    def given_up(self, sink: str, waiting: Waiting, error: InvalidEvent) -> None:
        """Write down that the alert does not reach the sink."""
        self._count(sink, "undeliverable")
        held = self.state.held[waiting.id]
        self._bury(Original(held.offset, held.time_ms, self._spec.name.encode(), bytes(held.value)), error)

    def _bury(self, record: Record, error: InvalidEvent) -> None:
        log.warning("stream %s: record %d of its alerts: %s", self._spec.name, record.offset, error)
        self._metrics.count(m.DEAD_LETTERS, 1, self._spec.name, STAGE, error.reason)
        self._letters.append(dead_letter(record, self._source, STAGE, error, self._clock_ms()))

    def _count(self, sink: str, outcome: str) -> None:
        self._metrics.count(m.NOTIFICATIONS, 1, self._spec.name, sink, outcome)

    def _show_waiting(self) -> None:
        for outlet in self._outlets:
            name = outlet.spec.name
            self._metrics.set(m.NOTIFICATIONS_WAITING, len(self.state.lanes.get(name, ())), self._spec.name, name)


def _restored(checkpoint: Checkpoint | None) -> NotifyState:
    """Return what the checkpoint holds; one that cannot be read is left, since the alerts are in the log."""
    if checkpoint is None:
        return NotifyState()
    try:
        if checkpoint.format == FORMAT:
            return decode(NotifyState, checkpoint.state)
        why = f"it is of format {checkpoint.format}, and this version of Penstock reads {FORMAT}"
    except InvalidEvent as error:
        why = str(error)
    log.error("the checkpoint of what waits for sinks cannot be read (%s); what waited is not delivered", why)
    return NotifyState()
