"""Notify: the stage on `<s>.alerts`. Alerts are delivered to sinks in the background, and nothing waits for that.

Its state is the checkpoint: what waits, and the ids that came last. It holds what no replay would give again, so it
counts by itself and not by offsets; an alert that comes twice is known by its id. After a crash between a delivery and
the commit that knows of it the alert is delivered once more, with the same `Idempotency-Key`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from agents.checkpoints import state_of
from agents.notify.desk import ALL_WAITING, STAGE, WAITING, Desk, End
from agents.notify.lane import Lane, Outlet
from agents.notify.originals import History
from agents.notify.queue import NotifyState, Waiting
from schemas.errors import FatalError, InvalidEvent
from schemas.events import Alert, Checkpoint
from schemas.quantities import MINUTE_MS
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream import metrics as m
from stream.batches import Batch, Outbox, Record, TopicPartition
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

FORMAT: Final = 1
ALERT_BYTES: Final = 64 * 1024
ID_BYTES: Final = 256  # as JSON: the ids that came last are in the checkpoint
FINISH_S: Final = 12.0  # a delivery that is under way may take so long
AT_ONCE: Final = 64  # records, or dead letters, before others get the event loop

log = logging.getLogger("penstock.notify")


class Notify(Stage):
    """Takes alerts in at once, and delivers them in lanes, one for each outlet."""

    def __init__(
        self,
        spec: StreamSpec,
        outlets: Sequence[Outlet],
        memory: Memory,
        history: History,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`history` reads the log of alerts back. Without `outlets`, what waits from before is given up."""
        self._spec = spec
        self._outlets = outlets
        self._memory = memory
        self._history = history
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._clock = clock
        self._dead = StreamTopics(spec.name).alerts_dead
        self._most = min(WAITING, ALL_WAITING // max(1, len(outlets)))
        self._desk = self._desk_of(NotifyState())
        self._lanes: dict[asyncio.Task[None], Lane] = {}

    def _desk_of(self, state: NotifyState, ends: Sequence[End] = ()) -> Desk:
        return Desk(self._spec.name, state, self._history, self._metrics, self._clock_ms, lambda: self.wake(), ends)

    @property
    def state(self) -> NotifyState:
        """What waits, and what came last."""
        return self._desk.state

    @property
    def has_news(self) -> bool:
        """Whether something is to be written, or is waited for to be durable, or a lane has failed."""
        return self._desk.has_news or any(task.done() for task in self._lanes)

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Restore what waits, and go on with it. Raises FatalError if it cannot be read, and there are outlets."""
        state = self._restored(await self._memory.newest(committed))
        self._desk = self._desk_of(state or NotifyState(), self._desk.ends_unwritten)
        if state is None:
            self._desk.write_anew()
        await self._drop_undeclared()
        for outlet in self._outlets:
            lane = Lane(outlet, self._desk, self._clock_ms, self._clock)
            task = asyncio.create_task(lane.work(), name=f"sink {outlet.spec.name} of {self._spec.name}")
            task.add_done_callback(lambda _: self.wake())
            self._lanes[task] = lane
        self._desk.show(outlet.spec.name for outlet in self._outlets)

    def _restored(self, checkpoint: Checkpoint | None) -> NotifyState | None:
        """Return what is written down, or None if it is to be given up. Raises FatalError."""
        what = f"stream {self._spec.name}: the checkpoint of the alerts that wait for sinks"
        otherwise = "take the sinks of the stream out of penstock.toml once, which gives up what waits"
        try:
            return state_of(NotifyState, checkpoint, FORMAT, what, otherwise)
        except FatalError as error:
            if self._outlets:
                raise
            log.error("%s; the stream has no sinks, and what waited is given up", error)
            return None

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take the alerts in. Delivers nothing."""
        late, now_ms = 0, self._clock_ms()
        for number, record in enumerate(batch.records if self._outlets else ()):
            try:
                late += self._receive(record, now_ms)
            except InvalidEvent as error:
                self._desk.bury(record, error)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        if late:
            log.warning("stream %s: %d alerts were too old for a sink and are passed over", self._spec.name, late)

    async def save(self, outbox: Outbox) -> None:
        """Write what could not be delivered, and the newest state."""
        for task in self._lanes:
            if task.done() and not task.cancelled():
                task.result()  # a lane never ends by itself but by an error
        letters, state = self._desk.write()
        if letters:
            outbox.extend(self._dead, 0, letters)
        if state is not None:
            raw = msgspec.Raw(encode(state))
            self._memory.save(Checkpoint(stage=STAGE, partition=0, format=FORMAT, offsets={}, state=raw), outbox)

    async def finish(self) -> None:
        """Let deliveries that are under way end; the others are left to whoever opens next."""
        await self._stop_lanes()

    async def close(self) -> None:
        """Let deliveries that are under way end, also when a commit has failed: the desk stays, and knows of them."""
        await self._stop_lanes()
        self._metrics.forget(m.NOTIFICATIONS_WAITING, self._spec.name)

    async def _stop_lanes(self) -> None:
        """Wait for attempts under way, for FINISH_S at most, and break off the others: they count."""
        for task, lane in self._lanes.items():
            lane.stop(task)
        try:
            if self._lanes:
                await asyncio.wait(self._lanes, timeout=FINISH_S)
        finally:
            for task in self._lanes:
                task.cancel()
        if self._lanes:
            await asyncio.wait(self._lanes)
        for task in self._lanes:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.debug("stream %s: %s had failed: %s", self._spec.name, task.get_name(), error)
        self._lanes = {}

    def _receive(self, record: Record, now_ms: int) -> bool:
        """Let the sinks that want an alert wait for it; return whether it was too old for one. Raises InvalidEvent."""
        alert = decode(Alert, record.value)
        if alert.stream != self._spec.name:
            raise InvalidEvent("wrong_stream", f"this is an alert of the stream {alert.stream!r}")
        if len(msgspec.json.encode(alert.id)) > ID_BYTES:
            raise InvalidEvent("id_too_long", f"the id of an alert has at most {ID_BYTES} bytes")
        wanting = [outlet.spec for outlet in self._outlets if outlet.spec.wants(alert.stream, alert.severity)]
        if self._desk.knows(alert.id, record.timestamp):
            for sink in wanting:
                self._desk.count(sink.name, "duplicate")
            return False
        age_ms = now_ms - record.timestamp
        sinks = [sink.name for sink in wanting if age_ms <= sink.max_age_minutes * MINUTE_MS]
        for sink in wanting:
            if sink.name not in sinks:
                self._desk.count(sink.name, "too_old")
        if sinks:
            self._desk.note(alert.id, record.timestamp)
        for name in sinks:
            if len(record.value or b"") > ALERT_BYTES:
                self._desk.given_up(name, record, "too_large", f"at most {ALERT_BYTES:,} bytes are sent of an alert")
            elif len(self._desk.lanes.get(name, ())) >= self._most:
                self._desk.given_up(name, record, "overflow", f"{self._most:,} alerts wait for it already")
            else:
                self._desk.take(name, Waiting(record.offset, record.timestamp, alert.severity), record)
        return len(sinks) < len(wanting)

    async def _drop_undeclared(self) -> None:
        """Give up what waits for sinks that are no longer declared for this stream."""
        declared = {outlet.spec.name for outlet in self._outlets}
        for sink in sorted(self._desk.lanes.keys() - declared):
            for number, waiting in enumerate(tuple(self._desk.lanes[sink].values())):
                original = await self._desk.originals.find(waiting)
                self._desk.given_up(sink, original, "no_sink", "it is no longer declared")
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            self._metrics.forget(m.NOTIFICATIONS_WAITING, self._spec.name, sink)
